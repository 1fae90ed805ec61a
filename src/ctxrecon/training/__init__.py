"""Training: shared components, and one package for each kind of model.

The packages ``prior``, ``clip``, ``reconstructor``, ``cross_modal``, ``masks`` and ``tasks`` each
contain a configuration, data, objective, validation and a ``main``. ``adapt`` fine-tunes a prior on
a few scans within minutes, without a run folder.
"""

from ctxrecon.training.checkpoints import (
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
)
from ctxrecon.training.config import TrainingConfig, UsageError, read_config
from ctxrecon.training.loop import build_accelerator, train
from ctxrecon.training.parser import TrainingParser, parse_config
from ctxrecon.training.prompts import drop_metadata, shuffle_parts, vary_metadata, without
from ctxrecon.training.run_folder import check_run
from ctxrecon.training.script import run_script

__all__ = [
    "TrainingConfig",
    "TrainingParser",
    "UsageError",
    "build_accelerator",
    "check_run",
    "drop_metadata",
    "latest_checkpoint",
    "load_state",
    "parse_config",
    "prune_checkpoints",
    "read_config",
    "run_script",
    "save_state",
    "shuffle_parts",
    "train",
    "vary_metadata",
    "without",
]
