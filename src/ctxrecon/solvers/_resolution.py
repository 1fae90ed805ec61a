"""Coarse-to-fine solving: half the pixels along each axis while the noise hides the details."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrecon.operators import EachSet, LinearOperator, SincInterpolation
from ctxrecon.priors.denoiser import Denoiser

Solve = Callable[[Tensor, float | Tensor], Tensor]
"""Proximal step of the data term, ``(x̂_0, ρ) ↦ x``."""

_FEWEST_PIXELS = 96
"""Smallest size of a coarse image along an axis; the shipped prior was trained down to it."""


@dataclass(frozen=True)
class Stage:
    """Pixel grid on which an image ``x`` is estimated, and its data term.

    Attributes:
        solve: Proximal step of ``‖A U x − y‖²``.
        shape: Shape ``(rows, nx)`` of x.
        interpolation: ``U``, from x to the grid of the result; ``None`` if the grids are equal.
        ratio: Number of pixels of the result per pixel of x; ``UᴴU = ratio · I``.
    """

    solve: Solve
    shape: tuple[int, ...]
    interpolation: LinearOperator | None = None
    ratio: float = 1.0

    def zero(self, y: Tensor) -> Tensor:
        """Return a zero image for each measurement of ``y``."""
        return torch.zeros((len(y), *self.shape), dtype=y.dtype, device=y.device)

    def refined(self, x: Tensor) -> Tensor:
        """Return ``U x``, the image on the grid of the result."""
        return x if self.interpolation is None else self.interpolation(x)

    def restricted(self, x: Tensor) -> Tensor:
        """Return ``Uᴴ x / ratio``, the best approximation of a full image on this grid."""
        return x if self.interpolation is None else self.interpolation.adjoint(x) / self.ratio

    def onto(self, finer: Stage, x: Tensor) -> Tensor:
        """Return x on the grid of a finer stage, which is this stage or the full one."""
        return x if finer is self else self.refined(x)


def stages(
    denoiser: Denoiser,
    operator: LinearOperator,
    proximal: Callable[[LinearOperator], Solve],
) -> tuple[Stage, Stage]:
    """Return the coarse stage, with half the pixels along each axis, and the full stage.

    If half the pixels are too few, both are the full stage.

    Args:
        denoiser: Denoiser, whose network may require sizes that are a multiple of some number.
        operator: Forward operator ``A`` on images with all pixels.
        proximal: Function that returns the proximal step of an operator.
    """
    batch, rows, nx = operator.domain_shape
    full = Stage(proximal(operator), (rows, nx))
    sets: int = getattr(denoiser, "sets", 1)
    shape, multiple = (rows // sets, nx), denoiser.size_multiple
    half_ny, half_nx = (multiple * math.ceil(n / 2 / multiple) for n in shape)
    if min(half_ny, half_nx) < _FEWEST_PIXELS:
        return full, full
    each = SincInterpolation((batch, *shape), (half_ny, half_nx))
    interpolation = EachSet(each, sets)
    coarse = Stage(
        proximal(operator @ interpolation),
        (sets * half_ny, half_nx),
        interpolation,
        each.ratio,
    )
    return coarse, full
