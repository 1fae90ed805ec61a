"""Simulated receiver arrays."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctxrecon.coils._interpolation import lagrange_matrix
from ctxrecon.errors import InputError

_GRID_SIZE = 40


def simulate_coil_maps(
    num_coils: int,
    shape: tuple[int, int],
    *,
    batch_size: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Smooth coil maps of a random array around the field of view.

    Each coil is a loop of two straight wires along the slice normal, at ``a`` and ``b`` on an
    ellipse around the object. By Biot and Savart's law a wire at ``a`` of half length ``h`` gives
    in its mid-plane, with ``z = x + iy``, ``B_x − iB_y ∝ 1/(z − a) · h/√(|z − a|² + h²)``;
    the receive sensitivity is the difference of the two wires. Radius, place, width, length and
    electrical phase vary from coil to coil and item to item.

    Args:
        num_coils: coils of the array; 1 gives maps of unit magnitude.
        shape: ``(ny, nx)``.
        batch_size: arrays to draw.
        generator: source of the random numbers. Item ``i`` of a batch is what the ``i``-th of
            single calls with the same generator gives.

    Returns:
        ``(batch, coils, ny, nx)`` complex64 with ``Σ_c |S_c|² = 1`` at every pixel.
    """
    if num_coils < 1 or batch_size < 1 or len(shape) != 2 or min(shape) < 1:
        raise InputError(
            "expected at least one coil, one item and one pixel an axis, got "
            f"{num_coils} coils, batch_size {batch_size}, shape {tuple(shape)}: "
            "give positive numbers"
        )
    draws = torch.stack(
        [
            torch.rand(6 * num_coils + 3, generator=generator, device=_device(generator))
            for _ in range(batch_size)
        ]
    )
    array, coil = draws[:, :3, None], draws[:, 3:].reshape(batch_size, 6, num_coils)
    # Lengths in half fields of view.
    semi_axes = 1.1 + 0.3 * array[:, :2]
    spacing = 2 * math.pi / num_coils
    index = torch.arange(num_coils, device=draws.device)
    angle = spacing * (index + 0.5 * (coil[:, 0] - 0.5)) + 2 * math.pi * array[:, 2]
    half_width = (0.5 + 0.3 * coil[:, 1]) * max(spacing, math.pi / 6)
    half_width = half_width.clamp_max(math.pi / 3)
    stretch = 1 + 0.2 * coil[:, 2]
    half_length = (0.6 + 0.6 * coil[:, 3])[..., None, None]
    phase = 2 * math.pi * coil[:, 4]
    depth = (0.15 + 0.15 * coil[:, 5])[..., None, None]

    # Fields are smooth: summed on a coarse grid over the same field of view, then interpolated.
    gy, gx = (min(n, _GRID_SIZE) for n in shape)
    y = torch.linspace(-1, 1, gy, device=draws.device)[:, None]
    x = torch.linspace(-1, 1, gx, device=draws.device)
    field: Tensor | float = 0.0
    for side in (-1, 1):
        wire_angle = angle + side * half_width
        dx = x - (semi_axes[:, 0] * stretch * wire_angle.cos())[..., None, None]
        dy = y - (semi_axes[:, 1] * stretch * wire_angle.sin())[..., None, None]
        # `depth` rounds off the pole where a wire crosses a corner of the field of view.
        distance = dx**2 + dy**2 + depth**2
        strength = side * half_length / (distance * (distance + half_length**2).sqrt())
        field = field + torch.complex(dx * strength, -dy * strength)
    field = field * torch.polar(torch.ones_like(phase), phase)[..., None, None]
    parts = _refine(torch.cat([field.real, field.imag], dim=1), shape)
    parts = parts * parts.square().sum(dim=1, keepdim=True).clamp_min(1e-30).rsqrt()
    return torch.complex(parts[:, :num_coils], parts[:, num_coils:])


def _refine(parts: Tensor, shape: tuple[int, int]) -> Tensor:
    """``(..., gy, gx)`` real to ``(..., ny, nx)``; the outermost samples stay outermost."""
    along_y, along_x = (
        torch.eye(size, device=parts.device)
        if size == points
        else lagrange_matrix(
            torch.linspace(0, points - 1, size, dtype=torch.float64, device=parts.device),
            points,
            periodic=False,
        )
        for size, points in zip(shape, parts.shape[-2:], strict=True)
    )
    return along_y @ parts @ along_x.mT


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device
