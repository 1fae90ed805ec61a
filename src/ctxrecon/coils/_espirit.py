"""ESPIRiT: coil maps as eigenvectors of the local k-space subspace (Uecker et al., 2014).

Two properties keep it small. The matrix ``G(q)`` whose leading eigenvector is the coil map at
pixel ``q`` is a trigonometric polynomial of the kernel's degree, so it is summed straight from
the kernel projector without an FFT of every kernel. And its eigenvectors vary as slowly as coils
do, so they are found on a grid of at most :data:`GRID_SIZE` points an axis and interpolated;
what is interpolated is ``s sᴴ u`` with a fixed ``u``, which does not depend on the arbitrary
phase of the eigenvector ``s``.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ctxrecon.coils._checks import check_kspace
from ctxrecon.coils._interpolation import lagrange_matrix
from ctxrecon.errors import InputError

GRID_SIZE = 80
"""Points an axis on which eigenvectors are computed; smaller images use every pixel."""

_POWER_ITERATIONS = 30
_MAX_GRID_ENTRIES = 1 << 24  # complex entries of G held at once: 128 MiB
_STRICTEST_CROP = 0.95
_CROPPED_ENERGY = 0.005


class EspiritMaps(NamedTuple):
    """Result of :func:`espirit`.

    Attributes:
        coil_maps: ``(batch, coils, ny, nx)`` complex64, ``Σ_c |S_c|² = 1`` where not cropped.
        eigenvalues: ``(batch, ny, nx)`` float32, 1 where the data agree with one set of maps.
    """

    coil_maps: Tensor
    eigenvalues: Tensor


def espirit(
    calibration: Tensor,
    shape: tuple[int, int],
    *,
    kernel_size: tuple[int, int] = (6, 6),
    threshold: float = 0.02,
    crop: float | Literal["auto"] = "auto",
) -> EspiritMaps:
    """Coil maps from a fully sampled block of k-space.

    Signal patches ``y_c(k + d)`` of the kernel's size span a subspace with projector ``P``; the
    map ``S(q)`` is the eigenvector of eigenvalue 1 of
    ``G(q)_cc' = 1/|d| Σ_dd' P_(cd)(c'd') exp(2πi (d − d')·(q − n//2)/n)``
    (Uecker et al., Magn Reson Med 71:990, 2014, equations 14 to 23).

    The phase of the maps is relative: each pixel is rotated so that the projection on the first
    principal component of the calibration data's coils is real and positive. The phase of an
    image combined with them is therefore that of this virtual coil.

    Args:
        calibration: ``(batch, coils, cy, cx)`` complex, any scale.
        shape: ``(ny, nx)`` of the maps.
        kernel_size: kernel along both axes, at most the calibration block's.
        threshold: singular values below ``threshold`` times the largest are noise.
        crop: maps are zero where the eigenvalue is below; 0 keeps them everywhere. ``"auto"``
            takes 0.95, or less for an item in which that would cut away more than 0.5 % of the
            energy of its low-resolution calibration image: with few lines the eigenvalue falls
            short of 1 inside the object too, and signal that is cropped is lost for good.

    Raises:
        InputError: malformed calibration data, or a kernel larger than it.
    """
    check_kspace(calibration)
    coils, *size = calibration.shape[1:]
    if not all(1 <= k <= n for k, n in zip(kernel_size, size, strict=True)):
        raise InputError(
            f"expected a kernel that fits the calibration block {tuple(size)}, got {kernel_size}: "
            "shrink it to about half the block along a short side"
        )
    grid = tuple(min(size, GRID_SIZE) for size in shape)
    chunk = max(1, _MAX_GRID_ENTRIES // (grid[0] * grid[1] * coils**2))
    parts = [
        _espirit_chunk(part, shape, grid, kernel_size, threshold)
        for part in calibration.to(torch.complex64).split(chunk)
    ]
    coil_maps, eigenvalues, crops = (torch.cat(part) for part in zip(*parts, strict=True))
    if crop != "auto":
        crops = torch.full_like(crops, crop)
    coil_maps = coil_maps * (eigenvalues >= crops[:, None, None])[:, None]
    return EspiritMaps(coil_maps, eigenvalues)


def _espirit_chunk(
    calibration: Tensor,
    shape: tuple[int, int],
    grid: tuple[int, ...],
    kernel_size: tuple[int, int],
    threshold: float,
) -> tuple[Tensor, Tensor, Tensor]:
    # The Gram matrix squares the data: scaled first, it neither under- nor overflows.
    calibration = calibration / calibration.abs().amax(dim=(1, 2, 3), keepdim=True)
    projector = _signal_projector(calibration, kernel_size, threshold)
    gram = _pixel_gram(projector, calibration.shape[1], kernel_size, grid)
    reference = _principal_component(calibration)
    vectors, values = _leading_eigenpair(gram)
    overlap = torch.einsum("byxc,bc->byx", vectors.conj(), reference)
    field = torch.cat(
        [torch.view_as_real(vectors * overlap[..., None]).flatten(-2), values[..., None]], dim=-1
    )
    field = _interpolate(field, shape)
    maps = torch.view_as_complex(field[..., :-1].unflatten(-1, (-1, 2)).contiguous())
    maps = maps / _norm(maps)
    crops = _automatic_crop(calibration, values)
    return maps.permute(0, 3, 1, 2).contiguous(), field[..., -1].contiguous(), crops


def _automatic_crop(calibration: Tensor, values: Tensor) -> Tensor:
    """Eigenvalue ``(batch,)`` below which at most ``_CROPPED_ENERGY`` of the signal lies."""
    size, grid = calibration.shape[2:], values.shape[1:]
    along_y, along_x = (
        # The window keeps the ringing of a few lines from passing for signal in the air.
        torch.hann_window(n + 2, periodic=False, device=values.device)[1:-1]
        * _exponentials(points, torch.arange(n, device=values.device))
        for n, points in zip(size, grid, strict=True)
    )
    image = along_y @ calibration @ along_x.mT
    energy = (image.real**2 + image.imag**2).sum(dim=1).flatten(1)
    ascending, order = values.flatten(1).sort(dim=1)
    lost = energy.gather(1, order).cumsum(dim=1)
    index = (lost <= _CROPPED_ENERGY * lost[:, -1:]).sum(dim=1, keepdim=True)
    return ascending.gather(1, index)[:, 0].clamp_max(_STRICTEST_CROP)


def _signal_projector(
    calibration: Tensor, kernel_size: tuple[int, int], threshold: float
) -> Tensor:
    """``(batch, n, n)`` projector on the span of the patches; ``n = coils · ky · kx``."""
    windows = calibration.unfold(2, kernel_size[0], 1).unfold(3, kernel_size[1], 1)
    # (batch, coils, py, px, ky, kx) -> (batch, coils·ky·kx, positions)
    patches = windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)
    n, positions = patches.shape[1:]
    if positions < n:  # the smaller Gram has the same singular values
        values, right = torch.linalg.eigh(patches.mH @ patches)
        scale = values.clamp_min(1e-20).rsqrt()
        vectors = patches @ (right * scale[:, None])
    else:
        values, vectors = torch.linalg.eigh(patches @ patches.mH)
    keep = values > threshold**2 * values[:, -1:]
    vectors = vectors * keep[:, None]
    vectors = vectors[..., -int(keep.sum(dim=1).max()) :]
    return vectors @ vectors.mH


def _pixel_gram(
    projector: Tensor, coils: int, kernel_size: tuple[int, int], grid: tuple[int, ...]
) -> Tensor:
    """``G`` on a periodic grid over the field of view, ``(batch, gy, gx, coils, coils)``."""
    ky, kx = kernel_size
    batch = projector.shape[0]
    blocks = projector.reshape(batch, coils, ky * kx, coils, ky * kx)
    blocks = blocks.permute(2, 4, 0, 1, 3).flatten(0, 1)
    offset_y = torch.arange(ky, device=projector.device)
    offset_x = torch.arange(kx, device=projector.device)
    y = offset_y.repeat_interleave(kx)
    x = offset_x.repeat(ky)
    # Blocks with the same lag d − d' meet the same exponential: summed once, before the grid.
    lag = (y[:, None] - y + ky - 1) * (2 * kx - 1) + (x[:, None] - x + kx - 1)
    lags = blocks.new_zeros((2 * ky - 1) * (2 * kx - 1), *blocks.shape[1:])
    lags = lags.index_add(0, lag.flatten(), blocks) / (ky * kx)
    along_y, along_x = (
        _exponentials(points, torch.arange(1 - k, k, device=projector.device))
        for points, k in zip(grid, kernel_size, strict=True)
    )
    lags = lags.reshape(2 * ky - 1, 2 * kx - 1, batch, coils, coils).permute(2, 0, 1, 3, 4)
    rows = along_y @ lags.reshape(batch, 2 * ky - 1, -1)
    gram = along_x @ rows.reshape(batch, grid[0], 2 * kx - 1, coils * coils)
    return gram.reshape(batch, *grid, coils, coils)


def _exponentials(points: int, frequencies: Tensor) -> Tensor:
    """``exp(2πi θ f)``, ``(points, frequencies)``, for points θ of the field of view."""
    theta = torch.arange(points, device=frequencies.device) / points - 0.5
    phase = 2 * math.pi * theta[:, None] * frequencies
    return torch.polar(torch.ones_like(phase), phase)


def _principal_component(calibration: Tensor) -> Tensor:
    """First principal component of the coils, ``(batch, coils)``, its largest entry real."""
    samples = calibration.flatten(2)
    vector = torch.linalg.eigh(samples @ samples.mH)[1][..., -1]
    largest = vector.abs().argmax(dim=1, keepdim=True)
    return vector * torch.exp(-1j * vector.gather(1, largest).angle())


def _leading_eigenpair(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Power iteration for every pixel: vectors ``(..., coils)`` of unit norm, and eigenvalues."""
    # Started from the column of the strongest coil of each pixel: any one start for all pixels
    # would be orthogonal to the leading eigenvector somewhere.
    strongest = gram.diagonal(dim1=-2, dim2=-1).real.argmax(dim=-1)
    vector = gram.gather(-1, strongest[..., None, None].expand(*gram.shape[:-1], 1))
    for iteration in range(_POWER_ITERATIONS):
        # No eigenvalue exceeds 1 or falls far below: float32 holds several powers of G.
        if iteration % 5 == 0:
            vector = vector / _norm(vector[..., 0])[..., None]
        vector = gram @ vector
    vector = vector[..., 0] / _norm(vector[..., 0])
    image = (gram @ vector[..., None])[..., 0]
    values = _norm(image)
    return image / values, values[..., 0]


def _norm(vectors: Tensor) -> Tensor:
    """Norm over the last axis, which is kept; several times faster than ``vector_norm`` here."""
    squares = torch.view_as_real(vectors).square().sum(dim=(-2, -1)).clamp_min(1e-30)
    return squares.sqrt()[..., None]


def _interpolate(field: Tensor, shape: tuple[int, int]) -> Tensor:
    """``(batch, gy, gx, channels)`` on the periodic grid to ``(batch, ny, nx, channels)``."""
    batch, gy, gx, channels = field.shape
    along_y = _interpolation_matrix(gy, shape[0], field.device)
    along_x = _interpolation_matrix(gx, shape[1], field.device)
    rows = (along_y @ field.reshape(batch, gy, -1)).reshape(batch, shape[0], gx, channels)
    return along_x @ rows


def _interpolation_matrix(points: int, size: int, device: torch.device) -> Tensor:
    """From the grid of ``_exponentials`` (0 at half of it) to pixels (0 at ``size // 2``)."""
    pixel = torch.arange(size, dtype=torch.float64, device=device) - size // 2
    return lagrange_matrix(pixel / size * points + points / 2, points, periodic=True)
