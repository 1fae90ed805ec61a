"""Two measurements of one image as a single operator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.operators._checks import common_shape, same_shape
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import check_shape, freeze


class StackedOperator(LinearOperator):
    r"""Two operators on top of each other, for two measurements of one image.

    .. math::

        C = \begin{pmatrix} A \\ B \end{pmatrix}, \qquad
        \|C x - y\|^2 = \|A x - y_A\|^2 + \|B x - y_B\|^2.

    The range is ``(batch, m)``: :meth:`join` flattens and concatenates two measurements, and
    :meth:`split` separates them again. With ``B = √λ I`` and ``y_B = √λ x₀`` the second term is the
    proximal penalty ``λ ‖x − x₀‖²``.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import Crop, Identity, StackedOperator
        >>> operator = StackedOperator(Crop((1, 8, 8), (4, 4)), 0.5 * Identity((1, 8, 8)))
        >>> operator(torch.ones(1, 8, 8)).shape
        torch.Size([1, 80])

    Args:
        first: Operator A.
        second: Operator B with the domain of A.

    Raises:
        InputError: If the domains differ; a batch of 1 matches any batch.
    """

    _batched = ("first", "second")

    first: LinearOperator
    second: LinearOperator

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        if not same_shape(first.domain_shape, second.domain_shape):
            raise InputError(
                f"cannot stack {first!r} and {second!r}, whose domains differ; "
                "build both for the same images"
            )
        freeze(self, first=first, second=second)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of ``x``, batch first."""
        return common_shape(self.first.domain_shape, self.second.domain_shape)

    @property
    def range_shape(self) -> tuple[int, int]:
        """Shape ``(batch, m)`` of ``C x``."""
        return self.domain_shape[0], sum(self._sizes)

    @property
    def device(self) -> torch.device | None:
        """Device of the operators' tensors."""
        return self.first.device or self.second.device

    @property
    def _sizes(self) -> tuple[int, int]:
        """Number of samples of each measurement."""
        return math.prod(self.first.range_shape[1:]), math.prod(self.second.range_shape[1:])

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """Flatten and concatenate ``y_A`` and ``y_B`` to ``(batch, m)``."""
        check_shape(first, self.first.range_shape, "the first measurement")
        check_shape(second, self.second.range_shape, "the second measurement")
        return torch.cat([first.flatten(1), second.flatten(1)], dim=1)

    def split(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``y_A`` and ``y_B`` in the range shapes of the two operators."""
        check_shape(y, self.range_shape, "a measurement")
        first, second = y.split(self._sizes, dim=1)
        return (
            first.reshape(len(y), *self.first.range_shape[1:]),
            second.reshape(len(y), *self.second.range_shape[1:]),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``C x``."""
        return self.join(self.first.forward(x), self.second.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``Aᴴ y_A + Bᴴ y_B``."""
        first, second = self.split(y)
        return self.first.adjoint(first) + self.second.adjoint(second)

    def normal(self, x: Tensor) -> Tensor:
        """Return ``AᴴA x + BᴴB x``."""
        return self.first.normal(x) + self.second.normal(x)

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``‖A x‖² + ‖B x‖²`` of each sample, ``(batch,)``."""
        return self.first.squared_norm(x) + self.second.squared_norm(x)
