"""Singular normal operators of every kind: the scale is right, and nothing blows up."""

from __future__ import annotations

import math

import pytest
import torch
from random_operators import Case, conjugate_gradient64, normal64, random_case

from ctxrecon.linalg import conjugate_gradient

CASES = 600


def quantile(image: torch.Tensor) -> float:
    """99 % quantile of the magnitude; the largest one where that is zero."""
    magnitude = image.abs().flatten()
    rank = math.ceil(0.99 * len(magnitude))
    return float(magnitude.kthvalue(rank).values) or float(magnitude.max())


def reference_scale(case: Case) -> float:
    normal, adjoint = normal64(case.operator)
    rhs = adjoint(case.y.to(torch.complex128))
    return quantile(conjugate_gradient64(normal, rhs, 8))


@pytest.mark.parametrize("first", range(0, CASES, 100))
def test_eight_iterations_have_the_scale_of_float64(first):
    wrong = []
    for seed in range(first, first + 100):
        case = random_case(seed)
        operator = case.operator
        image = conjugate_gradient(operator.normal, operator.adjoint(case.y), num_iterations=8)
        if not abs(quantile(image) / reference_scale(case) - 1) < 0.01:
            wrong.append(case.name)
    assert wrong == []
