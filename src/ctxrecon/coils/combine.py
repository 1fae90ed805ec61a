"""Coil combination, coil compression and noise prewhitening."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ctxrecon.coils._checks import check_kspace
from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c

_SAMPLES_PER_COIL = 10


def mvue(kspace: Tensor, coil_maps: Tensor) -> Tensor:
    """Minimum-variance unbiased estimate ``Σ_c S̄_c F⁻¹y_c / Σ_c |S_c|²`` (white noise).

    Zero where all maps are zero.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex.

    Returns:
        ``(batch, ny, nx)`` complex64 for complex64 input.
    """
    check_kspace(kspace)
    if (
        coil_maps.ndim != 4
        or coil_maps.shape[1:] != kspace.shape[1:]
        or coil_maps.shape[0] not in (1, kspace.shape[0])
    ):
        raise InputError(
            f"expected coil maps (batch or 1, coils, ny, nx) for k-space {tuple(kspace.shape)}, "
            f"got {tuple(coil_maps.shape)}: give maps of the same coils and matrix size"
        )
    combined = (coil_maps.conj() * ifft2c(kspace)).sum(dim=1)
    power = (coil_maps.real**2 + coil_maps.imag**2).sum(dim=1)
    return torch.where(power > 0, combined / power.clamp_min(1e-20), 0)


def root_sum_of_squares(images: Tensor, *, dim: int = 1) -> Tensor:
    """``√Σ_c |x_c|²`` over the coil axis, real.

    Args:
        images: ``(batch, coils, ny, nx)`` complex or real.
        dim: the coil axis.
    """
    return torch.linalg.vector_norm(images, dim=dim)


class CompressedCoils(NamedTuple):
    """Result of :func:`compress_coils`.

    Attributes:
        kspace: ``(batch, virtual coils, ny, nx)``, strongest virtual coil first.
        matrix: ``(virtual coils, coils)`` with orthonormal rows; applied to the coil axis of
            maps or noise it gives those of the virtual coils.
        energy: fraction of the energy of the k-space that was kept.
    """

    kspace: Tensor
    matrix: Tensor
    energy: float


def compress_coils(kspace: Tensor, num_coils: int) -> CompressedCoils:
    """Software coil compression by the singular value decomposition (Huang et al., 2008).

    One matrix for the whole batch, so that the slices of a scan share their virtual coils. White
    noise stays white with the same variance.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex.
        num_coils: virtual coils to keep, 1 to ``coils``.
    """
    check_kspace(kspace)
    coils = kspace.shape[1]
    if not 1 <= num_coils <= coils:
        raise InputError(
            f"expected 1 to {coils} virtual coils for k-space of {coils} coils, got {num_coils}: "
            "keep at most as many as were measured"
        )
    scale = kspace.abs().amax()
    if scale == 0:
        raise InputError("expected k-space with signal, got only zeros: check how it was read")
    samples = (kspace / scale).transpose(0, 1).flatten(1)
    values, vectors = torch.linalg.eigh(samples @ samples.mH)
    matrix = vectors[:, -num_coils:].flip(1).mH.contiguous()
    energy = float(values[-num_coils:].sum() / values.sum())
    return CompressedCoils(torch.einsum("vc,bcyx->bvyx", matrix, kspace), matrix, energy)


def prewhiten(kspace: Tensor, noise: Tensor) -> Tensor:
    """Decorrelate the coils' noise and give it unit variance in each complex sample.

    ``L⁻¹ y``, see :func:`whitening_matrix`. Coil maps must be estimated from, or multiplied
    likewise to, the whitened coils.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex.
        noise: ``(coils, samples)`` complex noise-only samples in the units of ``kspace``, at
            least 10 a coil.
    """
    check_kspace(kspace)
    coils = kspace.shape[1]
    if noise.ndim != 2 or noise.shape[0] != coils:
        raise InputError(
            f"expected complex noise ({coils} coils, samples), got {noise.dtype} of shape "
            f"{tuple(noise.shape)}: give the noise scan of the same coils"
        )
    matrix = whitening_matrix(noise)
    return torch.einsum("dc,bcyx->bdyx", matrix.to(kspace.device, kspace.dtype), kspace)


def whitening_matrix(noise: Tensor) -> Tensor:
    """``L⁻¹`` of the noise covariance ``Ψ = L Lᴴ`` (Pruessmann et al., Magn Reson Med 46:638).

    Args:
        noise: ``(coils, samples)`` complex noise-only samples, at least 10 a coil.

    Returns:
        ``(coils, coils)`` complex128, in the inverse units of ``noise``.

    Raises:
        InputError: noise that is too short, not finite, or not linearly independent.
    """
    if noise.ndim != 2 or not noise.is_complex():
        raise InputError(
            f"expected complex noise (coils, samples), got {noise.dtype} of shape "
            f"{tuple(noise.shape)}"
        )
    coils = len(noise)
    if noise.shape[1] < _SAMPLES_PER_COIL * coils:
        raise InputError(
            f"expected at least {_SAMPLES_PER_COIL * coils} noise samples for {coils} coils, got "
            f"{noise.shape[1]}: give a longer noise scan"
        )
    if not bool(torch.isfinite(torch.view_as_real(noise)).all()):
        raise InputError(
            "expected finite noise samples, got NaN or infinite ones: remove those readouts"
        )
    # Noise is tiny in scanner units: the covariance is formed in double precision.
    samples = noise.to(torch.complex128)
    covariance = samples @ samples.mH / samples.shape[1]
    power = covariance.diagonal().real
    factor, info = torch.linalg.cholesky_ex(covariance)
    pivots = factor.diagonal().real ** 2
    if int(info) != 0 or bool((pivots <= 1e-10 * power).any()):
        raise InputError(
            "expected noise of linearly independent coils, got a singular covariance: "
            "remove dead or duplicated coils, or compress the coils first"
        )
    identity = torch.eye(coils, dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, identity, upper=False)
