"""What every measurement model provides: forward, adjoint, normal, composition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from ctxrecon.errors import InputError

Operator = TypeVar("Operator", bound="LinearOperator")


class LinearOperator(ABC):
    """An immutable linear map ``A`` between batched tensors.

    The first axis is the batch. An operator of batch 1 applies to any batch. A different mask,
    or different coil maps, is another operator.

    Attributes:
        mask: what was sampled, ``None`` where there is no grid.
        coil_maps: ``None`` where there are none.
    """

    mask: Tensor | None = None
    coil_maps: Tensor | None = None

    _batched: ClassVar[tuple[str, ...]] = ()
    """Attributes with a batch axis: tensors of batch 1 or more, and operators."""

    @property
    @abstractmethod
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of ``x``, batch first."""

    @property
    @abstractmethod
    def range_shape(self) -> tuple[int, ...]:
        """Shape of ``A x``, batch first."""

    @property
    def device(self) -> torch.device | None:
        """Where the operator's own tensors live; ``None`` if it holds none."""
        return None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """``A x``: from :attr:`domain_shape` to :attr:`range_shape`."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """``Aᴴ y``: from :attr:`range_shape` to :attr:`domain_shape`."""

    def normal(self, x: Tensor) -> Tensor:
        """``AᴴA x``, which operators may compute faster than in two steps."""
        return self.adjoint(self.forward(x))

    def squared_norm(self, x: Tensor) -> Tensor:
        """``‖A x‖²`` of each sample, real, ``(batch,)``."""
        return self.forward(x).abs().square().flatten(1).sum(dim=1)

    def __call__(self, x: Tensor) -> Tensor:
        """``A x``."""
        return self.forward(x)

    def __matmul__(self, other: LinearOperator) -> ComposedOperator:
        """``(A @ B) x = A (B x)``."""
        if not isinstance(other, LinearOperator):
            return NotImplemented
        return ComposedOperator(self, other)

    def to(self: Operator, device: torch.device | str) -> Operator:
        """The same operator on another device; itself if it is there."""
        if self.device is None or self.device == torch.device(device):
            return self
        return self._changed(vars(self), lambda value: value.to(device))

    def __getitem__(self: Operator, slices: Tensor) -> Operator:
        """The operator of some slices of the batch, each as often as its index is in ``slices``.

        An operator of batch 1 serves every slice, and is returned as it is.

        Args:
            slices: indices, ``(number,)``.
        """
        if self.domain_shape[0] == 1:
            return self

        def pick(value: Any) -> Any:
            return value if isinstance(value, Tensor) and len(value) == 1 else value[slices]

        return self._changed(self._batched, pick)

    def _changed(self: Operator, names: Collection[str], change: Callable[[Any], Any]) -> Operator:
        """A copy with some tensors and operators changed, without what was computed from them."""
        other = object.__new__(type(self))
        for name, value in vars(self).items():
            if isinstance(getattr(type(self), name, None), cached_property):
                continue
            if name in names and isinstance(value, Tensor | LinearOperator):
                value = change(value)
            elif name in names and isinstance(value, tuple):
                value = tuple(
                    change(each) if isinstance(each, Tensor | LinearOperator) else each
                    for each in value
                )
            object.__setattr__(other, name, value)
        return other

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a changed operator would no longer fit what was computed with it."""
        raise AttributeError(f"{type(self).__name__} is immutable: make another operator instead")

    def __repr__(self) -> str:
        """The map's name and shapes."""
        return f"{type(self).__name__}({self.domain_shape} -> {self.range_shape})"


