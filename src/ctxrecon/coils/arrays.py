"""Simulation of receiver arrays."""

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
    r"""Simulate smooth coil maps of a random receiver array around the field of view.

    Each coil is a loop of two straight wires along the slice normal, on an ellipse around the
    object. By the Biot-Savart law a wire at ``a`` of half length ``h`` produces in its mid-plane,
    with ``z = x + iy``,

    .. math::

        B_x - i B_y \propto \frac{1}{z - a} \cdot \frac{h}{\sqrt{|z - a|^2 + h^2}};

    the receive sensitivity is the difference of the two wires. Radius, position, width, length and
    electrical phase vary between coils and batch items.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import simulate_coil_maps
        >>> maps = simulate_coil_maps(4, (32, 32), generator=torch.Generator().manual_seed(0))
        >>> maps.shape
        torch.Size([1, 4, 32, 32])

    Args:
        num_coils: Number of coils; 1 returns maps of unit magnitude.
        shape: Shape ``(ny, nx)`` of the maps.
        batch_size: Number of arrays.
        generator: Random generator. Item ``i`` of a batch equals the result of the ``i``-th single
            call with the same generator.

    Returns:
        Coil maps of shape ``(batch, coils, ny, nx)``, complex64, with ``Σ_c |S_c|² = 1``.

    Raises:
        InputError: If a number or size is not positive.
    """
    if num_coils < 1 or batch_size < 1 or len(shape) != 2 or min(shape) < 1:
        raise InputError(
            "expected at least one coil, one item and one pixel an axis, got "
            f"{num_coils} coils, batch_size {batch_size}, shape {tuple(shape)}: "
            "use positive numbers"
        )
    draws = torch.stack(
        [
            torch.rand(6 * num_coils + 3, generator=generator, device=_device(generator))
            for _ in range(batch_size)
        ]
    )
    array, coil = draws[:, :3, None], draws[:, 3:].reshape(batch_size, 6, num_coils)
    # Lengths in units of half the field of view
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

    # Fields are smooth: compute them on a coarse grid over the field of view, then interpolate.
    gy, gx = (min(n, _GRID_SIZE) for n in shape)
    y = torch.linspace(-1, 1, gy, device=draws.device)[:, None]
    x = torch.linspace(-1, 1, gx, device=draws.device)
    field: Tensor | float = 0.0
    for side in (-1, 1):
        wire_angle = angle + side * half_width
        dx = x - (semi_axes[:, 0] * stretch * wire_angle.cos())[..., None, None]
        dy = y - (semi_axes[:, 1] * stretch * wire_angle.sin())[..., None, None]
        # `depth` regularizes the pole where a wire crosses a corner of the field of view.
        distance = dx**2 + dy**2 + depth**2
        strength = side * half_length / (distance * (distance + half_length**2).sqrt())
        field = field + torch.complex(dx * strength, -dy * strength)
    field = field * torch.polar(torch.ones_like(phase), phase)[..., None, None]
    parts = _refine(torch.cat([field.real, field.imag], dim=1), shape)
    parts = parts * parts.square().sum(dim=1, keepdim=True).clamp_min(1e-30).rsqrt()
    return torch.complex(parts[:, :num_coils], parts[:, num_coils:])


def _refine(parts: Tensor, shape: tuple[int, int]) -> Tensor:
    """Interpolate ``(..., gy, gx)`` to ``(..., ny, nx)``, with the outermost samples fixed."""
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
