"""What the writers of images share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError

WINDOW_PERCENTILE = 99.8
"""The brightest 0.2 % (vessels, skin beside a coil) would otherwise darken all the rest."""


def check_single_precision(path: Path, images: np.ndarray) -> None:
    """Refuse values whose magnitude is beyond the range of 32-bit floats."""
    largest = float(np.abs(images.astype(np.complex128)).max())
    if largest > float(np.finfo(np.float32).max):
        raise InputError(
            f"cannot write {path}: it holds 32-bit floats, and the images reach {largest:.3g}: "
            "divide them first, or write .npy"
        )
