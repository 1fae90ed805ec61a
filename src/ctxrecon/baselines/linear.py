"""Linear baselines: zero-filled, CG-SENSE, and CG-SENSE with a smooth phase."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctxrecon.baselines._options import check_options
from ctxrecon.checks import check_number
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import LinearOperator, image_shape

_NO_PHASE = 0.01  # of the largest magnitude of a smooth image
_TINY = 1e-30


def zero_filled(operator: LinearOperator, y: Tensor) -> Tensor:
    r"""Reconstruct with zeros in place of the missing samples.

    .. math::
        x = \frac{A^H y}{\sum_c |S_c|^2}

    Args:
        operator: Measurement operator ``A`` on images ``(batch or 1, [sets ·] ny, nx)``.
        y: Measurement of the operator's ``range_shape``, complex64.

    Returns:
        Images of shape ``(batch, [sets ·] ny, nx)``, complex64, zero where every coil map is zero.

    Raises:
        InputError: If shapes or dtypes do not match.

    Example:
        >>> import torch
        >>> from ctxrecon.baselines import zero_filled
        >>> from ctxrecon.operators import CartesianSense
        >>> operator = CartesianSense(torch.ones(1, 1, 8, 8, dtype=torch.bool), None)
        >>> image = torch.eye(8, dtype=torch.complex64)[None]
        >>> torch.allclose(zero_filled(operator, operator(image)), image, atol=1e-6)
        True
    """
    image = operator.adjoint(y)
    maps = operator.coil_maps
    if maps is None:
        return image
    energy = maps.abs().square().sum(dim=-3)
    if energy.ndim == 4:
        energy = energy.flatten(1, 2)
    return torch.where(energy > 0, image / energy.clamp_min(torch.finfo(energy.dtype).tiny), 0)


def cg_sense(
    operator: LinearOperator,
    y: Tensor,
    *,
    num_iterations: int = 30,
    regularization: float = 1e-2,
) -> Tensor:
    r"""Reconstruct by iterative SENSE with conjugate gradients.

    .. math::
        \min_x \; \|A x - y\|_2^2 + \lambda \|x\|_2^2

    Pruessmann et al., Magn. Reson. Med. 46, 638 (2001).

    Args:
        operator: Measurement operator ``A`` on images ``(batch or 1, [sets ·] ny, nx)``.
        y: Measurement of the operator's ``range_shape``, complex64.
        num_iterations: Number of conjugate-gradient iterations.
        regularization: Weight ``λ``, for coil maps with ``Σ_c |S_c|² = 1``.

    Returns:
        Images of shape ``(batch, [sets ·] ny, nx)``, complex64.

    Raises:
        InputError: If shapes do not match, ``num_iterations`` is below one, or the weight is
            negative.

    Example:
        >>> import torch
        >>> from ctxrecon.baselines import cg_sense
        >>> from ctxrecon.operators import CartesianSense
        >>> operator = CartesianSense(torch.ones(1, 1, 8, 8, dtype=torch.bool), None)
        >>> image = torch.eye(8, dtype=torch.complex64)[None]
        >>> shrunk = cg_sense(operator, operator(image), regularization=1.0)
        >>> torch.allclose(shrunk, image / 2, atol=1e-6)
        True
    """
    check_options(num_iterations, regularization)
    A = operator
    return conjugate_gradient(A.gram + regularization, A.H(y), num_iterations=num_iterations)


def phase_constrained(
    operator: LinearOperator,
    y: Tensor,
    *,
    num_iterations: int = 40,
    regularization: float = 1e-2,
    phase_weight: float = 0.3,
) -> Tensor:
    r"""Reconstruct partial Fourier scans by CG-SENSE with the phase of the center of k-space.

    .. math::
        \min_x \; \|A x - y\|_2^2 + \lambda \|x\|_2^2
        + \mu \|\operatorname{Im}(e^{-i\varphi} x)\|_2^2

    by conjugate gradients, linear over the real numbers (Bydder and Robson, Magn. Reson. Med. 53,
    1393 (2005)). φ is the phase of a CG-SENSE image, low-pass filtered by a Hann window over the
    part of k-space that was measured on both sides of its center. For μ → ∞ this is SENSE with
    virtual conjugate coils (Blaimer et al., Magn. Reson. Med. 61, 93 (2009)).

    ``python -m benchmarks.partial_fourier`` measures the gain over :func:`cg_sense`. Detail is lost
    where the phase is not smooth.

    Args:
        operator: Measurement operator ``A`` on images ``(batch or 1, [sets ·] ny, nx)``.
        y: Measurement of the operator's ``range_shape``, complex64.
        num_iterations: Number of conjugate-gradient iterations.
        regularization: Weight ``λ``, for coil maps with ``Σ_c |S_c|² = 1``.
        phase_weight: Weight ``μ``, for the same coil maps.

    Returns:
        Images of shape ``(batch, [sets ·] ny, nx)``, complex64.

    Raises:
        InputError: If shapes do not match, ``num_iterations`` is below one, or a weight is
            negative.

    Example:
        >>> import torch
        >>> from ctxrecon.baselines import cg_sense, phase_constrained
        >>> from ctxrecon.operators import CartesianSense
        >>> mask = (torch.arange(16) >= 6).expand(1, 1, 16, 16)
        >>> operator = CartesianSense(mask, None)
        >>> image = torch.zeros(1, 16, 16, dtype=torch.complex64)
        >>> image[:, 4:12, 5:9] = 1
        >>> y = operator(image)
        >>> error = (phase_constrained(operator, y) - image).norm()
        >>> bool(error < 0.5 * (cg_sense(operator, y) - image).norm())
        True
    """
    check_options(num_iterations, regularization)
    check_number("phase_weight", phase_weight, least=0)
    A = operator
    shape = image_shape(A)
    first = cg_sense(A, y, regularization=regularization).unflatten(1, (-1, shape[0]))
    smooth = ifft2c(fft2c(first) * _symmetric_window(A.mask, shape).to(first.device))
    floor = _NO_PHASE * smooth.abs().flatten(1).amax(dim=1)[:, None, None, None]
    # Without signal the phase is noise: the constraint fades out there.
    rotation = (smooth.square() / (smooth.abs() + floor + _TINY).square()).flatten(1, 2)

    def normal(x: Tensor) -> Tensor:
        imaginary = 0.5 * (x - rotation * x.conj())  # i e^{iφ} Im(e^{-iφ} x)
        return A.normal(x) + regularization * x + phase_weight * imaginary

    return conjugate_gradient(normal, A.H(y), num_iterations=num_iterations)


def _symmetric_window(mask: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """Return Hann windows over the part of k-space measured on both sides of the center.

    Args:
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``; ``None`` for all of k-space.
        shape: Image size ``(ny, nx)``.

    Returns:
        Windows of shape ``(batch or 1, 1, ny, nx)`` on the CPU.
    """
    sampled = torch.ones(1, *shape, dtype=torch.bool) if mask is None else mask[:, 0].cpu()
    sides = []
    for axis, size in enumerate(shape):
        there = sampled.any(dim=2 - axis)
        offset = torch.arange(size) - size // 2
        before, after = (
            (there * part).amax(dim=1)
            for part in ((-offset).clamp_min(0), (offset + 1).clamp_min(0))
        )
        half = torch.minimum(before, after).clamp_min(1)[:, None]
        sides.append(torch.cos(math.pi * offset / (2 * half)).square() * (offset.abs() < half))
    return (sides[0][:, :, None] * sides[1][:, None])[:, None]
