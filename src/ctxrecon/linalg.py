"""Batched iterative linear algebra on Hermitian operators. Axis 0 is always the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError

_ROUNDING = 8.0
"""Units of a data type's precision that the residual of a recursion is uncertain by.

One to four are seen, relative to the right-hand side, after FFTs of 16² to 1024² pixels.
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

    Hestenes and Stiefel, J. Res. Natl. Bur. Stand. 49, 409 (1952). Inner products are Hermitian
    and taken per sample, so each sample has its own step sizes and a batch gives what its samples
    give one by one. Differentiable if ``normal`` is.

    A sample stays as it is from where its residual has reached ``tolerance · ‖rhs‖`` or what
    rounding leaves of one, or where the curvature ``⟨d, H d⟩/‖d‖²`` along the next direction is
    nothing but rounding beside the largest so far. So a singular ``H`` is solved in its range, for
    a ``rhs`` that lies there: what is left after convergence is noise in the null space, along
    which a step would have no bound.

    Args:
        normal: ``x ↦ H x``, linear, acting on each sample alone, shape-preserving: a function or an
            operator, such as ``A.gram + rho``.
        rhs: right-hand side ``(batch, …)``, real or complex.
        x0: starting point, same shape; zero if not given.
        num_iterations: iterations at most.
        tolerance: stop when ``‖rhs − H x‖ ≤ tolerance · ‖rhs‖`` holds for every sample. Looking
            costs one host synchronisation per iteration; without it there is none.
        quadratic: ``x ↦ ⟨x, H x⟩``, real, ``(batch,)``, where that is cheaper than ``H x``; it is
            all that the length of the last step depends on.

    Returns:
        ``x``, of the shape and data type of ``rhs``.

    Raises:
        InputError: a shape, iteration count or tolerance that makes no sense.
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
    # The recursion is free of scale, float32 is not: squares of values below 1e-19 are zero.
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
        # The starting point may lie far out in the null space, and H x0 has its rounding.
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
    """``x = (H + λ)⁻¹ rhs`` by conjugate gradients, differentiable in ``rhs``, ``λ`` and ``H``.

    Gradients are those of the solution, not of the iterations (implicit differentiation): with
    ``g`` the gradient by ``x`` and ``v = (H + λ)⁻¹ g``, they are those of
    ``Re⟨v, rhs − λ x − H x⟩`` at a fixed ``x``: ``v`` by ``rhs``, ``−Re⟨v, x⟩`` by ``λ``, and what
    ``normal`` makes of it by its own parameters, such as the weights of a learned mask. Nothing of
    the iterations is kept, so memory does not grow with them.

    Args:
        normal: ``x ↦ H x``, Hermitian, positive semi-definite, acting on each sample alone.
        rhs: ``(batch, …)``.
        damping: ``λ``, positive, one real number.
        num_iterations: of each of the two systems, at most.

    Returns:
        ``x``, of the shape and data type of ``rhs``.
    """

    def damped(x: Tensor) -> Tensor:
        return normal(x) + damping * x

    with torch.no_grad():
        x = _solve(damped, rhs, num_iterations)
    if not torch.is_grad_enabled():
        return x
    return _Implicit.apply(rhs - damped(x), x, damped, num_iterations)


class _Implicit(torch.autograd.Function):
    """``x``, whose gradient by the residual of its equation is ``v``; see :func:`damped_solve`."""

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
    # Autocast would take the inner products in half precision.
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
    """Largest eigenvalue of a Hermitian positive semi-definite operator, one per sample.

    Args:
        normal: ``x ↦ H x``, acting on each sample alone, shape-preserving.
        shape: ``(batch, …)`` of ``x``.
        num_iterations: iterations; the estimate grows towards the eigenvalue from below.
        dtype: data type of ``x``.
        device: where ``x`` lives.
        generator: source of the random start; seed 0 by default.

    Returns:
        ``(batch,)`` real.

    Raises:
        InputError: fewer than one iteration.
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
    """``‖x‖²`` of each sample, real, ``(batch,)``; much faster than ``torch.linalg``'s norms."""
    rows = _as_rows(x)
    return _dot(rows, rows)[:, 0]


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """``Re⟨a, b⟩`` of each sample, real, ``(batch,)``."""
    return _dot(_as_rows(a), _as_rows(b))[:, 0]


def per_sample(value: float | complex | Tensor, like: Tensor) -> float | complex | Tensor:
    """Return a factor for each sample in a shape that ``like`` ``(batch, …)`` is multiplied by.

    Args:
        value: a number or a tensor ``()``, returned as it is, or a tensor ``(batch or 1,)``.
        like: what is to be multiplied.

    Returns:
        The factor, of a tensor ``(batch or 1, 1, …)``.
    """
    if isinstance(value, Tensor) and value.ndim > 0:
        return value.reshape(-1, *[1] * (like.ndim - 1))
    return value


def _as_rows(x: Tensor) -> Tensor:
    """One real row per sample. For a Hermitian form only ``Re⟨a, b⟩`` matters: a real product."""
    real = torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
    return real.reshape(len(x), -1)


def _from_rows(rows: Tensor, like: Tensor) -> Tensor:
    if like.is_complex():
        return torch.view_as_complex(rows.reshape(*like.shape, 2))
    return rows.reshape(like.shape)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of rows, ``(batch, 1)``."""
    return torch.bmm(a[:, None, :], b[:, :, None])[:, 0]


def _ratio(numerator: Tensor, denominator: Tensor, active: Tensor) -> Tensor:
    """``numerator / denominator`` where that means something, else 0: the sample stands still."""
    usable = active & (denominator > 0)
    one = torch.ones_like(denominator)
    zero = torch.zeros_like(denominator)
    return torch.where(usable, numerator / torch.where(usable, denominator, one), zero)
