"""Reconstructions without a learned prior: zero-filled, CG-SENSE, L1-wavelet, total variation.

All minimise over ``x`` for the measurement ``y = A x + n`` with ``A = M F S``. Each slice is
scaled so that the 99 % quantile of its zero-filled magnitude is 1, and scaled back at the end, so
that a regularization weight means the same whatever the units of the scan.

With two sets of coil maps the unknown is the image of
:class:`~ctxrecon.operators.SoftSense`, ``(batch, sets · ny, nx)``: its ``combine`` makes one image
of the sets. Penalties take each set by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ctxrecon.checks import check_number, is_whole
from ctxrecon.errors import InputError
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import combine_sets, sense_operator

_SCALE_QUANTILE = 0.99
# ‖G‖² of the two-dimensional finite differences.
_GRADIENT_NORM = 8.0
_DUAL_STEP = 0.02
_WAVELET = "db2"
_MAX_SHIFT = 16


def zero_filled(kspace: Tensor, mask: Tensor, coil_maps: Tensor | None) -> Tensor:
    """``Aᴴ y / Σ_c |S_c|²``: what is missing taken as zero.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex64, zero frequency at ``n // 2``.
        mask: ``(batch or 1, 1, ny, nx)`` bool.
        coil_maps: ``(batch or 1, [sets,] coils, ny, nx)`` complex64; ``None`` for a single coil.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64; zero where no coil sees anything.

    Raises:
        InputError: for shapes or dtypes that do not fit.
    """
    image = sense_operator(mask, coil_maps).adjoint(kspace)
    if coil_maps is None:
        return image
    energy = coil_maps.abs().square().sum(dim=-3)
    if energy.ndim == 4:
        energy = energy.flatten(1, 2)
    return torch.where(energy > 0, image / energy.clamp_min(torch.finfo(energy.dtype).tiny), 0)


def cg_sense(
    kspace: Tensor,
    mask: Tensor,
    coil_maps: Tensor | None,
    *,
    num_iterations: int = 30,
    regularization: float = 1e-2,
) -> Tensor:
    """Iterative SENSE: ``min ‖A x - y‖² + λ ‖x‖²`` by conjugate gradients.

    Pruessmann et al., Magn. Reson. Med. 46, 638 (2001).

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex64, zero frequency at ``n // 2``.
        mask: ``(batch or 1, 1, ny, nx)`` bool.
        coil_maps: ``(batch or 1, [sets,] coils, ny, nx)`` complex64; ``None`` for a single coil.
        num_iterations: conjugate-gradient iterations.
        regularization: ``λ``, against coil maps with ``Σ_c |S_c|² = 1``.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64.

    Raises:
        InputError: for shapes that do not fit, fewer than one iteration or a negative weight.
    """
    _check_options(num_iterations, regularization)
    A = sense_operator(mask, coil_maps)
    return conjugate_gradient(A.gram + regularization, A.H(kspace), num_iterations=num_iterations)


def l1_wavelet(
    kspace: Tensor,
    mask: Tensor,
    coil_maps: Tensor | None,
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
        kspace: ``(batch, coils, ny, nx)`` complex64, zero frequency at ``n // 2``.
        mask: ``(batch or 1, 1, ny, nx)`` bool.
        coil_maps: ``(batch or 1, [sets,] coils, ny, nx)`` complex64; ``None`` for a single coil.
        num_iterations: FISTA iterations.
        regularization: ``λ``, for a slice whose zero-filled 99 % quantile is 1.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64 on the device of ``kspace``; wavelets run on the CPU.

    Raises:
        InputError: for shapes that do not fit, fewer than one iteration or a negative weight.
    """
    _check_options(num_iterations, regularization)
    operator = sense_operator(mask, coil_maps)
    scale = _zero_filled_scale(kspace, mask, coil_maps)[:, None, None]
    step = 1.0 / _energy_bound(len(kspace), coil_maps).to(kspace.device)[:, None, None]
    adjoint = operator.adjoint(kspace) / scale
    shrink = _wavelet_shrinkage(tuple(kspace.shape[-2:]))
    shifts = torch.Generator().manual_seed(0)
    x = z = torch.zeros_like(adjoint)
    momentum = 1.0
    for _ in range(num_iterations):
        previous = x
        shift = torch.randint(_MAX_SHIFT, (2,), generator=shifts).tolist()
        descended = z - step * (operator.normal(z) - adjoint)
        sets = descended.reshape(-1, *kspace.shape[-2:]).roll(shift, (-2, -1))
        limits = (regularization * step).repeat_interleave(len(sets) // len(kspace), dim=0)
        x = shrink(sets, limits).roll([-n for n in shift], (-2, -1)).reshape(descended.shape)
        following = (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        z = x + (momentum - 1.0) / following * (x - previous)
        momentum = following
    return x * scale


def total_variation(
    kspace: Tensor,
    mask: Tensor,
    coil_maps: Tensor | None,
    *,
    num_iterations: int = 100,
    regularization: float = 2e-3,
) -> Tensor:
    """Total variation: ``min ½ ‖A x - y‖² + λ ‖G x‖₁`` by primal-dual steps, with sigpy.

    ``G`` takes finite differences along both axes. Block, Uecker and Frahm, Magn. Reson. Med. 57,
    1086 (2007).

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex64, zero frequency at ``n // 2``.
        mask: ``(batch or 1, 1, ny, nx)`` bool.
        coil_maps: ``(batch or 1, [sets,] coils, ny, nx)`` complex64; ``None`` for a single coil.
        num_iterations: iterations of the primal-dual hybrid gradient method.
        regularization: ``λ``, for a slice whose zero-filled 99 % quantile is 1.

    Returns:
        ``(batch, [sets ·] ny, nx)`` complex64 on the device of ``kspace``; computed on the CPU.

    Raises:
        InputError: for shapes that do not fit, fewer than one iteration or a negative weight.
    """
    _check_options(num_iterations, regularization)

    from sigpy.app import LinearLeastSquares
    from sigpy.linop import Diag, FiniteDifference, Hstack
    from sigpy.mri.linop import Sense
    from sigpy.prox import L1Reg

    batch = len(kspace)
    scale = _zero_filled_scale(kspace, mask, coil_maps)
    scaled = (kspace / scale[:, None, None, None]).cpu().numpy()
    weights = mask.expand(batch, -1, -1, -1).cpu().numpy().astype(np.float32)
    sets = torch.ones_like(kspace) if coil_maps is None else coil_maps
    sets = sets[:, None] if sets.ndim == 4 else sets
    maps = sets.expand(batch, -1, -1, -1, -1).cpu().numpy()
    images = []
    for item, bound in enumerate(_energy_bound(batch, coil_maps).tolist()):
        operator = Hstack([Sense(each, weights=weights[item]) for each in maps[item]], axis=0)
        difference = FiniteDifference(kspace.shape[-2:])
        gradient = Diag([difference for _ in maps[item]], iaxis=0, oaxis=1)
        # The steps converge for σ τ ‖[A; G]‖² <= 1. The dual variables are far smaller than the
        # image, so σ is too; sigpy's own choice, σ = 1, is nowhere near after 400 iterations.
        app = LinearLeastSquares(
            operator,
            scaled[item],
            proxg=L1Reg(gradient.oshape, regularization),
            G=gradient,
            sigma=_DUAL_STEP,
            tau=1.0 / (_DUAL_STEP * (bound + _GRADIENT_NORM)),
            max_iter=num_iterations,
            show_pbar=False,
        )
        images.append(app.run().astype(np.complex64))
    return torch.from_numpy(np.stack(images)).to(kspace.device) * scale[:, None, None]


BASELINES: dict[str, Callable[..., Tensor]] = {
    "zero_filled": zero_filled,
    "cg_sense": cg_sense,
    "l1_wavelet": l1_wavelet,
    "total_variation": total_variation,
}


def _check_options(num_iterations: int, regularization: float) -> None:
    if not is_whole(num_iterations) or num_iterations < 1:
        raise InputError(f"expected at least one iteration, got {num_iterations!r}")
    check_number("regularization", regularization, least=0)


def _zero_filled_scale(kspace: Tensor, mask: Tensor, coil_maps: Tensor | None) -> Tensor:
    """99 % quantile of each slice's zero-filled magnitude, ``(batch,)``; 1 for an empty slice."""
    image = zero_filled(kspace, mask, coil_maps)
    if image.shape[1:] != kspace.shape[2:]:
        image = combine_sets(image.unflatten(1, (-1, kspace.shape[2])))
    magnitude = image.abs().flatten(1)
    scale = torch.quantile(magnitude, _SCALE_QUANTILE, dim=1)
    return torch.where(scale > 0, scale, 1.0)


def _energy_bound(batch: int, coil_maps: Tensor | None) -> Tensor:
    """A bound of ``‖AᴴA‖`` of each slice that costs nothing, ``(batch,)``.

    ``max Σ_c |S_c|²``; of several sets the largest sum of a row of the matrix ``|⟨S_k, S_j⟩|``.
    """
    if coil_maps is None:
        return torch.ones(batch)
    maps = coil_maps[:, None] if coil_maps.ndim == 4 else coil_maps
    products = torch.einsum("bkcyx,bjcyx->bkjyx", maps.conj(), maps).abs()
    bound = products.sum(dim=2).amax(dim=(1, 2, 3)).expand(batch)
    return torch.where(bound > 0, bound, 1.0)


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
