"""What an operator is multiplied by: a number, or one for each sample."""

from __future__ import annotations

from numbers import Number
from typing import TypeAlias

from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.linalg import per_sample
from ctxrecon.operators.base import LinearMap

Factor: TypeAlias = "complex | Tensor"
"""A number, or a tensor ``()`` or ``(batch,)`` of them."""


def is_factor(value: object) -> bool:
    """Whether an operator can be multiplied by it: a number or a tensor."""
    return isinstance(value, Tensor | Number) and not isinstance(value, bool)


def check_factor(factor: Tensor, operator: LinearMap) -> None:
    """Refuse a tensor that is neither one factor nor one for each sample of an operator."""
    batch, count = operator.domain_shape[0], factor.numel()
    if factor.ndim > 1 or count < 1 or (count != batch and 1 not in {count, batch}):
        expected = "any batch" if batch == 1 else str(batch)
        raise InputError(
            f"expected one factor, or one for each sample as a tensor ({expected},), to multiply "
            f"{operator!r} by, got shape {tuple(factor.shape)}"
        )
    if factor.ndim == 1 and operator.device not in {None, factor.device}:
        raise InputError(
            f"the factors are on {factor.device} and the operator on {operator.device}: "
            "move them to one device"
        )


def scaled(factor: Factor, value: Tensor) -> Tensor:
    """``c x`` of each sample."""
    return per_sample(factor, value) * value


def conjugate(factor: Factor) -> Factor:
    """``c̄``."""
    return factor.conj() if isinstance(factor, Tensor) else factor.conjugate()


def power(factor: Factor) -> float | Tensor:
    """``|c|²``."""
    return factor.abs().square() if isinstance(factor, Tensor) else abs(factor) ** 2
