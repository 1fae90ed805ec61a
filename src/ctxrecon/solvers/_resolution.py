"""Images that are sought with fewer pixels first, where noise hides the details."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrecon.operators import EachSet, LinearOperator, SincInterpolation
from ctxrecon.priors.denoiser import Denoiser

Solve = Callable[[Tensor, float | Tensor], Tensor]
"""The proximal step of the data, ``(x̂_0, ρ) ↦ x``."""

_FEWEST_PIXELS = 96
"""Along an axis of a coarse image: the fewest that the shipped prior was trained with."""


@dataclass(frozen=True)
class Stage:
    """The pixels that an image ``x`` is sought on, and how it is fitted to the data there.

    Attributes:
        solve: the proximal step of ``‖A U x − y‖²``.
        shape: ``(rows, nx)`` of x.
        interpolation: ``U``, to the pixels of the result; ``None`` on these.
        ratio: pixels of the result for each pixel of x; ``UᴴU = ratio · I``.
    """

    solve: Solve
    shape: tuple[int, ...]
    interpolation: LinearOperator | None = None
    ratio: float = 1.0

    def zero(self, y: Tensor) -> Tensor:
        """An image of zeros for each measurement of ``y``."""
        return torch.zeros((len(y), *self.shape), dtype=y.dtype, device=y.device)

    def refined(self, x: Tensor) -> Tensor:
        """``U x``."""
        return x if self.interpolation is None else self.interpolation(x)

    def restricted(self, x: Tensor) -> Tensor:
        """``Uᴴ x / ratio``, of which ``U`` is the best approximation to an image of the result."""
        return x if self.interpolation is None else self.interpolation.adjoint(x) / self.ratio

    def onto(self, finer: Stage, x: Tensor) -> Tensor:
        """The image on the pixels of a stage that is the same, or that of the result."""
        return x if finer is self else self.refined(x)


def stages(
    denoiser: Denoiser,
    operator: LinearOperator,
    proximal: Callable[[LinearOperator], Solve],
) -> tuple[Stage, Stage]:
    """Half the pixels along each axis, and all of them.

    Both are the same where half of them would be too few.

    Args:
        denoiser: whose network needs a multiple of some number of pixels.
        operator: ``A``, of images with all pixels.
        proximal: gives the proximal step of an operator.
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
