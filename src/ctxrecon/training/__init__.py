"""What the training scripts share: prompts with dropout, loss and timesteps, checkpoints."""

from ctxrecon.training.checkpoints import (
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
)
from ctxrecon.training.losses import denoising_loss, spread_timestep
from ctxrecon.training.prompts import drop_metadata

__all__ = [
    "denoising_loss",
    "drop_metadata",
    "latest_checkpoint",
    "load_state",
    "prune_checkpoints",
    "save_state",
    "spread_timestep",
]
