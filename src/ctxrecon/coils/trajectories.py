"""Coil maps of non-Cartesian scans, from the samples around the center of k-space."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from ctxrecon.coils.calibration import estimate_coil_maps, find_calibration_region
from ctxrecon.coils.slices import in_all_slices
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import NonCartesianSense
from ctxrecon.operators.density import coverage, density_compensation

logger = logging.getLogger(__name__)

_SIDE = 64
"""Side of the gridded center; maps are estimated from less, and chosen by all of it."""
_ITERATIONS = 10
_COVERED = 0.5
"""Coverage at which a cell counts as sampled, which allows gaps up to 1.2 cells."""


def sense_along(
    kspace: Tensor,
    trajectory: Tensor,
    shape: tuple[int, int],
    coil_maps: Tensor | None = None,
) -> NonCartesianSense:
    """Return ``A = W^½ F_k S`` of a trajectory, with density weights and coil maps from the data.

    Args:
        kspace: Samples of shape ``(batch, coils, shots·samples)``, complex64.
        trajectory: Real tensor of shape ``(shots·samples, 2)``, ``(k_y, k_x)`` in radians per
            pixel.
        shape: Shape ``(ny, nx)`` of the images.
        coil_maps: Coil maps of shape ``(batch or 1, coils, ny, nx)``, complex64; ``None`` estimates
            one set per slice, except for slices of zeros.

    Raises:
        InputError: If maps are to be estimated and the center of k-space is not sampled densely.
    """
    weights = density_compensation(trajectory, shape)
    if coil_maps is None:
        coil_maps = torch.ones(1, 1, *shape, dtype=torch.complex64, device=kspace.device)
        if kspace.shape[1] > 1:
            filled = kspace.flatten(1).any(dim=1)
            maps = kspace.new_zeros((0, kspace.shape[1], *shape))
            if bool(filled.any()):
                logger.info(
                    "no coil maps given: estimating them from the gridded center of k-space"
                )
                gridded, mask = grid_center(kspace[filled], trajectory, weights, shape)
                maps = estimate_coil_maps(gridded, mask, num_maps=1)
            coil_maps = in_all_slices(maps, filled)
    return NonCartesianSense(trajectory, coil_maps, weights.to(kspace.device))


def grid_center(
    kspace: Tensor, trajectory: Tensor, weights: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Grid the center of k-space by a least-squares fit of each coil's small image.

    Args:
        kspace: Samples of shape ``(batch, coils, shots·samples)``, complex64.
        trajectory: Real tensor of shape ``(shots·samples, 2)``, ``(k_y, k_x)`` in radians per
            pixel.
        weights: Weights from :func:`~ctxrecon.operators.density_compensation`.
        shape: Shape ``(ny, nx)`` of the images.

    Returns:
        K-space of shape ``(batch, coils, ny, nx)``, zero outside the mask, and the mask from
        :func:`covered_center`.

    Raises:
        InputError: If the center is not covered.
    """
    mask = covered_center(trajectory, weights, shape).to(kspace.device)
    center, near, inside = _center(trajectory, shape)
    ones = torch.ones(1, 1, *_small(shape), dtype=torch.complex64, device=kspace.device)
    each = NonCartesianSense(near, ones, weights[inside].to(kspace.device))
    samples = each.compensate(kspace[..., inside.to(kspace.device)].flatten(0, 1)[:, None])
    images = conjugate_gradient(each.normal, each.adjoint(samples), num_iterations=_ITERATIONS)
    gridded = kspace.new_zeros((*kspace.shape[:2], *shape))
    gridded[..., center[0], center[1]] = fft2c(images).unflatten(0, kspace.shape[:2])
    return gridded * mask, mask


def covered_center(trajectory: Tensor, weights: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the cells in the center of k-space that a trajectory covers, bool ``(1, 1, ny, nx)``.

    Args:
        trajectory: Real tensor of shape ``(shots·samples, 2)``, ``(k_y, k_x)`` in radians per
            pixel.
        weights: Weights from :func:`~ctxrecon.operators.density_compensation`.
        shape: Shape ``(ny, nx)`` of the images.

    Raises:
        InputError: If there are too few to estimate coil maps.
    """
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    center, near, inside = _center(trajectory, shape)
    if len(near):
        covered = coverage(near, weights[inside], _small(shape)) >= _COVERED
        mask[0, 0, center[0], center[1]] = covered
    try:
        find_calibration_region(mask)
    except InputError as error:
        raise InputError(
            "the trajectory samples the center of k-space too sparsely to estimate coil maps: "
            "pass coil_maps"
        ) from error
    return mask


def _small(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the gridded center."""
    return min(shape[0], _SIDE), min(shape[1], _SIDE)


def _center(
    trajectory: Tensor, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], Tensor, Tensor]:
    """Return the position of the center on the grid, its trajectory, and its samples' mask."""
    sizes = list(zip(shape, _small(shape), strict=True))
    rows, columns = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in sizes)
    ratio = torch.tensor([n / m for n, m in sizes], dtype=torch.float64)
    inside = (trajectory.abs() * ratio <= math.pi).all(dim=1)
    return (rows, columns), trajectory[inside] * ratio, inside
