"""What the training scripts share: the loop, its arguments and checkpoints, samples, losses."""

from ctxrecon.training.arguments import add_training_arguments
from ctxrecon.training.checkpoints import (
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
)
from ctxrecon.training.loop import build_accelerator, train
from ctxrecon.training.losses import denoising_loss, spread_timestep
from ctxrecon.training.prompts import drop_metadata, shuffle_parts, vary_metadata, without

__all__ = [
    "add_training_arguments",
    "build_accelerator",
    "denoising_loss",
    "drop_metadata",
    "latest_checkpoint",
    "load_state",
    "prune_checkpoints",
    "save_state",
    "shuffle_parts",
    "spread_timestep",
    "train",
    "vary_metadata",
    "without",
]
