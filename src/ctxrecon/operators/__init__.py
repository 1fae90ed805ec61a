"""Linear measurement models: forward, adjoint, normal."""

from __future__ import annotations

from ctxrecon.operators.base import (
    ComposedOperator,
    LinearOperator,
    adjoint_error,
    valid_adjoint,
)
from ctxrecon.operators.cartesian import CartesianSense
from ctxrecon.operators.crop import Crop

__all__ = [
    "CartesianSense",
    "ComposedOperator",
    "Crop",
    "LinearOperator",
    "adjoint_error",
    "valid_adjoint",
]
