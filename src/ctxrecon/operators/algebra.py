"""Algebra of linear operators: ``A.H``, ``A.gram``, ``A @ B``, ``A + B`` and ``c * A``."""

from __future__ import annotations

import cmath
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.operators._checks import common_shape, same_shape
from ctxrecon.operators._factors import (
    Factor,
    check_factor,
    conjugate,
    is_factor,
    power,
    scaled,
)
from ctxrecon.operators.base import LinearMap, check_shape, freeze


class LinearOperator(LinearMap):
    """Immutable linear operator ``A`` between batched tensors.

    The first axis is the batch, whose samples are mapped independently. An operator of batch 1
    applies to any batch. A change of the mask or the coil maps needs a new operator.

    Operators are added and multiplied like matrices, and a number stands for a multiple of the
    identity:

    - ``A.H`` is ``Aᴴ``, and ``A.gram`` is ``AᴴA``, as fast as :meth:`normal`;
    - ``A @ B`` is the composition, ``(A @ B)(x) = A(B(x))``;
    - ``A + B`` is the sum, and ``A + c`` is ``A + c I`` if range and domain of A are equal;
    - ``c * A`` is a multiple, where c is a number or a tensor ``(batch,)`` with one per sample.

    For example, ``conjugate_gradient(A.gram + rho, A.H(y), num_iterations=10)`` solves
    ``(AᴴA + ρ I) x = Aᴴ y``.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import Crop
        >>> operator = 2 * Crop((1, 8, 8), (4, 4))
        >>> operator.gram(torch.ones(1, 8, 8)).max()
        tensor(4.)
    """

    # Makes NumPy defer ``number * A`` to the operator.
    __array_ufunc__: ClassVar[None] = None

    @property
    def H(self) -> LinearOperator:
        """``Aᴴ`` as an operator."""
        return AdjointOperator(self)

    @property
    def gram(self) -> LinearOperator:
        """``AᴴA`` as an operator, by :meth:`normal` and :meth:`squared_norm` of ``A``."""
        return GramOperator(self)

    def __matmul__(self, other: LinearOperator) -> ComposedOperator:
        """Return ``A @ B``, which maps x to ``A (B x)``."""
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return ComposedOperator(self, other)

    def __add__(self, other: LinearOperator | Factor) -> LinearOperator:
        """Return ``A + B``; a number or tensor c stands for ``c I``."""
        if isinstance(other, LinearOperator):
            return SumOperator(self, other)
        if not is_factor(other):
            return NotImplemented
        return SumOperator(self, _multiple_of_identity(other, self))

    def __radd__(self, other: Factor) -> LinearOperator:
        """Return ``c I + A``."""
        if not is_factor(other):
            return NotImplemented
        return SumOperator(_multiple_of_identity(other, self), self)

    def __mul__(self, factor: Factor) -> LinearOperator:
        """Return ``c A``, where c is a number or has one value per sample."""
        return ScaledOperator(self, factor) if is_factor(factor) else NotImplemented

    def __rmul__(self, factor: Factor) -> LinearOperator:
        """Return ``c A``."""
        return self.__mul__(factor)


class Identity(LinearOperator):
    """Identity operator ``I``.

    Args:
        shape: Shape ``(batch, …)`` of domain and range.
    """

    shape: tuple[int, ...]

    def __init__(self, shape: tuple[int, ...]) -> None:
        freeze(self, shape=tuple(shape))

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of ``x``, batch first."""
        return self.shape

    range_shape = domain_shape

    def __getitem__(self, slices: Tensor) -> Identity:
        """Return the identity of selected slices of the batch."""
        batch, *rest = self.shape
        return self if batch == 1 else Identity((len(slices), *rest))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``."""
        check_shape(x, self.shape, "a tensor")
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``y``."""
        return self.forward(y)


class _Derived(LinearOperator):
    """Operator derived from another one, without tensors of its own."""

    _batched = ("operator",)

    operator: LinearOperator

    def __init__(self, operator: LinearOperator) -> None:
        freeze(self, operator=operator)

    @property
    def device(self) -> torch.device | None:
        """Device of the operator's tensors."""
        return self.operator.device


