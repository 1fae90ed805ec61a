"""Training of k-space samplers together with the reconstruction from their samples."""

from ctxrecon.training.masks.build import starting_point
from ctxrecon.training.masks.config import MasksConfig
from ctxrecon.training.masks.data import ContrastSamples, source
from ctxrecon.training.masks.greedy import GreedyTraining
from ctxrecon.training.masks.objective import JointObjective, JointTraining, image_loss
from ctxrecon.training.masks.run import main, parse_args, train_masks
from ctxrecon.training.masks.validation import (
    ContrastScans,
    draw_protocols,
    joint_scores,
    magnitude_scan,
    sample_and_reconstruct,
)

__all__ = [
    "ContrastSamples",
    "ContrastScans",
    "GreedyTraining",
    "JointObjective",
    "JointTraining",
    "MasksConfig",
    "draw_protocols",
    "image_loss",
    "joint_scores",
    "magnitude_scan",
    "main",
    "parse_args",
    "sample_and_reconstruct",
    "source",
    "starting_point",
    "train_masks",
]
