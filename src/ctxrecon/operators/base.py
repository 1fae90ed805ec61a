"""A linear map by itself: what each measurement model has to say, before any algebra."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.linalg import inner_product


class LinearMap(ABC):
    """What a :class:`~ctxrecon.operators.LinearOperator` computes; its algebra is added there."""

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

    def quadratic(self, x: Tensor) -> Tensor:
        """``Re⟨x, A x⟩`` of each sample, ``(batch,)``, for an operator whose range is its domain.

        Raises:
            InputError: the range is not the domain.
        """
        if self.range_shape != self.domain_shape:
            raise InputError(
                f"expected an operator whose range is its domain for ⟨x, A x⟩, got {self!r}: "
                "take its gram"
            )
        return inner_product(x, self.forward(x))

    def __call__(self, x: Tensor) -> Tensor:
        """``A x``."""
        return self.forward(x)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a changed operator would no longer fit what was computed with it."""
        raise AttributeError(f"{type(self).__name__} is immutable: make another operator instead")

    def __repr__(self) -> str:
        """The map's name and shapes."""
        return f"{type(self).__name__}({self.domain_shape} -> {self.range_shape})"


def freeze(operator: LinearMap, /, **attributes: object) -> None:
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
