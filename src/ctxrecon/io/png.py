"""Writing of magnitude images as PNG."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ctxrecon.files import written_beside
from ctxrecon.io._writing import WINDOW_PERCENTILE, check_single_precision


def write_images(path: Path, images: np.ndarray, *, montage: bool = False) -> tuple[Path, ...]:
    """Write the magnitude of ``(batch, ny, nx)`` images as 8-bit gray, in one common window.

    The window ranges from 0 to the 99.8th percentile of the whole batch, so that slices can be
    compared. Several slices become ``name_000.png``, ``name_001.png``, …, or one montage.
    """
    from PIL import Image

    check_single_precision(path, images)
    magnitude = np.abs(images.astype(np.complex64))
    top = float(np.percentile(magnitude, WINDOW_PERCENTILE)) or float(magnitude.max()) or 1.0
    pictures = np.round(np.clip(magnitude / top, 0, 1) * 255).astype(np.uint8)
    if montage:
        pictures = _montage(pictures)[None]
    paths = [path]
    if len(pictures) > 1:
        paths = [path.with_stem(f"{path.stem}_{index:03d}") for index in range(len(pictures))]
    for target, picture in zip(paths, pictures, strict=True):
        with written_beside(target) as temporary:
            Image.fromarray(picture).save(temporary, format="PNG")
    return tuple(paths)


def _montage(pictures: np.ndarray) -> np.ndarray:
    """Arrange pictures ``(batch, ny, nx)`` on a nearly square grid, row by row."""
    batch, ny, nx = pictures.shape
    columns = math.ceil(math.sqrt(batch))
    rows = math.ceil(batch / columns)
    grid = np.zeros((rows * columns, ny, nx), np.uint8)
    grid[:batch] = pictures
    return grid.reshape(rows, columns, ny, nx).swapaxes(1, 2).reshape(rows * ny, columns * nx)