class ComposedOperator(LinearOperator):
    """``outer @ inner``: first ``inner``, then ``outer``.

    Raises:
        InputError: the range of ``inner`` is not the domain of ``outer``.
    """

    _batched = ("outer", "inner")

    outer: LinearOperator
    inner: LinearOperator

    def __init__(self, outer: LinearOperator, inner: LinearOperator) -> None:
        middle, expected = inner.range_shape, outer.domain_shape
        if middle[1:] != expected[1:] or not (1 in {middle[0], expected[0]} or middle == expected):
            raise InputError(
                f"cannot compose {outer!r} with {inner!r}: the first expects {expected}, "
                f"the second gives {middle}; build both for the same image shape"
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
        """Shape of ``A x``, batch first."""
        return (self._batch, *self.outer.range_shape[1:])

    @property
    def device(self) -> torch.device | None:
        """Where the operators' tensors live."""
        return self.outer.device or self.inner.device

    def forward(self, x: Tensor) -> Tensor:
        """``A B x``."""
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """``Bᴴ Aᴴ y``."""
        return self.inner.adjoint(self.outer.adjoint(y))

    def normal(self, x: Tensor) -> Tensor:
        """``Bᴴ (AᴴA) B x``, with the outer operator's own fast ``AᴴA``."""
        return self.inner.adjoint(self.outer.normal(self.inner.forward(x)))

    def squared_norm(self, x: Tensor) -> Tensor:
        """``‖A B x‖²`` of each sample, real, ``(batch,)``."""
        return self.outer.squared_norm(self.inner.forward(x))


def freeze(operator: LinearOperator, **attributes: object) -> None:
    """Set an operator's attributes, once, from its constructor."""
    for name, value in attributes.items():
        object.__setattr__(operator, name, value)


def check_shape(value: Tensor, shape: tuple[int, ...], what: str) -> None:
    """Refuse a tensor that is not of ``shape``; a batch of 1 in ``shape`` stands for any batch.

    Raises:
        InputError: naming ``what``, the shape expected and the shape that came.
    """
    fits = value.ndim == len(shape) and tuple(value.shape[1:]) == shape[1:]
    if not fits or shape[0] not in {1, value.shape[0]}:
        batch = "any batch" if shape[0] == 1 else str(shape[0])
        expected = ", ".join([batch, *map(str, shape[1:])])
        raise InputError(
            f"expected {what} of shape ({expected}), got {tuple(value.shape)}; "
            f"reshape it or build the operator for it"
        )


def adjoint_error(operator: LinearOperator, *, generator: torch.Generator | None = None) -> float:
    r"""Relative violation of ``⟨A x, y⟩ = ⟨x, Aᴴ y⟩`` for a random ``x`` and ``y = A x + n``.

    A ``y`` correlated with ``A x`` keeps the inner products away from zero, so that the error is
    relative to something: ``|⟨Ax, y⟩ − ⟨x, Aᴴy⟩| / max(|⟨Ax, y⟩|, |⟨x, Aᴴy⟩|)``.

    Args:
        operator: the operator to be tested.
        generator: source of the random tensors; seed 0 by default.

    Returns:
        The error; about 1e-6 for a right adjoint in complex64. Infinite if a shape is wrong.
    """
    generator = generator or torch.Generator().manual_seed(0)

    def draw(shape: tuple[int, ...]) -> Tensor:
        values = torch.randn(
            shape, dtype=torch.complex64, generator=generator, device=generator.device
        )
        return values.to(operator.device or generator.device)

    x = draw(operator.domain_shape)
    forward = operator.forward(x)
    if tuple(forward.shape) != operator.range_shape:
        return float("inf")
    noise = draw(operator.range_shape)
    y = forward + noise * (forward.norm() / noise.norm())
    backward = operator.adjoint(y)
    if tuple(backward.shape) != operator.domain_shape:
        return float("inf")
    left = torch.vdot(y.flatten().to(torch.complex128), forward.flatten().to(torch.complex128))
    right = torch.vdot(backward.flatten().to(torch.complex128), x.flatten().to(torch.complex128))
    size = max(left.abs().item(), right.abs().item())
    return (left - right).abs().item() / size if size > 0 else 0.0


def valid_adjoint(
    operator: LinearOperator,
    *,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-4,
) -> bool:
    """Whether ``operator.adjoint`` is the adjoint of ``operator.forward``.

    Args:
        operator: the operator to be tested, at its own shapes.
        generator: source of the random tensors; seed 0 by default.
        tolerance: largest relative error accepted, see :func:`adjoint_error`.
    """
    return adjoint_error(operator, generator=generator) <= tolerance
