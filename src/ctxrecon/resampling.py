"""Resampling of volumes to the voxels of another scan, through scanner coordinates."""

from __future__ import annotations

import logging
import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-3
"""Tolerance for ratios of voxel edges, which headers round."""
_MOST_POINTS = 4096
"""Largest number of the volume's voxels that are averaged in a voxel."""


def resample(
    volume: NDArray[np.floating],
    affine: NDArray[np.float64],
    target_affine: NDArray[np.float64],
    target_shape: tuple[int, int, int],
) -> NDArray[np.float32]:
    """Resample a volume to another grid, averaging over the voxels of a coarser grid.

    Trilinear interpolation alone would pick single voxels from a finer volume, and alias.
    Therefore each target voxel is sampled at evenly distributed points, at most one voxel edge of
    the volume apart, whose values are averaged; a thick slice then has a box profile. Along axes
    where the target is as fine as the volume or finer, there is only the center point.

    Outside the volume, whose voxels extend half an edge beyond their centers, the result is 0; the
    fraction of such voxels is logged.

    Args:
        volume: Real volume with three axes.
        affine: Affine of the volume, shape ``(4, 4)``, from indices to mm.
        target_affine: Affine of the result, shape ``(4, 4)``, from indices to mm.
        target_shape: Shape of the result.

    Returns:
        The resampled volume of shape ``target_shape``, float32.

    Raises:
        InputError: If the two grids do not overlap, or the volume's voxels are far smaller.

    Example:
        >>> import numpy as np
        >>> from ctxrecon.resampling import resample
        >>> volume = np.arange(8.0).reshape(2, 2, 2)
        >>> coarse = np.diag([2.0, 2, 2, 1])
        >>> coarse[:3, 3] = 0.5
        >>> resample(volume, np.eye(4), coarse, (1, 1, 1))
        array([[[3.5]]], dtype=float32)
    """
    from scipy.ndimage import map_coordinates

    if volume.ndim != 3:
        raise InputError(f"expected a volume with three axes, got shape {volume.shape}")
    to_source = np.linalg.solve(affine, target_affine)
    step, origin = to_source[:3, :3], to_source[:3, 3]
    volume = np.ascontiguousarray(volume, np.float32)
    ends = np.array(volume.shape)[:, None, None] - 1
    ratios = [float(np.abs(along).max()) for along in step.T]
    if math.prod(max(ratio, 1.0) for ratio in ratios) > _MOST_POINTS:
        raise InputError(
            f"one voxel of the grid holds {' × '.join(f'{ratio:.3g}' for ratio in ratios)} voxels "
            "of the volume: check the voxel sizes of both"
        )
    points = [_spread(ratio) for ratio in ratios]
    offsets = [step @ np.array(offset) for offset in product(*points)]
    # Plane by plane, so that only the coordinates of one plane are in memory.
    rows, columns, planes = target_shape
    plane = np.einsum("ai,iyx->ayx", step[:, :2], np.mgrid[:rows, :columns].astype(np.float64))
    result = np.zeros(target_shape, np.float32)
    covered = 0
    for number in range(planes):
        centers = plane + (origin + number * step[:, 2])[:, None, None]
        # Tolerance, so that rounding of the affines does not exclude the outermost voxels.
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
            f"{_box(target_affine, target_shape)} mm: check that both are from the same "
            "examination of one person"
        )
    if share:
        logger.info("%.1f %% of the voxels lie outside the volume and are 0", 100 * share)
    return result


def _spread(ratio: float) -> NDArray[np.float64]:
    """Return offsets of evenly distributed points from a voxel's center, in units of its edge.

    Args:
        ratio: Number of the volume's voxels along one edge of a target voxel.
    """
    count = max(math.ceil(ratio - _TOLERANCE), 1)
    return (np.arange(count) + 0.5) / count - 0.5


def _box(affine: NDArray[np.float64], shape: tuple[int, ...]) -> str:
    """Return the extent of a grid along each axis of the scanner, for messages."""
    corners = np.array(list(product(*((-0.5, n - 0.5) for n in shape)))).T
    places = affine[:3, :3] @ corners + affine[:3, 3:]
    return " × ".join(
        f"{low:.0f} to {high:.0f}" for low, high in zip(places.min(1), places.max(1), strict=True)
    )
