"""Coil maps at each pixel from a Hermitian matrix at each point of a coarse grid.

In both ESPIRiT and Walsh's method the map of a pixel is an eigenvector of a small matrix that
varies as slowly as the coil sensitivities. Eigenvectors are therefore computed on a coarse grid and
interpolated. The interpolated quantity is ``s sᴴ u`` with a fixed ``u``, which does not depend on
the arbitrary phase of the eigenvector ``s``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ctxrecon.coils._interpolation import lagrange_matrix

_SQUARINGS = 2
_POWER_ITERATIONS = 25  # each with the fourth power of the matrix, so a hundred in total
_STRICTEST_CROP = 0.95


def exponentials(points: int, frequencies: Tensor) -> Tensor:
    """Return ``exp(2πi θ f)``, ``(points, frequencies)``, for points θ of the field of view."""
    theta = torch.arange(points, device=frequencies.device) / points - 0.5
    phase = 2 * math.pi * theta[:, None] * frequencies
    return torch.polar(torch.ones_like(phase), phase)


def images_on_grid(calibration: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return low-resolution coil images ``(batch, coils, gy, gx)``, up to a common phase."""
    along_y, along_x = (
        # The window suppresses Gibbs ringing, which would look like signal in air.
        torch.hann_window(n + 2, periodic=False, device=calibration.device)[1:-1]
        * exponentials(points, torch.arange(n, device=calibration.device))
        for n, points in zip(calibration.shape[2:], grid, strict=True)
    )
    return along_y @ calibration @ along_x.mT


def principal_components(calibration: Tensor, count: int) -> Tensor:
    """Return the first principal components of the coils, ``(batch, coils, count)``.

    Their arbitrary phase is chosen such that the largest entry is real.
    """
    samples = calibration.flatten(2)
    vectors = torch.linalg.eigh(samples @ samples.mH)[1][..., -count:].flip(-1)
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    return vectors * torch.exp(-1j * vectors.gather(1, largest).angle())


