"""Coil maps of scans along trajectories, from the samples around the centre of k-space."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from ctxrecon.coils.calibration import estimate_coil_maps, find_calibration_region
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import NonCartesianSense
from ctxrecon.operators.density import coverage, density_compensation

logger = logging.getLogger(__name__)

_SIDE = 64
"""Of the centre that is gridded; maps are estimated from less, and chosen by all of it."""
_ITERATIONS = 10
_COVERED = 0.5
"""Of a cell, to count as sampled: gaps up to 1.2 cells."""


def sense_along(
    kspace: Tensor,
    trajectory: Tensor,
    shape: tuple[int, int],
    coil_maps: Tensor | None = None,
) -> NonCartesianSense:
    """``A = W^½ F_k S`` of a trajectory, with weights for its density, and coil maps of the data.

    Args:
        kspace: ``(batch, coils, shots·samples)`` complex64.
        trajectory: ``(shots·samples, 2)`` real, ``(k_y, k_x)`` in radians per pixel.
        shape: ``(ny, nx)`` of the images.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64; estimated if ``None``, one set of
            each slice.

    Raises:
        InputError: maps are to be estimated, and the centre of k-space is not sampled densely.
    """
    weights = density_compensation(trajectory, shape)
    if coil_maps is None:
        coil_maps = torch.ones(1, 1, *shape, dtype=torch.complex64, device=kspace.device)
        if kspace.shape[1] > 1:
            gridded, mask = grid_center(kspace, trajectory, weights, shape)
            logger.info("no coil maps given: estimating them from the gridded centre of k-space")
            coil_maps = estimate_coil_maps(gridded, mask, num_maps=1)
    return NonCartesianSense(trajectory, coil_maps, weights.to(kspace.device))


def grid_center(
    kspace: Tensor, trajectory: Tensor, weights: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The centre of k-space on the Cartesian grid, by least squares of each coil's small image.

    Args:
        kspace: ``(batch, coils, shots·samples)`` complex64.
        trajectory: ``(shots·samples, 2)`` real, ``(k_y, k_x)`` in radians per pixel.
        weights: of :func:`~ctxrecon.operators.density_compensation`.
        shape: ``(ny, nx)`` of the images.

    Returns:
        K-space ``(batch, coils, ny, nx)``, and the mask of :func:`covered_center`; zero outside.

    Raises:
        InputError: the centre is not covered.
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
    """The cells in the centre of k-space that a trajectory covers, ``(1, 1, ny, nx)`` bool.

    Args:
        trajectory: ``(shots·samples, 2)`` real, ``(k_y, k_x)`` in radians per pixel.
        weights: of :func:`~ctxrecon.operators.density_compensation`.
        shape: ``(ny, nx)`` of the images.

    Raises:
        InputError: they are fewer than coil maps can be estimated from.
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
            "the trajectory samples the centre of k-space too thinly to estimate coil maps from: "
            "give coil_maps"
        ) from error
    return mask


def _small(shape: tuple[int, int]) -> tuple[int, int]:
    """Size of the centre."""
    return min(shape[0], _SIDE), min(shape[1], _SIDE)


def _center(
    trajectory: Tensor, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], Tensor, Tensor]:
    """Where the centre lies on the grid, the trajectory in it, and which samples these are."""
    sizes = list(zip(shape, _small(shape), strict=True))
    rows, columns = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in sizes)
    ratio = torch.tensor([n / m for n, m in sizes], dtype=torch.float64)
    inside = (trajectory.abs() * ratio <= math.pi).all(dim=1)
    return (rows, columns), trajectory[inside] * ratio, inside
