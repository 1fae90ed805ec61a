"""Displacement fields: resampling along them, their smoothness, folds and errors.

A displacement is ``(batch, 2, ny, nx)`` float in pixels, its channels along ``ny`` and ``nx``: the
warped image at ``p`` is the image at ``p + ϕ(p)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SOFTNESS = 1e-6
"""Of the norm of differences, in pixels, which has no gradient at 0."""


def warp(images: Tensor, displacement: Tensor) -> Tensor:
    """Images along a displacement, ``x(p + ϕ(p))``, bilinear; zero outside the field of view.

    Complex images are resampled part by part. It is linear in the images and differentiable in
    both; a displacement of 0 returns the images to the bit.

    Args:
        images: ``(batch, ny, nx)`` or ``(batch, channels, ny, nx)``, real or complex.
        displacement: ``(batch or 1, 2, ny, nx)``, in pixels.
    """
    if images.is_complex():
        parts = torch.view_as_real(images).movedim(-1, 1)
        warped = warp(parts.flatten(1, -3), displacement).unflatten(1, parts.shape[1:-2])
        return torch.view_as_complex(warped.movedim(1, -1).contiguous())
    ny, nx = images.shape[-2:]
    flat = images.reshape(len(images), -1, ny * nx)
    rows, row_share = _neighbors(displacement[:, 0], -2)
    columns, column_share = _neighbors(displacement[:, 1], -1)
    result = torch.zeros_like(flat)
    for row, of_row in zip(rows, row_share, strict=True):
        for column, of_column in zip(columns, column_share, strict=True):
            index = (row * nx + column).flatten(1)[:, None].expand_as(flat)
            weight = (of_row * of_column).flatten(1)[:, None].to(flat.dtype)
            result = result + weight * flat.gather(2, index)
    return result.view_as(images)


def _neighbors(along: Tensor, axis: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Indices of the two pixels around each position along an axis, and their weights."""
    size = along.shape[axis]
    index = torch.arange(size, device=along.device, dtype=along.dtype)
    # Its gradient is 0 at both ends, which are outside; at whole pixels it must not be.
    position = ((index[:, None] if axis == -2 else index) + along).clamp(-1, size)
    lower = position.detach().floor()
    share = position - lower
    pixels = (lower.long(), lower.long() + 1)
    weights = (1 - share, share)
    seen = ((pixel >= 0) & (pixel < size) for pixel in pixels)
    return (
        tuple(pixel.clamp(0, size - 1) for pixel in pixels),
        tuple(weight * inside for weight, inside in zip(weights, seen, strict=True)),
    )


def smoothness(displacement: Tensor, images: Tensor) -> Tensor:
    """``Σ_b Σ_{a∈S(b)} H(a, b) ‖ϕ(a) − ϕ(b)‖`` by the number of pixels, ``(batch,)``.

    Wang et al., arXiv:2305.02774, formula (9), with the four neighbors as S(b) and
    ``H = exp(−|x[a] − x[b]|)``, which lets the displacement change at edges of the image. H gets no
    gradient.

    Args:
        displacement: ϕ, ``(batch, 2, ny, nx)``.
        images: x, ``(batch, ny, nx)``, real or complex.
    """
    total = torch.zeros(len(displacement), device=displacement.device)
    for axis in (-2, -1):
        size = displacement.shape[axis]
        change = displacement.narrow(axis, 1, size - 1) - displacement.narrow(axis, 0, size - 1)
        length = (change.square().sum(dim=1) + _SOFTNESS**2).sqrt() - _SOFTNESS
        edge = images.narrow(axis, 1, size - 1) - images.narrow(axis, 0, size - 1)
        # Each pair of neighbors counts for both of its pixels.
        total = total + 2 * (torch.exp(-edge.detach().abs()) * length).flatten(1).sum(dim=1)
    return total / displacement[0, 0].numel()


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """``det(I + ∇ϕ)`` by forward differences, ``(batch, ny − 1, nx − 1)``."""
    along_y = displacement[:, :, 1:, :-1] - displacement[:, :, :-1, :-1]
    along_x = displacement[:, :, :-1, 1:] - displacement[:, :, :-1, :-1]
    straight = (1 + along_y[:, 0]) * (1 + along_x[:, 1])
    return straight - along_y[:, 1] * along_x[:, 0]


def fold_share(displacement: Tensor, where: Tensor | None = None) -> Tensor:
    """Share of the pixels at which the displacement folds, ``det(I + ∇ϕ) ≤ 0``, ``(batch,)``.

    Args:
        displacement: ϕ, ``(batch, 2, ny, nx)``.
        where: ``(batch, ny, nx)`` bool, the pixels that count, such as those of the head; all by
            default.
    """
    folded = jacobian_determinant(displacement) <= 0
    counted = torch.ones_like(folded) if where is None else where[:, :-1, :-1]
    return _mean(folded.float(), counted)


def endpoint_error(displacement: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Mean distance ``‖ϕ − u‖`` in pixels, ``(batch,)``.

    Args:
        displacement: ϕ, ``(batch, 2, ny, nx)``.
        truth: u, likewise.
        where: ``(batch, ny, nx)`` bool, the pixels that count; all by default.
    """
    distance = (displacement - truth).norm(dim=1)
    return _mean(distance, torch.ones_like(distance) if where is None else where)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Mean of each item's values where they count; 0 where none does."""
    counted = where.to(values.dtype)
    return (values * counted).flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp_min(1)
