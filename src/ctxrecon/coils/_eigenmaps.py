"""From a Hermitian matrix at each point of a coarse grid to coil maps at each pixel.

Both ESPIRiT and Walsh's method give the map of a pixel as an eigenvector of a small matrix, and
both vary as slowly as coils do: eigenvectors are found on a coarse grid and interpolated. What is
interpolated is ``s sᴴ u`` with a fixed ``u``, which does not depend on the arbitrary phase of the
eigenvector ``s``.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ctxrecon.coils._interpolation import lagrange_matrix

_SQUARINGS = 2
_POWER_ITERATIONS = 25  # with the fourth power of the matrix: a hundred
_STRICTEST_CROP = 0.95


def exponentials(points: int, frequencies: Tensor) -> Tensor:
    """``exp(2πi θ f)``, ``(points, frequencies)``, for points θ of the field of view."""
    theta = torch.arange(points, device=frequencies.device) / points - 0.5
    phase = 2 * math.pi * theta[:, None] * frequencies
    return torch.polar(torch.ones_like(phase), phase)


def images_on_grid(calibration: Tensor, grid: tuple[int, int]) -> Tensor:
    """Low-resolution coil images ``(batch, coils, gy, gx)``, up to a phase common to all coils."""
    along_y, along_x = (
        # The window keeps the ringing of a few lines from passing for signal in the air.
        torch.hann_window(n + 2, periodic=False, device=calibration.device)[1:-1]
        * exponentials(points, torch.arange(n, device=calibration.device))
        for n, points in zip(calibration.shape[2:], grid, strict=True)
    )
    return along_y @ calibration @ along_x.mT


def principal_components(calibration: Tensor, count: int) -> Tensor:
    """First principal components of the coils, ``(batch, coils, count)``.

    Their phase is arbitrary; it is chosen such that the largest entry is real.
    """
    samples = calibration.flatten(2)
    vectors = torch.linalg.eigh(samples @ samples.mH)[1][..., -count:].flip(-1)
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    return vectors * torch.exp(-1j * vectors.gather(1, largest).angle())


def leading_eigenpair(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Power iteration: vectors ``(..., coils)`` of unit norm and eigenvalues ``(...)``.

    Args:
        matrices: ``(..., coils, coils)`` Hermitian, of eigenvalues between 0 and 1.
    """
    # Started from the column of the strongest coil of each pixel: any one start for all pixels
    # would be orthogonal to the leading eigenvector somewhere.
    strongest = matrices.diagonal(dim1=-2, dim2=-1).real.argmax(dim=-1)
    vector = matrices.gather(-1, strongest[..., None, None].expand(*matrices.shape[:-1], 1))
    powers = matrices
    for _ in range(_SQUARINGS):
        powers = powers @ powers
    for iteration in range(_POWER_ITERATIONS):
        # No eigenvalue exceeds 1 or falls far below: float32 holds the product of a few.
        if iteration % 2 == 0:
            vector = vector / _norm(vector[..., 0])[..., None]
        vector = powers @ vector
    vector = vector[..., 0] / _norm(vector[..., 0])
    image = (matrices @ vector[..., None])[..., 0]
    values = _norm(image)
    return image / values, values[..., 0]


def automatic_crop(energy: Tensor, values: Tensor, loss: Tensor) -> Tensor:
    """Largest eigenvalue ``(batch,)`` below which no more than ``loss`` lies, at most 0.95.

    Args:
        energy: of the signal that the maps are meant to explain, ``(batch, gy, gx)``.
        values: eigenvalues, ``(batch, gy, gx)``.
        loss: energy that may be lost, ``(batch,)``.
    """
    ascending, order = values.flatten(1).sort(dim=1)
    lost = energy.flatten(1).gather(1, order).cumsum(dim=1)
    index = (lost <= loss[:, None]).sum(dim=1, keepdim=True)
    index = index.clamp_max(ascending.shape[1] - 1)
    return ascending.gather(1, index)[:, 0].clamp_max(_STRICTEST_CROP)


def one_set(
    vectors: Tensor, values: Tensor, reference: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Maps ``(batch, coils, ny, nx)`` of unit norm and eigenvalues ``(batch, ny, nx)``.

    Args:
        vectors: leading eigenvectors on the grid, ``(batch, gy, gx, coils)``.
        values: their eigenvalues, ``(batch, gy, gx)``.
        reference: ``u``, ``(batch, coils)``; ``uᴴ S`` is real and positive everywhere.
        shape: ``(ny, nx)``.
    """
    overlap = torch.einsum("byxc,bc->byx", vectors.conj(), reference)
    field = (vectors * overlap[..., None]).permute(0, 3, 1, 2)
    planes = _interpolate(torch.cat([field.real, field.imag, values[:, None]], dim=1), shape)
    maps, eigenvalues = planes[:, :-1], planes[:, -1].clone()
    return _unit_maps(*maps.chunk(2, dim=1)), eigenvalues


def two_sets(
    vectors: Tensor, values: Tensor, references: Tensor, crops: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Maps ``(batch, 2, coils, ny, nx)`` and eigenvalues ``(batch, 2, ny, nx)``.

    Where the second eigenvalue reaches its crop, both are close to 1 and any orthonormal basis of
    the plane that the two eigenvectors span serves as well as they do. Taken is the one that varies
    smoothly, made from the projections of two fixed vectors on the plane.

    Args:
        vectors: ``(batch, gy, gx, coils, 2)``, the leading one first.
        values: ``(batch, gy, gx, 2)``.
        references: ``(batch, coils, 2)`` orthonormal.
        crops: ``(batch, 2)``; for the choice of the basis only.
        shape: ``(ny, nx)``.
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
    """Norm over the last axis, which is kept; several times faster than ``vector_norm`` here."""
    squares = torch.view_as_real(vectors).square().sum(dim=(-2, -1)).clamp_min(1e-30)
    return squares.sqrt()[..., None]


def _interpolate(planes: Tensor, shape: tuple[int, int]) -> Tensor:
    """Real planes ``(batch, channels, gy, gx)`` on the periodic grid to ``(..., ny, nx)``."""
    along_y, along_x = (
        _grid_to_pixels(size, points, planes.device)
        for size, points in zip(shape, planes.shape[2:], strict=True)
    )
    return along_y @ (planes @ along_x.mT)


@lru_cache(maxsize=32)
def _grid_to_pixels(size: int, points: int, device: torch.device) -> Tensor:
    """``(size, points)``; the grid has 0 at half of it, pixels at ``size // 2``."""
    pixels = torch.arange(size, dtype=torch.float64, device=device) - size // 2
    return lagrange_matrix(pixels * (points / size) + points / 2, points, periodic=True)