def leading_eigenpair(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return leading eigenvectors ``(..., coils)`` and eigenvalues ``(...)`` by power iteration.

    Args:
        matrices: Hermitian matrices ``(..., coils, coils)`` with eigenvalues between 0 and 1.
    """
    # Start from the column of each pixel's strongest coil: any start common to all pixels would be
    # orthogonal to the leading eigenvector somewhere.
    strongest = matrices.diagonal(dim1=-2, dim2=-1).real.argmax(dim=-1)
    vector = matrices.gather(-1, strongest[..., None, None].expand(*matrices.shape[:-1], 1))
    powers = matrices
    for _ in range(_SQUARINGS):
        powers = powers @ powers
    for iteration in range(_POWER_ITERATIONS):
        # Eigenvalues do not exceed 1 or fall far below it: float32 can hold a few products.
        if iteration % 2 == 0:
            vector = vector / _norm(vector[..., 0])[..., None]
        vector = powers @ vector
    vector = vector[..., 0] / _norm(vector[..., 0])
    image = (matrices @ vector[..., None])[..., 0]
    values = _norm(image)
    return image / values, values[..., 0]


def automatic_crop(energy: Tensor, values: Tensor, loss: Tensor) -> Tensor:
    """Return the eigenvalue ``(batch,)``, at most 0.95, below which at most ``loss`` energy lies.

    Args:
        energy: Energy of the signal that the maps should explain, ``(batch, gy, gx)``.
        values: Eigenvalues, ``(batch, gy, gx)``.
        loss: Energy that may be lost, ``(batch,)``.
    """
    ascending, order = values.flatten(1).sort(dim=1)
    lost = energy.flatten(1).gather(1, order).cumsum(dim=1)
    index = (lost <= loss[:, None]).sum(dim=1, keepdim=True)
    index = index.clamp_max(ascending.shape[1] - 1)
    return ascending.gather(1, index)[:, 0].clamp_max(_STRICTEST_CROP)


def one_set(
    vectors: Tensor, values: Tensor, reference: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return maps ``(batch, coils, ny, nx)`` of unit norm and eigenvalues ``(batch, ny, nx)``.

    Args:
        vectors: Leading eigenvectors on the grid, ``(batch, gy, gx, coils)``.
        values: Eigenvalues on the grid, ``(batch, gy, gx)``.
        reference: Vector ``u``, ``(batch, coils)``; ``uᴴ S`` is real and positive everywhere.
        shape: Shape ``(ny, nx)`` of the maps.
    """
    overlap = torch.einsum("byxc,bc->byx", vectors.conj(), reference)
    field = (vectors * overlap[..., None]).permute(0, 3, 1, 2)
    planes = _interpolate(torch.cat([field.real, field.imag, values[:, None]], dim=1), shape)
    maps, eigenvalues = planes[:, :-1], planes[:, -1].clone()
    return _unit_maps(*maps.chunk(2, dim=1)), eigenvalues


def two_sets(
    vectors: Tensor, values: Tensor, references: Tensor, crops: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return maps ``(batch, 2, coils, ny, nx)`` and eigenvalues ``(batch, 2, ny, nx)``.

    Where the second eigenvalue reaches its crop, both are close to 1, and any orthonormal basis of
    the plane spanned by the two eigenvectors is as good as the eigenvectors. The basis used varies
    smoothly: it is built from the projections of two fixed vectors on the plane.

    Args:
        vectors: Eigenvectors on the grid, ``(batch, gy, gx, coils, 2)``, the leading one first.
        values: Eigenvalues on the grid, ``(batch, gy, gx, 2)``.
        references: Two fixed vectors, ``(batch, coils, 2)``, orthonormal.
        crops: Crop eigenvalues, ``(batch, 2)``; only used to choose the basis.
        shape: Shape ``(ny, nx)`` of the maps.
    """
    single, _ = one_set(vectors[..., 0], values[..., 0], references[..., 0], shape)
    overlaps = torch.einsum("byxck,bcj->byxkj", vectors.conj(), references)
    plane = torch.einsum("byxck,byxkj->bjcyx", vectors, overlaps).flatten(1, 2)
    planes = _interpolate(
        torch.cat([plane.real, plane.imag, values.permute(0, 3, 1, 2)], dim=1), shape
    )
    eigenvalues = planes[:, -2:].clone()
    first, second = torch.complex(*planes[:, :-2].chunk(2, dim=1)).chunk(2, dim=1)
    first = _unit_maps(first.real, first.imag)
    second = second - first * (first.conj() * second).sum(dim=1, keepdim=True)
    second = _unit_maps(second.real, second.imag)
    both = eigenvalues[:, 1:] >= crops[:, 1, None, None, None]
    return torch.stack([torch.where(both, first, single), second], dim=1), eigenvalues


def _unit_maps(real: Tensor, imaginary: Tensor) -> Tensor:
    power = (real.square() + imaginary.square()).sum(dim=1, keepdim=True)
    scale = power.clamp_min(1e-30).rsqrt()
    return torch.complex(real * scale, imaginary * scale)


def _norm(vectors: Tensor) -> Tensor:
    """Return the norm over the last axis, which is kept; much faster than ``vector_norm`` here."""
    squares = torch.view_as_real(vectors).square().sum(dim=(-2, -1)).clamp_min(1e-30)
    return squares.sqrt()[..., None]


def _interpolate(planes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Interpolate real planes ``(batch, channels, gy, gx)`` from the grid to ``(..., ny, nx)``."""
    along_y, along_x = (
        _grid_to_pixels(size, points, planes.device)
        for size, points in zip(shape, planes.shape[2:], strict=True)
    )
    return along_y @ (planes @ along_x.mT)


@lru_cache(maxsize=32)
def _grid_to_pixels(size: int, points: int, device: torch.device) -> Tensor:
    """Return the matrix ``(size, points)``; 0 is at ``points / 2`` and at pixel ``size // 2``."""
    pixels = torch.arange(size, dtype=torch.float64, device=device) - size // 2
    return lagrange_matrix(pixels * (points / size) + points / 2, points, periodic=True)
