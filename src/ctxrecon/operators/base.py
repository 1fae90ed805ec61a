"""Abstract linear map: the interface of measurement operators without their algebra."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.linalg import inner_product

if TYPE_CHECKING:
    from ctxrecon.operators.algebra import LinearOperator

Operator = TypeVar("Operator", bound="LinearMap")


class LinearMap(ABC):
    """Interface of :class:`~ctxrecon.operators.LinearOperator`, which adds the algebra.

    Attributes:
        mask: Sampling mask; ``None`` for operators without a grid.
        coil_maps: Coil maps; ``None`` for operators without them.
    """

    mask: Tensor | None = None
    coil_maps: Tensor | None = None

    _batched: ClassVar[tuple[str, ...]] = ()
    """Names of attributes with a batch axis: tensors of batch 1 or more, and operators."""

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
        """Device of the operator's tensors; ``None`` if it has none."""
        return None

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Apply ``A``, from :attr:`domain_shape` to :attr:`range_shape`."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``Aᴴ``, from :attr:`range_shape` to :attr:`domain_shape`."""

    def normal(self, x: Tensor) -> Tensor:
        """Apply ``AᴴA``; operators may override it with a faster implementation."""
        return self.adjoint(self.forward(x))

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``‖A x‖²`` of each sample, real, ``(batch,)``."""
        return self.forward(x).abs().square().flatten(1).sum(dim=1)

    def quadratic(self, x: Tensor) -> Tensor:
        """Return ``Re⟨x, A x⟩`` of each sample, ``(batch,)``, for an operator on one space.

        Raises:
            InputError: If range and domain differ.
        """
        if self.range_shape != self.domain_shape:
            raise InputError(
                f"expected an operator whose range is its domain for ⟨x, A x⟩, got {self!r}: "
                "use its gram"
            )
        return inner_product(x, self.forward(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Apply ``A``."""
        return self.forward(x)

    def to(self: Operator, device: torch.device | str) -> Operator:
        """Return the operator on another device, or itself if it is there already."""
        if self.device is None or self.device == torch.device(device):
            return self
        return self._changed(vars(self), lambda value: value.to(device))

    def __getitem__(self, slices: Tensor) -> LinearOperator:
        """Return the operator of selected slices of the batch, repeated as in ``slices``.

        An operator of batch 1 applies to every slice and is returned unchanged.

        Args:
            slices: Indices of shape ``(number,)``.
        """
        if self.domain_shape[0] == 1:
            return cast("LinearOperator", self)

        def pick(value: Any) -> Any:
            shared = isinstance(value, Tensor) and (value.ndim == 0 or len(value) == 1)
            return value if shared else value[slices]

        return cast("LinearOperator", self._changed(self._batched, pick))

    def _changed(self: Operator, names: Collection[str], change: Callable[[Any], Any]) -> Operator:
        """Return a copy with some tensors and operators changed, without cached properties."""
        other = object.__new__(type(self))
        for name, value in vars(self).items():
            if isinstance(getattr(type(self), name, None), cached_property):
                continue
            if name in names and isinstance(value, Tensor | LinearMap):
                value = change(value)
            elif name in names and isinstance(value, tuple):
                value = tuple(
                    change(each) if isinstance(each, Tensor | LinearMap) else each for each in value
                )
            object.__setattr__(other, name, value)
        return other

    def __setattr__(self, name: str, value: object) -> None:
        """Raise an error: changes would invalidate cached results."""
        raise AttributeError(f"{type(self).__name__} is immutable: build another operator instead")

    def __repr__(self) -> str:
        """Return the class name and the shapes."""
        return f"{type(self).__name__}({self.domain_shape} -> {self.range_shape})"


def freeze(operator: LinearMap, /, **attributes: object) -> None:
    """Set the attributes of an immutable operator from its constructor."""
    for name, value in attributes.items():
        object.__setattr__(operator, name, value)


def check_shape(value: Tensor, shape: tuple[int, ...], what: str) -> None:
    """Validate a tensor's shape; a batch of 1 in ``shape`` matches any batch.

    Raises:
        InputError: If the shapes differ, with ``what`` as the name of the tensor.
    """
    fits = value.ndim == len(shape) and tuple(value.shape[1:]) == shape[1:]
    if not fits or shape[0] not in {1, value.shape[0]}:
        batch = "any batch" if shape[0] == 1 else str(shape[0])
        expected = ", ".join([batch, *map(str, shape[1:])])
        raise InputError(
            f"expected {what} of shape ({expected}), got {tuple(value.shape)}; "
            f"reshape it or build the operator for this shape"
        )
