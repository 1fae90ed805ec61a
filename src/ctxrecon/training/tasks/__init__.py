"""Training of k-space samplers together with a downstream task."""

from ctxrecon.training.tasks.build import starting_point
from ctxrecon.training.tasks.config import TasksConfig
from ctxrecon.training.tasks.data import TaskSamples, phantom_source
from ctxrecon.training.tasks.objective import (
    ClassificationTraining,
    LINetTraining,
    SegmentationTraining,
    TaskWeights,
    TwoUNetsTraining,
)
from ctxrecon.training.tasks.run import main, parse_args, train_task
from ctxrecon.training.tasks.validation import TaskScans

__all__ = [
    "ClassificationTraining",
    "LINetTraining",
    "SegmentationTraining",
    "TaskSamples",
    "TaskScans",
    "TaskWeights",
    "TasksConfig",
    "TwoUNetsTraining",
    "main",
    "parse_args",
    "phantom_source",
    "starting_point",
    "train_task",
]
