"""Sampling masks whose budget is exact, as ``(batch, 1, ny, nx)`` bool tensors."""

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
"""Name -> function of a shape, an acceleration and a center fraction."""

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
    """A mask by its name, a key of :data:`MASKS`.

    Args:
        name: such as ``"uniform1d"`` or ``"poisson_disk2d"``.
        shape: ``(ny, nx)``.
        acceleration: size of the grid over the number of samples, centre included.
        center_fraction: fully sampled share of the lines, or of each axis in 2-D; ``None`` for
            the default of that mask.
        batch_size: number of masks, drawn independently.
        generator: one, drawn from mask after mask, or a list with one for each mask.

    Returns:
        ``(batch_size, 1, ny, nx)`` bool on the CPU, ``True`` where sampled.

    Raises:
        InputError: for an unknown name, and as the mask itself.
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
