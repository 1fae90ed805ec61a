"""The options of training a CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctxrecon.training.config import RESOLUTION, Number, TrainingConfig, option

PATCH = 16
"""Side of the patches that the vision transformer sees."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig(TrainingConfig):
    """The options of training a CLIP."""

    bank: Path = option(text="from training/build_bank.py", in_card=True)
    resolution: int = option(96, check=RESOLUTION, in_card=True)
    readout_weight: float = option(1.0, check=Number(0, 1e9))
