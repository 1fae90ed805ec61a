"""Inpainting operator: the known pixels of an image."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.operators._checks import check_complex64, check_mask
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import freeze


class Inpainting(LinearOperator):
    r"""Inpainting operator, which keeps the known pixels of an image.

    .. math::

        A x = M \odot x, \qquad A^H A = A

    It models signal voids and metal artifacts, whose pixels the prior fills in.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import Inpainting
        >>> mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
        >>> mask[..., 1:3, 1:3] = False
        >>> Inpainting(mask)(torch.ones(1, 4, 4, dtype=torch.complex64)).abs().sum()
        tensor(12.)

    Args:
        mask: Mask of shape ``(batch or 1, 1, ny, nx)``, bool, ``True`` for known pixels.

    Raises:
        InputError: If the mask is not bool, has the wrong shape or is empty.
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
        """Device of the mask."""
        return self.mask.device

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``M``, ``(batch, ny, nx)``."""
        check_complex64(x, self.domain_shape, "an image")
        return x.masked_fill(~self.mask[:, 0], 0)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``Mᴴ = M``, ``(batch, ny, nx)``."""
        return self.forward(y)

    def normal(self, x: Tensor) -> Tensor:
        """Apply ``MᴴM = M``, ``(batch, ny, nx)``."""
        return self.forward(x)
