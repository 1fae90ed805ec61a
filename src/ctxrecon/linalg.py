"""Batched iterative linear algebra for Hermitian operators; axis 0 is the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError

_ROUNDING = 8.0
"""Uncertainty of the recursive residual in units of the data type's precision.

After FFTs of 16² to 1024² pixels it is one to four, relative to the right-hand side.
"""


def conjugate_gradient(
    normal: Callable[[Tensor], Tensor],
    rhs: Tensor,
    *,
    x0: Tensor | None = None,
    num_iterations: int,
    tolerance: float | None = None,
    quadratic: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Solve ``H x = rhs`` for a Hermitian positive (semi-)definite ``H``, one system per sample.

    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49, 409 (1952). Inner products are Hermitian and
    computed per sample, so that each sample has its own step sizes and the results do not depend
    on the batch. Differentiable if ``normal`` is.

    A sample stops changing when its residual reaches ``tolerance · ‖rhs‖`` or the rounding error,
    or when the curvature ``⟨d, H d⟩/‖d‖²`` along the next direction is only rounding error compared
    with the largest so far. A singular ``H`` is thus solved in its range, for a ``rhs`` in the
    range: after convergence only noise in the null space remains, along which steps would be
    unbounded.

    Example:
        >>> import torch
        >>> from ctxrecon.linalg import conjugate_gradient
        >>> diagonal = torch.tensor([[1.0, 2.0, 4.0]])
        >>> conjugate_gradient(lambda x: diagonal * x, torch.ones(1, 3), num_iterations=3)
        tensor([[1.0000, 0.5000, 0.2500]])

    Args:
        normal: Map ``x ↦ H x``, a function or operator such as ``A.gram + rho``: linear, separate
            for each sample, and preserving the shape.
        rhs: Right-hand side of shape ``(batch, …)``, real or complex.
        x0: Starting point of the same shape; defaults to zero.
        num_iterations: Maximum number of iterations.
        tolerance: Stop when ``‖rhs − H x‖ ≤ tolerance · ‖rhs‖`` for every sample. The check costs
            one host synchronization per iteration; ``None`` disables it.
        quadratic: Map ``x ↦ ⟨x, H x⟩``, real ``(batch,)``, if it is cheaper than ``H x``; it
            determines the length of the last step.

    Returns:
        Solution ``x`` with the shape and data type of ``rhs``.

    Raises:
        InputError: If a shape, the iteration count or the tolerance is not valid.
    """
    if num_iterations < 0:
        raise InputError(f"expected num_iterations of 0 or more, got {num_iterations}")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise InputError(f"expected a relative tolerance in [0, 1), got {tolerance}")
    if rhs.ndim < 2 or not (rhs.is_complex() or rhs.is_floating_point()):
        raise InputError(
            "expected a real or complex right-hand side (batch, ...), got "
            f"{rhs.dtype} of shape {tuple(rhs.shape)}"
        )
    if x0 is not None and (x0.shape != rhs.shape or x0.dtype != rhs.dtype):
        raise InputError(
            f"expected x0 like the right-hand side, {rhs.dtype} {tuple(rhs.shape)}, "
            f"got {x0.dtype} {tuple(x0.shape)}"
        )
    # Scaled to the unit range, since squares of values below 1e-19 underflow in float32.
    scale = _as_rows(rhs).abs().amax(dim=1, keepdim=True)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))

    def apply(rows: Tensor) -> Tensor:
        image = _from_rows(rows, rhs)
        result = normal(image)
        if result.shape != image.shape or result.dtype != image.dtype:
            raise InputError(
                f"normal must keep shape and dtype: {image.dtype} {tuple(image.shape)} "
                f"became {result.dtype} {tuple(result.shape)}"
            )
        return _as_rows(result)

    target = _as_rows(rhs) / scale
    if x0 is None:
        x, residual = torch.zeros_like(target), target
    else:
        x = _as_rows(x0) / scale
        residual = target - apply(x)
    rounding = _ROUNDING * torch.finfo(target.dtype).eps
    threshold = _dot(target, target) * max(tolerance or 0.0, rounding) ** 2
    direction, energy = residual, _dot(residual, residual)
    start = torch.zeros_like(energy) if x0 is None else _dot(x, x)
    active = torch.ones_like(energy, dtype=torch.bool)
    steepest = torch.zeros_like(energy)
    for iteration in range(num_iterations):
        active = active & (energy > threshold)
        if tolerance is not None and not bool(active.any()):
            break
        last = iteration + 1 == num_iterations
        if last and quadratic is not None:
            curvature = quadratic(_from_rows(direction, rhs))[:, None]
        else:
            image = apply(direction)
            curvature = _dot(direction, image)
        relative = _ratio(curvature, _dot(direction, direction), active)
        steepest = torch.maximum(steepest, relative)
        # The starting point may have a large null-space part, with rounding errors in H x0.
        unsure = (rounding * steepest) ** 2 * start
        active = active & (relative > rounding * steepest) & (energy > unsure)
        step = _ratio(energy, curvature, active)
        x = torch.addcmul(x, step, direction)
        if not last:
            residual = torch.addcmul(residual, step, image, value=-1)
            previous, energy = energy, _dot(residual, residual)
            direction = torch.addcmul(residual, _ratio(energy, previous, active), direction)
    return _from_rows(x * scale, rhs)


