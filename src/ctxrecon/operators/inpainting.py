"""Known pixels of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.operators._checks import check_complex64, check_mask
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import freeze


class Inpainting(LinearOperator):
    """``A = M``: the pixels of an image that are known, zero elsewhere.

    For signal voids and metal artefacts, whose pixels the prior fills in. ``A`` is a projection:
    ``AᴴA = A``.

    Args:
        mask: ``(batch or 1, 1, ny, nx)`` bool, ``True`` where the pixel is known.

    Raises:
        InputError: a mask that is not bool, not of that shape or empty.
    """

    _batched = ("mask",)

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        check_mask(mask)
        freeze(self, mask=mask.clone())

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, ny, nx)``."""
        return (self.mask.shape[0], *self.mask.shape[-2:])

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, ny, nx)``."""
        return self.domain_shape

    @property
    def device(self) -> torch.device:
        """Where the mask lives."""
        return self.mask.device

    def forward(self, x: Tensor) -> Tensor:
        """``M x``, ``(batch, ny, nx)``."""
        check_complex64(x, self.domain_shape, "an image")
        return x.masked_fill(~self.mask[:, 0], 0)

    def adjoint(self, y: Tensor) -> Tensor:
        """``Mᴴ y = M y``, ``(batch, ny, nx)``."""
        return self.forward(y)

    def normal(self, x: Tensor) -> Tensor:
        """``MᴴM x = M x``, ``(batch, ny, nx)``."""
        return self.forward(x)
