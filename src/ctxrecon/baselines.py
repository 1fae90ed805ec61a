"""Reconstructions without a learned prior: zero-filled, CG-SENSE, L1-wavelet, total variation.

All minimise over ``x`` for the measurement ``y = A x + n`` of any linear operator. Each slice is
scaled so that the 99 % quantile of its zero-filled magnitude is 1, and scaled back at the end, so
that a regularization weight means the same whatever the units of the scan.

With two sets of coil maps the unknown is the image of
:class:`~ctxrecon.operators.SoftSense`, ``(batch, sets · ny, nx)``: its ``combine`` makes one image
of the sets. Penalties take each set by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.checks import check_number, is_whole
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.intensity import intensity_scale
from ctxrecon.linalg import conjugate_gradient, power_iteration
from ctxrecon.operators import CartesianSense, LinearOperator, SoftSense, image_shape
from ctxrecon.registry import Registry

_POWER_MARGIN = 1.05  # power iteration approaches the norm from below
# ‖G‖² of the two-dimensional finite differences.
_GRADIENT_NORM = 8.0
_DUAL_STEP = 0.02
_WAVELET = "db2"
_MAX_SHIFT = 16
_NO_PHASE = 0.01  # of the largest magnitude of a smooth image
_TINY = 1e-30


def zero_filled(operator: LinearOperator, y: Tensor) -> Tensor:
    """``Aᴴ y / Σ_c |S_c|²``: what is missing taken as zero.

    Args:
        operator: ``A``, from images ``(batch or 1, [sets ·] ny, nx)``.
        y: complex64, of the operator's ``range_shape``.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64; zero where no coil sees anything.

    Raises:
        InputError: for shapes or dtypes that do not fit.
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
    """Iterative SENSE: ``min ‖A x - y‖² + λ ‖x‖²`` by conjugate gradients.

    Pruessmann et al., Magn. Reson. Med. 46, 638 (2001).

    Args:
        operator: ``A``, from images ``(batch or 1, [sets ·] ny, nx)``.
        y: complex64, of the operator's ``range_shape``.
        num_iterations: conjugate-gradient iterations.
        regularization: ``λ``, against coil maps with ``Σ_c |S_c|² = 1``.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64.

    Raises:
        InputError: for shapes that do not fit, fewer than one iteration or a negative weight.
    """
    _check_options(num_iterations, regularization)
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
    """CG-SENSE for partial Fourier scans: the phase is that of the center of k-space.

    ``min ‖A x - y‖² + λ ‖x‖² + μ ‖Im(e^{-iφ} x)‖²`` by conjugate gradients, linear over the real
    numbers (Bydder and Robson, Magn. Reson. Med. 53, 1393 (2005)). φ is the phase of a CG-SENSE
    image of the part of k-space that was measured on both sides of its center, with a Hann window.
    For μ → ∞ it is SENSE with virtual conjugate coils (Blaimer et al., Magn. Reson. Med. 61, 93
    (2009)): both halves of k-space say the same of a real image.

    ``python -m benchmarks.partial_fourier`` measures what it gains over :func:`cg_sense`. Where the
    phase is not smooth detail is lost.

    Args:
        operator: ``A``, from images ``(batch or 1, [sets ·] ny, nx)``.
        y: complex64, of the operator's ``range_shape``.
        num_iterations: conjugate-gradient iterations.
        regularization: ``λ``, against coil maps with ``Σ_c |S_c|² = 1``.
        phase_weight: ``μ``, likewise.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64.

    Raises:
        InputError: for shapes that do not fit, fewer than one iteration or a negative weight.
    """
    _check_options(num_iterations, regularization)
    check_number("phase_weight", phase_weight, least=0)
    A = operator
    shape = image_shape(A)
    first = cg_sense(A, y, regularization=regularization).unflatten(1, (-1, shape[0]))
    smooth = ifft2c(fft2c(first) * _symmetric_window(A.mask, shape).to(first.device))
    floor = _NO_PHASE * smooth.abs().flatten(1).amax(dim=1)[:, None, None, None]
    # Where there is no signal there is no phase to keep to.
    rotation = (smooth.square() / (smooth.abs() + floor + _TINY).square()).flatten(1, 2)

    def normal(x: Tensor) -> Tensor:
        imaginary = 0.5 * (x - rotation * x.conj())  # i e^{iφ} Im(e^{-iφ} x)
        return A.normal(x) + regularization * x + phase_weight * imaginary

    return conjugate_gradient(normal, A.H(y), num_iterations=num_iterations)