def damped_solve(
    normal: Callable[[Tensor], Tensor], rhs: Tensor, damping: Tensor, num_iterations: int
) -> Tensor:
    """Solve ``(H + λ) x = rhs`` by conjugate gradient, differentiable in ``rhs``, ``λ`` and ``H``.

    Gradients are those of the solution, not of the iterations (implicit differentiation): with
    ``g`` the gradient with respect to ``x`` and ``v = (H + λ)⁻¹ g``, they are those of
    ``Re⟨v, rhs − λ x − H x⟩`` at fixed ``x``: ``v`` for ``rhs``, ``−Re⟨v, x⟩`` for ``λ``, and the
    corresponding gradient of the parameters of ``normal``, such as the weights of a learned mask.
    Iterations are not stored, so memory does not grow with their number.

    Example:
        >>> import torch
        >>> from ctxrecon.linalg import damped_solve
        >>> damping = torch.tensor(1.0)
        >>> damped_solve(lambda x: 3 * x, torch.ones(1, 2), damping, num_iterations=2)
        tensor([[0.2500, 0.2500]])

    Args:
        normal: Map ``x ↦ H x``, Hermitian, positive semi-definite, separate for each sample.
        rhs: Right-hand side of shape ``(batch, …)``.
        damping: Damping ``λ``, one positive real number.
        num_iterations: Maximum number of iterations for each of the two systems.

    Returns:
        Solution ``x`` with the shape and data type of ``rhs``.
    """

    def damped(x: Tensor) -> Tensor:
        return normal(x) + damping * x

    with torch.no_grad():
        x = _solve(damped, rhs, num_iterations)
    if not torch.is_grad_enabled():
        return x
    return _Implicit.apply(rhs - damped(x), x, damped, num_iterations)


class _Implicit(torch.autograd.Function):
    """Return ``x``, with ``v`` as the gradient of its residual; see :func:`damped_solve`."""

    @staticmethod
    def forward(
        ctx: Any,
        residual: Tensor,
        x: Tensor,
        damped: Callable[[Tensor], Tensor],
        num_iterations: int,
    ) -> Tensor:
        ctx.damped, ctx.num_iterations = damped, num_iterations
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _solve(ctx.damped, gradient.contiguous(), ctx.num_iterations), None, None, None


def _solve(damped: Callable[[Tensor], Tensor], rhs: Tensor, num_iterations: int) -> Tensor:
    # Autocast would compute the inner products in half precision.
    with torch.autocast(rhs.device.type, enabled=False):
        return conjugate_gradient(damped, rhs, num_iterations=num_iterations)


def power_iteration(
    normal: Callable[[Tensor], Tensor],
    shape: Sequence[int],
    *,
    num_iterations: int = 30,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Estimate the largest eigenvalue of a Hermitian positive semi-definite operator per sample.

    Example:
        >>> from ctxrecon.linalg import power_iteration
        >>> power_iteration(lambda x: 2 * x, (1, 4)).round()
        tensor([2.])

    Args:
        normal: Map ``x ↦ H x``, separate for each sample and preserving the shape.
        shape: Shape ``(batch, …)`` of ``x``.
        num_iterations: Number of iterations; the estimate approaches the eigenvalue from below.
        dtype: Data type of ``x``.
        device: Device of ``x``.
        generator: Random generator of the starting point (default: seed 0).

    Returns:
        Eigenvalues of shape ``(batch,)``, real.

    Raises:
        InputError: If ``num_iterations`` is below 1.
    """
    if num_iterations < 1:
        raise InputError(f"expected at least one power iteration, got {num_iterations}")
    generator = generator or torch.Generator().manual_seed(0)
    x = torch.randn(tuple(shape), dtype=dtype, generator=generator, device=generator.device)
    x = x.to(device or generator.device)
    for _ in range(num_iterations):
        rows = _as_rows(x)
        norm = _dot(rows, rows).sqrt()
        x = _from_rows(rows / torch.where(norm > 0, norm, torch.ones_like(norm)), x)
        image = normal(x)
        eigenvalue = _dot(_as_rows(x), _as_rows(image))
        x = image
    return eigenvalue[:, 0]


def squared_norm(x: Tensor) -> Tensor:
    """Return ``‖x‖²`` of each sample, real ``(batch,)``; much faster than ``torch.linalg``."""
    rows = _as_rows(x)
    return _dot(rows, rows)[:, 0]


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``Re⟨a, b⟩`` of each sample, real ``(batch,)``."""
    return _dot(_as_rows(a), _as_rows(b))[:, 0]


def per_sample(value: float | complex | Tensor, like: Tensor) -> float | complex | Tensor:
    """Reshape a factor per sample so that it multiplies ``like`` of shape ``(batch, …)``.

    Args:
        value: Number or tensor ``()``, returned unchanged, or a tensor ``(batch or 1,)``.
        like: Tensor to be multiplied.

    Returns:
        The factor; a tensor has the shape ``(batch or 1, 1, …)``.
    """
    if isinstance(value, Tensor) and value.ndim > 0:
        return value.reshape(-1, *[1] * (like.ndim - 1))
    return value


def _as_rows(x: Tensor) -> Tensor:
    """Return one real row per sample; Hermitian forms only need the real product ``Re⟨a, b⟩``."""
    real = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return real.reshape(len(x), -1)


def _from_rows(rows: Tensor, like: Tensor) -> Tensor:
    if like.is_complex():
        return torch.view_as_complex(rows.reshape(*like.shape, 2))
    return rows.reshape(like.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return inner products of rows, ``(batch, 1)``."""
    return torch.bmm(a[:, None, :], b[:, :, None])[:, 0]


def _ratio(numerator: Tensor, denominator: Tensor, active: Tensor) -> Tensor:
    """Return ``numerator / denominator`` if defined, else 0, which leaves the sample as it is."""
    usable = active & (denominator > 0)
    one = torch.ones_like(denominator)
    zero = torch.zeros_like(denominator)
    return torch.where(usable, numerator / torch.where(usable, denominator, one), zero)
