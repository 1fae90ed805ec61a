"""Adjoint (dot-product) test of operators with random tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.operators.algebra import LinearOperator


def adjoint_error(operator: LinearOperator, *, generator: torch.Generator | None = None) -> float:
    r"""Compute the relative violation of ``⟨A x, y⟩ = ⟨x, Aᴴ y⟩`` for random x and y.

    .. math::

        \frac{|\langle A x, y \rangle - \langle x, A^H y \rangle|}
             {\max(|\langle A x, y \rangle|, |\langle x, A^H y \rangle|)}

    The random ``y = A x + n`` is correlated with ``A x``, which keeps the inner products away from
    zero.

    Example:
        >>> from ctxrecon.operators import Crop, adjoint_error
        >>> adjoint_error(Crop((1, 8, 8), (4, 4))) < 1e-5
        True

    Args:
        operator: Operator to test.
        generator: Random generator (default: seed 0).

    Returns:
        The error, about 1e-6 for a correct adjoint in complex64; infinite if a shape is wrong.
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
    """Return whether ``operator.adjoint`` is the adjoint of ``operator.forward``.

    Example:
        >>> from ctxrecon.operators import Crop, valid_adjoint
        >>> valid_adjoint(Crop((1, 8, 8), (4, 4)))
        True

    Args:
        operator: Operator to test, at its own shapes.
        generator: Random generator (default: seed 0).
        tolerance: Largest accepted relative error; see :func:`adjoint_error`.
    """
    return adjoint_error(operator, generator=generator) <= tolerance
