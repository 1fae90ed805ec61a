"""Shared parts of the image writers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError

WINDOW_PERCENTILE = 99.8
"""Upper end of the display window; the brightest 0.2 % (vessels, skin near a coil) saturate."""


def check_single_precision(path: Path, images: np.ndarray) -> None:
    """Validate that magnitudes are within the range of 32-bit floats."""
    largest = float(np.abs(images.astype(np.complex128)).max())
    if largest > float(np.finfo(np.float32).max):
        raise InputError(
            f"cannot write {path}: the format stores 32-bit floats, and the images reach "
            f"{largest:.3g}: scale them down, or write .npy"
        )
