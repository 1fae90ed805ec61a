"""Options of CLIP training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctxrecon.training.config import RESOLUTION, Number, TrainingConfig, option

PATCH = 16
"""Patch size of the vision transformer in pixels."""


@dataclass(frozen=True, kw_only=True)
class ClipConfig(TrainingConfig):
    """Options of CLIP training.

    Example:
        >>> from pathlib import Path
        >>> from ctxrecon.training.clip import ClipConfig
        >>> config = ClipConfig(
        ...     output_dir=Path("runs/clip"), bank=Path("runs/bank.npz"), max_train_steps=1500
        ... )
        >>> config.resolution
        96
    """

    bank: Path = option(text="Bank of anatomies from training/build_bank.py", in_card=True)
    resolution: int = option(96, "Matrix size of the images", check=RESOLUTION, in_card=True)
    readout_weight: float = option(
        1.0, "Weight of the regression of numeric metadata in the loss", check=Number(0, 1e9)
    )
