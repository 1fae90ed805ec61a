"""Center crop, with zero padding as its adjoint."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from ctxrecon.errors import InputError
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import check_shape, freeze


class Crop(LinearOperator):
    r"""Center crop of the last two axes; its adjoint is zero padding.

    .. math::

        (C x)_{i,j} = x_{i + \lfloor N_y/2 \rfloor - \lfloor n_y/2 \rfloor,\;
                        j + \lfloor N_x/2 \rfloor - \lfloor n_x/2 \rfloor}

    Index ``n // 2``, the center, is mapped to index ``n // 2``.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import Crop
        >>> Crop((1, 8, 8), (4, 6))(torch.ones(1, 8, 8)).shape
        torch.Size([1, 4, 6])

    Args:
        full_shape: Shape ``(batch, NY, NX)`` of the full image.
        shape: Shape ``(ny, nx)`` of the cropped image.

    Raises:
        InputError: If ``shape`` does not fit inside ``full_shape``.
    """

    full_shape: tuple[int, int, int]
    shape: tuple[int, int]

    def __init__(self, full_shape: tuple[int, int, int], shape: tuple[int, int]) -> None:
        full, small = tuple(full_shape), tuple(shape)
        if len(full) != 3 or len(small) != 2 or min(full + small) < 1:
            raise InputError(
                f"expected full_shape (batch, NY, NX) and shape (ny, nx) of positive sizes, "
                f"got {full} and {small}"
            )
        if small[0] > full[1] or small[1] > full[2]:
            raise InputError(
                f"cannot crop {full[1:]} to the larger {small}: choose a shape that fits inside"
            )
        freeze(self, full_shape=full, shape=small)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, NY, NX)``."""
        return self.full_shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, ny, nx)``."""
        return (self.full_shape[0], *self.shape)

    def __getitem__(self, slices: Tensor) -> Crop:
        """Return the operator of selected slices; see :class:`LinearOperator`."""
        batch, ny, nx = self.full_shape
        return self if batch == 1 else Crop((len(slices), ny, nx), self.shape)

    @property
    def _start(self) -> tuple[int, int]:
        (_, full_y, full_x), (ny, nx) = self.full_shape, self.shape
        return full_y // 2 - ny // 2, full_x // 2 - nx // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the center ``(batch, ny, nx)`` of ``x``."""
        check_shape(x, self.domain_shape, "an image")
        (top, left), (ny, nx) = self._start, self.shape
        return x[:, top : top + ny, left : left + nx]

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``y`` in the center of a zero image ``(batch, NY, NX)``."""
        check_shape(y, self.range_shape, "a cropped image")
        (top, left), (ny, nx) = self._start, self.shape
        _, full_y, full_x = self.full_shape
        return pad(y, (left, full_x - nx - left, top, full_y - ny - top))