class AdjointOperator(_Derived):
    """Adjoint ``Aᴴ``, returned by ``A.H``."""

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of ``A x``, batch first."""
        return self.operator.range_shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of ``x``, batch first."""
        return self.operator.domain_shape

    @property
    def H(self) -> LinearOperator:
        """The operator ``A``."""
        return self.operator

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``Aᴴ``."""
        return self.operator.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``A``."""
        return self.operator.forward(y)


class GramOperator(_Derived):
    """Normal operator ``AᴴA``, returned by ``A.gram``, with the fast ``normal`` of ``A``."""

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of ``x``, batch first."""
        return self.operator.domain_shape

    range_shape = domain_shape

    @property
    def H(self) -> LinearOperator:
        """The operator ``AᴴA`` itself."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``AᴴA``."""
        return self.operator.normal(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``AᴴA``."""
        return self.operator.normal(y)

    def quadratic(self, x: Tensor) -> Tensor:
        """Return ``⟨x, AᴴA x⟩ = ‖A x‖²`` of each sample, real, ``(batch,)``."""
        return self.operator.squared_norm(x)


class ScaledOperator(LinearOperator):
    """Multiple ``c A``, returned by ``c * A``.

    Args:
        operator: Operator ``A``.
        factor: Factor c, a finite number or a tensor ``()`` or ``(batch,)``; differentiable.

    Raises:
        InputError: If a number is not finite, or a tensor has the wrong shape, batch or device.
    """

    _batched = ("operator", "factor")

    operator: LinearOperator
    factor: Factor

    def __init__(self, operator: LinearOperator, factor: Factor) -> None:
        if isinstance(factor, Tensor):
            check_factor(factor, operator)
            factor = factor.clone()
        else:
            factor = float(factor) if isinstance(factor, Real) else complex(factor)
            if not cmath.isfinite(factor):
                raise InputError(f"expected a finite number to multiply by, got {factor}")
        freeze(self, operator=operator, factor=factor)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of ``x``, batch first."""
        return self._with_batch(self.operator.domain_shape)

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of ``c A x``, batch first."""
        return self._with_batch(self.operator.range_shape)

    @property
    def device(self) -> torch.device | None:
        """Device of the operator's tensors, or else of the factor."""
        own = self.factor.device if isinstance(self.factor, Tensor) else None
        return self.operator.device or own

    @property
    def H(self) -> LinearOperator:
        """``c̄ Aᴴ``."""
        return conjugate(self.factor) * self.operator.H

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``c A``."""
        check_shape(x, self.domain_shape, "a tensor")
        return scaled(self.factor, self.operator.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``c̄ Aᴴ``."""
        check_shape(y, self.range_shape, "a tensor")
        return scaled(conjugate(self.factor), self.operator.adjoint(y))

    def normal(self, x: Tensor) -> Tensor:
        """Apply ``|c|² AᴴA``, with the fast ``normal`` of ``A``."""
        check_shape(x, self.domain_shape, "a tensor")
        return scaled(power(self.factor), self.operator.normal(x))

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``|c|² ‖A x‖²`` of each sample, real, ``(batch,)``."""
        check_shape(x, self.domain_shape, "a tensor")
        return power(self.factor) * self.operator.squared_norm(x)

    def quadratic(self, x: Tensor) -> Tensor:
        """Return ``Re(c ⟨x, A x⟩)`` of each sample, ``(batch,)``."""
        complex_tensor = isinstance(self.factor, Tensor) and self.factor.is_complex()
        if complex_tensor or isinstance(self.factor, complex):
            return super().quadratic(x)
        check_shape(x, self.domain_shape, "a tensor")
        return self.factor * self.operator.quadratic(x)

    def _with_batch(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        factors = self.factor.numel() if isinstance(self.factor, Tensor) else 1
        return (max(shape[0], factors), *shape[1:])


class SumOperator(LinearOperator):
    """Sum ``A + B`` of two operators.

    Raises:
        InputError: If domains or ranges differ; a batch of 1 matches any batch.
    """

    _batched = ("first", "second")

    first: LinearOperator
    second: LinearOperator

    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        fits = same_shape(first.domain_shape, second.domain_shape)
        if not fits or not same_shape(first.range_shape, second.range_shape):
            raise InputError(
                f"cannot add {first!r} and {second!r}, whose shapes differ; "
                "build both for the same shapes"
            )
        freeze(self, first=first, second=second)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of ``x``, batch first."""
        return common_shape(self.first.domain_shape, self.second.domain_shape)

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of ``A x + B x``, batch first."""
        return common_shape(self.first.range_shape, self.second.range_shape)

    @property
    def device(self) -> torch.device | None:
        """Device of the operators' tensors."""
        return self.first.device or self.second.device

    @property
    def H(self) -> LinearOperator:
        """``Aᴴ + Bᴴ``."""
        return self.first.H + self.second.H

    def forward(self, x: Tensor) -> Tensor:
        """Return ``A x + B x``."""
        return self.first.forward(x) + self.second.forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``Aᴴ y + Bᴴ y``."""
        return self.first.adjoint(y) + self.second.adjoint(y)

    def quadratic(self, x: Tensor) -> Tensor:
        """Return ``Re⟨x, A x⟩ + Re⟨x, B x⟩`` of each sample, ``(batch,)``."""
        return self.first.quadratic(x) + self.second.quadratic(x)


class ComposedOperator(LinearOperator):
    """Composition ``outer @ inner``, which applies ``inner`` first.

    Raises:
        InputError: If the range of ``inner`` is not the domain of ``outer``.
    """

    _batched = ("outer", "inner")

    outer: LinearOperator
    inner: LinearOperator

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        if not same_shape(inner.range_shape, outer.domain_shape):
            raise InputError(
                f"cannot compose {outer!r} with {inner!r}: the first expects {outer.domain_shape}, "
                f"the second returns {inner.range_shape}; build both for the same image shape"
            )
        freeze(self, outer=outer, inner=inner)

    @property
    def _batch(self) -> int:
        return max(self.outer.domain_shape[0], self.inner.domain_shape[0])

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of ``x``, batch first."""
        return (self._batch, *self.inner.domain_shape[1:])

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Shape of ``A B x``, batch first."""
        return (self._batch, *self.outer.range_shape[1:])

    @property
    def device(self) -> torch.device | None:
        """Device of the operators' tensors."""
        return self.outer.device or self.inner.device

    @property
    def H(self) -> LinearOperator:
        """``Bᴴ Aᴴ``."""
        return self.inner.H @ self.outer.H

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``A B``."""
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``Bᴴ Aᴴ``."""
        return self.inner.adjoint(self.outer.adjoint(y))

    def normal(self, x: Tensor) -> Tensor:
        """Apply ``Bᴴ (AᴴA) B``, with the fast ``normal`` of the outer operator."""
        return self.inner.adjoint(self.outer.normal(self.inner.forward(x)))

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``‖A B x‖²`` of each sample, real, ``(batch,)``."""
        return self.outer.squared_norm(self.inner.forward(x))


def _multiple_of_identity(factor: Factor, like: LinearOperator) -> LinearOperator:
    """Return ``c I`` on the domain of an operator, whose range must be the same."""
    if like.domain_shape != like.range_shape:
        raise InputError(
            "expected an operator whose range is its domain to add a multiple of the identity to, "
            f"got {like!r}: add it to its gram"
        )
    identity = Identity(like.domain_shape)
    return identity if not isinstance(factor, Tensor) and factor == 1 else factor * identity
