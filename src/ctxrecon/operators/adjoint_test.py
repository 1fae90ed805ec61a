"""The test of an adjoint by inner products of random tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.operators.algebra import LinearOperator


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
