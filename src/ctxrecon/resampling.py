"""Volumes on the voxels of another scan, through the coordinates of the scanner."""

from __future__ import annotations

import logging
import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-3
"""Of a ratio of voxel edges, which headers round."""


def resample(
    volume: NDArray[np.floating],
    affine: NDArray[np.float64],
    target_affine: NDArray[np.float64],
    target_shape: tuple[int, int, int],
) -> NDArray[np.float32]:
    """A volume on another grid: trilinear, and the mean over each voxel of a coarser grid.

    Trilinear interpolation alone would pick single voxels out of a finer volume, and alias. So
    each voxel of the target is sampled at points spread evenly over it, at most an edge of the
    volume's voxels apart, and these are averaged: the profile of a thick slice is a box. Along
    axes where the target is as fine or finer there is one point, the center.

    Outside the volume, whose voxels reach half an edge beyond their centers, the result is 0; the
    share of such voxels is logged.

    Args:
        volume: real, three axes.
        affine: ``(4, 4)``, from indices of the volume to mm.
        target_affine: likewise of the result.
        target_shape: of the result.

    Returns:
        an array of ``target_shape``.

    Raises:
        InputError: the two grids do not overlap.
    """
    from scipy.ndimage import map_coordinates

    if volume.ndim != 3:
        raise InputError(f"expected a volume of three axes, got shape {volume.shape}")
    to_source = np.linalg.solve(affine, target_affine)
    step, origin = to_source[:3, :3], to_source[:3, 3]
    volume = np.ascontiguousarray(volume, np.float32)
    ends = np.array(volume.shape)[:, None, None] - 1
    points = [_spread(float(np.abs(along).max())) for along in step.T]
    offsets = [step @ np.array(offset) for offset in product(*points)]
    # The last axis is walked, so that the coordinates of one plane alone are in memory.
    rows, columns, planes = target_shape
    plane = np.einsum("ai,iyx->ayx", step[:, :2], np.mgrid[:rows, :columns].astype(np.float64))
    result = np.zeros(target_shape, np.float32)
    covered = 0
    for number in range(planes):
        centers = plane + (origin + number * step[:, 2])[:, None, None]
        # Rounding of the affines must not decide about the outermost voxels.
        inside = ((centers >= -0.5 - 1e-6) & (centers <= ends + 0.5 + 1e-6)).all(axis=0)
        covered += int(inside.sum())
        if not inside.any():
            continue
        total = sum(
            map_coordinates(volume, centers + offset[:, None, None], order=1, mode="nearest")
            for offset in offsets
        )
        result[..., number] = np.where(inside, total / len(offsets), 0)
    share = 1 - covered / math.prod(target_shape)
    if not covered:
        raise InputError(
            f"the volume of {_box(affine, volume.shape)} mm does not overlap the grid of "
            f"{_box(target_affine, target_shape)} mm: check that both are of one person and one "
            "examination"
        )
    if share:
        logger.info("%.1f %% of the voxels lie outside the volume and are 0", 100 * share)
    return result


def _spread(ratio: float) -> NDArray[np.float64]:
    """Offsets from a voxel's center, in its edges, of points that share it evenly.

    Args:
        ratio: voxels of the volume along one edge of the target's.
    """
    count = max(math.ceil(ratio - _TOLERANCE), 1)
    return (np.arange(count) + 0.5) / count - 0.5


def _box(affine: NDArray[np.float64], shape: tuple[int, ...]) -> str:
    """Where a grid lies, for messages: its extent along each axis of the scanner."""
    corners = np.array(list(product(*((-0.5, n - 0.5) for n in shape)))).T
    places = affine[:3, :3] @ corners + affine[:3, 3:]
    return " × ".join(
        f"{low:.0f} to {high:.0f}" for low, high in zip(places.min(1), places.max(1), strict=True)
    )
