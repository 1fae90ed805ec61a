"""Contrastive training of a CLIP, whose text encoder conditions the prior."""

from ctxrecon.training.clip.build import build
from ctxrecon.training.clip.config import ClipConfig
from ctxrecon.training.clip.data import Pairs
from ctxrecon.training.clip.objective import (
    READOUT,
    ContrastiveLoss,
    contrastive_loss,
    readout_loss,
    readout_targets,
)
from ctxrecon.training.clip.run import main, parse_args, train_clip
from ctxrecon.training.clip.validation import retrieval

__all__ = [
    "READOUT",
    "ClipConfig",
    "ContrastiveLoss",
    "Pairs",
    "build",
    "contrastive_loss",
    "main",
    "parse_args",
    "readout_loss",
    "readout_targets",
    "retrieval",
    "train_clip",
]
