"""Training of networks guided by a reference of another contrast."""

from ctxrecon.training.cross_modal.config import CrossModalConfig
from ctxrecon.training.cross_modal.data import PairSamples
from ctxrecon.training.cross_modal.objective import (
    PARTS,
    Alternating,
    CrossModalTraining,
    Objective,
    Phase,
)
from ctxrecon.training.cross_modal.run import main, parse_args, train_cross_modal
from ctxrecon.training.cross_modal.validation import UndersampledPairs

__all__ = [
    "PARTS",
    "Alternating",
    "CrossModalConfig",
    "CrossModalTraining",
    "Objective",
    "PairSamples",
    "Phase",
    "UndersampledPairs",
    "main",
    "parse_args",
    "train_cross_modal",
]
