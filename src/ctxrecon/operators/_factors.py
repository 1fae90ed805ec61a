"""Factors by which operators are multiplied: a number, or one number per sample."""

from __future__ import annotations

from numbers import Number
from typing import TypeAlias

from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.linalg import per_sample
from ctxrecon.operators.base import LinearMap

Factor: TypeAlias = "complex | Tensor"
"""A number, or a tensor ``()`` or ``(batch,)``."""


def is_factor(value: object) -> bool:
    """Return whether an operator can be multiplied by a value: a number or a tensor."""
    return isinstance(value, Tensor | Number) and not isinstance(value, bool)


def check_factor(factor: Tensor, operator: LinearMap) -> None:
    """Validate that a tensor holds one factor, or one per sample of an operator."""
    batch, count = operator.domain_shape[0], factor.numel()
    if factor.ndim > 1 or count < 1 or (count != batch and 1 not in {count, batch}):
        expected = "any batch" if batch == 1 else str(batch)
        raise InputError(
            f"expected one factor, or a tensor ({expected},) with one per sample, to multiply "
            f"{operator!r} by, got shape {tuple(factor.shape)}"
        )
    if factor.ndim == 1 and operator.device not in {None, factor.device}:
        raise InputError(
            f"the factors are on {factor.device} and the operator on {operator.device}: "
            "move them to one device"
        )


def scaled(factor: Factor, value: Tensor) -> Tensor:
    """Return ``c x`` for each sample."""
    return per_sample(factor, value) * value


def conjugate(factor: Factor) -> Factor:
    """Return the complex conjugate ``c̄``."""
    return factor.conj() if isinstance(factor, Tensor) else factor.conjugate()


def power(factor: Factor) -> float | Tensor:
    """Return ``|c|²``."""
    return factor.abs().square() if isinstance(factor, Tensor) else abs(factor) ** 2
