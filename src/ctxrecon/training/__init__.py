"""What the training scripts share: the loop, its arguments and checkpoints, samples, losses."""

from ctxrecon.training.arguments import (
    TrainingParser,
    UsageError,
    add_training_arguments,
    parse_training_args,
)
from ctxrecon.training.checkpoints import (
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
)
from ctxrecon.training.loop import build_accelerator, train
from ctxrecon.training.losses import denoising_loss, spread_timestep
from ctxrecon.training.prompts import drop_metadata, shuffle_parts, vary_metadata, without
from ctxrecon.training.run_folder import check_run
from ctxrecon.training.script import run_script

__all__ = [
    "TrainingParser",
    "UsageError",
    "add_training_arguments",
    "build_accelerator",
    "check_run",
    "denoising_loss",
    "drop_metadata",
    "latest_checkpoint",
    "load_state",
    "parse_training_args",
    "prune_checkpoints",
    "run_script",
    "save_state",
    "shuffle_parts",
    "spread_timestep",
    "train",
    "vary_metadata",
    "without",
]
