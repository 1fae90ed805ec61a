"""Cartesian sampling masks with an exact budget, and non-Cartesian trajectories."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ctxrecon.masks.budget import Generators, Shape
from ctxrecon.masks.lines import equispaced1d, gaussian1d, random1d, uniform1d
from ctxrecon.masks.points import (
    poisson2d_sigpy,
    poisson_disk2d,
    radial2d,
    uniform2d,
    variable_density2d,
)
from ctxrecon.masks.trajectories import (
    nyquist_undersampling,
    radial_trajectory,
    spiral_trajectory,
)
from ctxrecon.registry import Registry

MASKS: Registry[Callable[..., Tensor]] = Registry("mask")
"""Mask name -> function of a shape, an acceleration and a center fraction."""

MASKS.register("uniform1d", uniform1d)
MASKS.register("random1d", random1d)
MASKS.register("equispaced1d", equispaced1d)
MASKS.register("gaussian1d", gaussian1d)
MASKS.register("uniform2d", uniform2d)
MASKS.register("variable_density2d", variable_density2d)
MASKS.register("poisson_disk2d", poisson_disk2d)
MASKS.register("poisson2d_sigpy", poisson2d_sigpy)
MASKS.register("radial2d", radial2d)


def make_mask(
    name: str,
    shape: Shape,
    acceleration: float,
    center_fraction: float | None = None,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Draw masks by name.

    Args:
        name: Key of :data:`MASKS`, such as ``"uniform1d"`` or ``"poisson_disk2d"``.
        shape: Grid size ``(ny, nx)``.
        acceleration: Grid size divided by the number of samples, center included.
        center_fraction: Fully sampled share of the lines, or of each axis in 2-D. ``None``
            selects the default of the mask.
        batch_size: Number of masks, drawn independently.
        generator: A single generator, used for one mask after another, or a list with one
            generator per mask.

    Returns:
        Masks of shape ``(batch_size, 1, ny, nx)``, bool on the CPU, ``True`` where sampled.

    Raises:
        InputError: If the name is unknown, the shape, acceleration or center fraction is invalid,
            the center exceeds the budget, or the number of generators is not ``batch_size``.

    Example:
        >>> import torch
        >>> from ctxrecon.masks import make_mask
        >>> generator = torch.Generator().manual_seed(0)
        >>> mask = make_mask("uniform1d", (64, 64), acceleration=4, generator=generator)
        >>> mask.shape, int(mask[0, 0, 0].sum())
        (torch.Size([1, 1, 64, 64]), 16)
    """
    draw = MASKS[MASKS.find(name)]
    if center_fraction is None:
        return draw(shape, acceleration, batch_size=batch_size, generator=generator)
    return draw(shape, acceleration, center_fraction, batch_size=batch_size, generator=generator)


__all__ = [
    "MASKS",
    "equispaced1d",
    "gaussian1d",
    "make_mask",
    "nyquist_undersampling",
    "poisson2d_sigpy",
    "poisson_disk2d",
    "radial2d",
    "radial_trajectory",
    "random1d",
    "spiral_trajectory",
    "uniform1d",
    "uniform2d",
    "variable_density2d",
]
