"""Displacement fields: warping, smoothness, folding and endpoint errors.

A displacement is a float tensor ``(batch, 2, ny, nx)`` in pixels, with channels along ``ny`` and
``nx``. The warped image at ``p`` is the image at ``p + ϕ(p)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SOFTNESS = 1e-6
"""Smoothing of the norm of differences, in pixels; the plain norm has no gradient at 0."""


def warp(images: Tensor, displacement: Tensor) -> Tensor:
    """Warp images along a displacement, ``x(p + ϕ(p))``, by bilinear interpolation.

    Pixels outside the field of view are zero. Real and imaginary parts are resampled separately.
    The result is linear in the images and differentiable in both arguments; a zero displacement
    returns the images bit by bit.

    Args:
        images: Real or complex images, ``(batch, ny, nx)`` or ``(batch, channels, ny, nx)``.
        displacement: Displacement ``(batch or 1, 2, ny, nx)`` in pixels.

    Returns:
        Warped images, with the shape of ``images``.

    Example:
        >>> import torch
        >>> from ctxrecon.reconstructors import warp
        >>> image = torch.tensor([[[1.0, 2.0, 4.0]]])
        >>> shift = torch.zeros(1, 2, 1, 3)
        >>> shift[:, 1] = 0.5
        >>> warp(image, shift)
        tensor([[[1.5000, 3.0000, 2.0000]]])
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
    """Return indices and weights of the two pixels around each position along an axis."""
    size = along.shape[axis]
    index = torch.arange(size, device=along.device, dtype=along.dtype)
    # Bounds lie one pixel outside: the gradient of clamp is 0 there, but needed at every pixel.
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
    """Return ``Σ_b Σ_{a∈S(b)} H(a, b) ‖ϕ(a) − ϕ(b)‖`` per pixel, ``(batch,)``.

    Wang et al., arXiv:2305.02774, formula (9), with the four neighbors as S(b) and
    ``H = exp(−|x[a] − x[b]|)``, which allows the displacement to change at image edges. H receives
    no gradient.

    Args:
        displacement: Displacement ϕ in pixels, ``(batch, 2, ny, nx)``.
        images: Real or complex images x, ``(batch, ny, nx)``.
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
    """Return ``det(I + ∇ϕ)`` from forward differences, ``(batch, ny − 1, nx − 1)``."""
    along_y = displacement[:, :, 1:, :-1] - displacement[:, :, :-1, :-1]
    along_x = displacement[:, :, :-1, 1:] - displacement[:, :, :-1, :-1]
    straight = (1 + along_y[:, 0]) * (1 + along_x[:, 1])
    return straight - along_y[:, 1] * along_x[:, 0]


def fold_share(displacement: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the share of pixels where the displacement folds, ``det(I + ∇ϕ) ≤ 0``, ``(batch,)``.

    Args:
        displacement: Displacement ϕ in pixels, ``(batch, 2, ny, nx)``.
        where: Pixels to evaluate, such as those of the head, ``(batch, ny, nx)`` bool (default:
            all).
    """
    folded = jacobian_determinant(displacement) <= 0
    counted = torch.ones_like(folded) if where is None else where[:, :-1, :-1]
    return _mean(folded.float(), counted)


def endpoint_error(displacement: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the mean distance ``‖ϕ − u‖`` in pixels, ``(batch,)``.

    Args:
        displacement: Displacement ϕ in pixels, ``(batch, 2, ny, nx)``.
        truth: Reference displacement u in pixels, ``(batch, 2, ny, nx)``.
        where: Pixels to evaluate, ``(batch, ny, nx)`` bool (default: all).
    """
    distance = (displacement - truth).norm(dim=1)
    return _mean(distance, torch.ones_like(distance) if where is None else where)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean over the selected pixels of each item; 0 if none is selected."""
    counted = where.to(values.dtype)
    return (values * counted).flatten(1).sum(dim=1) / counted.flatten(1).sum(dim=1).clamp_min(1)
