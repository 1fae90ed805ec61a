"""Training of reconstruction networks."""

from ctxrecon.training.reconstructor.build import starting_point
from ctxrecon.training.reconstructor.config import ReconstructorConfig
from ctxrecon.training.reconstructor.data import (
    Labels,
    MeasurementSamples,
    Sampling,
    sources,
    split,
)
from ctxrecon.training.reconstructor.objective import (
    Objective,
    ReconstructorTraining,
    held_out_loss,
    paired_loss,
)
from ctxrecon.training.reconstructor.run import main, parse_args, train_reconstructor
from ctxrecon.training.reconstructor.validation import UndersampledScans

__all__ = [
    "Labels",
    "MeasurementSamples",
    "Objective",
    "ReconstructorConfig",
    "ReconstructorTraining",
    "Sampling",
    "UndersampledScans",
    "held_out_loss",
    "main",
    "paired_loss",
    "parse_args",
    "sources",
    "split",
    "starting_point",
    "train_reconstructor",
]