def _symmetric_window(mask: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """Hann windows over what was measured on both sides of the center, ``(batch or 1, 1, ny, nx)``.

    Over all of k-space where there is no mask.
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


def l1_wavelet(
    operator: LinearOperator,
    y: Tensor,
    *,
    num_iterations: int = 100,
    regularization: float = 2e-3,
) -> Tensor:
    """Compressed sensing: ``min ½ ‖A x - y‖² + λ ‖W x‖₁`` by FISTA.

    Lustig, Donoho and Pauly, Magn. Reson. Med. 58, 1182 (2007); FISTA: Beck and Teboulle, SIAM J.
    Imaging Sci. 2, 183 (2009). ``W`` is sigpy's Daubechies-2 wavelet transform, of the image
    shifted at random (from a fixed seed) at each iteration, without which blocks remain
    (Figueiredo and Nowak, IEEE Trans. Image Process. 12, 906 (2003)): on a real brain scan at ×4
    the shifts are worth more than 1 dB over ``sigpy.mri.app.L1WaveletRecon``.

    Args:
        operator: ``A``, from images ``(batch or 1, [sets ·] ny, nx)``.
        y: complex64, of the operator's ``range_shape``.
        num_iterations: FISTA iterations.
        regularization: ``λ``, for a slice whose zero-filled 99 % quantile is 1.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64 on the device of ``kspace``; wavelets run on the CPU.

    Raises:
        InputError: for shapes that do not fit, fewer than one iteration or a negative weight.
    """
    _check_options(num_iterations, regularization)
    scale = _zero_filled_scale(operator, y)[:, None, None]
    step = 1.0 / _norm_bound(operator, len(y)).to(y.device)[:, None, None]
    adjoint = operator.adjoint(y) / scale
    size = image_shape(operator)
    shrink = _wavelet_shrinkage(size)
    shifts = torch.Generator().manual_seed(0)
    x = z = torch.zeros_like(adjoint)
    momentum = 1.0
    for _ in range(num_iterations):
        previous = x
        shift = torch.randint(_MAX_SHIFT, (2,), generator=shifts).tolist()
        descended = z - step * (operator.normal(z) - adjoint)
        sets = descended.reshape(-1, *size).roll(shift, (-2, -1))
        limits = (regularization * step).repeat_interleave(len(sets) // len(y), dim=0)
        x = shrink(sets, limits).roll([-n for n in shift], (-2, -1)).reshape(descended.shape)
        following = (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        z = x + (momentum - 1.0) / following * (x - previous)
        momentum = following
    return x * scale


def total_variation(
    operator: LinearOperator,
    y: Tensor,
    *,
    num_iterations: int = 100,
    regularization: float = 2e-3,
) -> Tensor:
    """Total variation: ``min ½ ‖A x - y‖² + λ ‖G x‖₁`` by primal-dual steps, with sigpy.

    ``G`` takes finite differences along both axes. Block, Uecker and Frahm, Magn. Reson. Med. 57,
    1086 (2007).

    Args:
        operator: ``A``, from images ``(batch or 1, [sets ·] ny, nx)``.
        y: complex64, of the operator's ``range_shape``.
        num_iterations: iterations of the primal-dual hybrid gradient method.
        regularization: ``λ``, for a slice whose zero-filled 99 % quantile is 1.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64 on the device of ``kspace``; computed on the CPU.

    Raises:
        InputError: for shapes that do not fit, fewer than one iteration or a negative weight.
    """
    _check_options(num_iterations, regularization)

    from sigpy.app import LinearLeastSquares
    from sigpy.linop import Diag, FiniteDifference
    from sigpy.prox import L1Reg

    scale = _zero_filled_scale(operator, y)
    scaled = (y / scale.reshape(-1, *(1,) * (y.ndim - 1))).cpu().numpy()
    size = image_shape(operator)
    images = []
    for item, bound in enumerate(_norm_bound(operator, len(y)).tolist()):
        forward = _sigpy_operator(operator, item)
        difference = FiniteDifference(size)
        sets = forward.ishape[0] // size[0]
        gradient = Diag([difference] * sets, iaxis=0, oaxis=1)
        # The steps converge for σ τ ‖[A; G]‖² <= 1. The dual variables are far smaller than the
        # image, so σ is too; sigpy's own choice, σ = 1, is nowhere near after 400 iterations.
        app = LinearLeastSquares(
            forward,
            scaled[item],
            proxg=L1Reg(gradient.oshape, regularization),
            G=gradient,
            sigma=_DUAL_STEP,
            tau=1.0 / (_DUAL_STEP * (bound + _GRADIENT_NORM)),
            max_iter=num_iterations,
            show_pbar=False,
        )
        images.append(app.run().astype(np.complex64))
    return torch.from_numpy(np.stack(images)).to(y.device) * scale[:, None, None]


BASELINES: Registry[Callable[..., Tensor]] = Registry("baseline")
"""Name -> function of an operator and data."""

BASELINES.register("zero_filled", zero_filled, title="zero-filled")
BASELINES.register("cg_sense", cg_sense, title="CG-SENSE")
BASELINES.register("phase_constrained", phase_constrained, title="phase-constrained SENSE")
BASELINES.register("l1_wavelet", l1_wavelet, title="L1-wavelet")
BASELINES.register("total_variation", total_variation, title="TV", aliases=("tv",))


def _check_options(num_iterations: int, regularization: float) -> None:
    if not is_whole(num_iterations) or num_iterations < 1:
        raise InputError(f"expected at least one iteration, got {num_iterations!r}")
    check_number("regularization", regularization, least=0)


def _zero_filled_scale(operator: LinearOperator, y: Tensor) -> Tensor:
    """Scale of each slice's zero-filled image, ``(batch,)``; 1 for an empty slice."""
    image = zero_filled(operator, y)
    if isinstance(operator, SoftSense):
        image = operator.combine(image)
    return intensity_scale(image, interpolation="linear")


def _norm_bound(operator: LinearOperator, batch: int) -> Tensor:
    """A bound of ``‖AᴴA‖`` of each slice, ``(batch,)``.

    For k-space on a grid it costs nothing: ``max Σ_c |S_c|²``; of several sets the largest sum of
    a row of the matrix ``|⟨S_k, S_j⟩|``.
    """
    maps = operator.coil_maps
    if not isinstance(operator, CartesianSense | SoftSense):
        shape = (batch, *operator.domain_shape[1:])
        return _POWER_MARGIN * power_iteration(operator.normal, shape, device=operator.device)
    if maps is None:
        return torch.ones(batch)
    maps = maps[:, None] if maps.ndim == 4 else maps
    products = torch.einsum("bkcyx,bjcyx->bkjyx", maps.conj(), maps).abs()
    bound = products.sum(dim=2).amax(dim=(1, 2, 3)).expand(batch)
    return torch.where(bound > 0, bound, 1.0)


def _sigpy_operator(operator: LinearOperator, item: int) -> Any:
    """The operator of one slice as one of sigpy's."""
    from sigpy.linop import Linop

    one = operator[torch.tensor([item], device=operator.device)]

    class Forward(Linop):
        """``A``, from arrays ``(ny, nx)``."""

        def __init__(self, inner: Any, oshape: Any, ishape: Any, inverse: Any) -> None:
            super().__init__(oshape, ishape)
            self.inner, self.inverse = inner, inverse

        def _apply(self, values: Any) -> Any:
            given = torch.from_numpy(np.ascontiguousarray(values, dtype=np.complex64))[None]
            return self.inner(given.to(operator.device or given.device))[0].cpu().numpy()

        def _adjoint_linop(self) -> Any:
            return Forward(self.inverse, self.ishape, self.oshape, self.inner)

    return Forward(one.forward, one.range_shape[1:], one.domain_shape[1:], one.adjoint)


def _wavelet_shrinkage(shape: tuple[int, ...]) -> Callable[[Tensor, Tensor], Tensor]:
    """Soft thresholding of the wavelet coefficients of ``(batch, ny, nx)`` images."""
    from sigpy.linop import Wavelet
    from sigpy.thresh import soft_thresh

    transform = Wavelet(shape, wave_name=_WAVELET)

    def shrink(images: Tensor, thresholds: Tensor) -> Tensor:
        limits = thresholds.expand(len(images), 1, 1).flatten().tolist()
        shrunk = [
            transform.H(soft_thresh(limit, transform(image)))
            for image, limit in zip(images.cpu().numpy(), limits, strict=True)
        ]
        return torch.from_numpy(np.stack(shrunk).astype(np.complex64)).to(images.device)

    return shrink
