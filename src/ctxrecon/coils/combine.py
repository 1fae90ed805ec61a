"""Coil combination, coil compression and noise prewhitening."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ctxrecon.coils._checks import check_kspace
from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.operators import combine_sets

_SAMPLES_PER_COIL = 10


def mvue(kspace: Tensor, coil_maps: Tensor) -> Tensor:
    r"""Combine coil images into the minimum-variance unbiased estimate (for white noise).

    .. math::

        x = \frac{\sum_c \bar{S}_c\, F^{-1} y_c}{\sum_c |S_c|^2}

    The image is zero where all maps are zero. With two orthonormal sets of maps, the images of the
    sets are combined by :func:`~ctxrecon.operators.combine_sets`.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import mvue, simulate_coil_maps
        >>> from ctxrecon.fourier import fft2c
        >>> maps = simulate_coil_maps(4, (16, 16), generator=torch.Generator().manual_seed(0))
        >>> image = torch.ones(1, 16, 16, dtype=torch.complex64)
        >>> torch.allclose(mvue(fft2c(maps * image[:, None]), maps), image, atol=1e-5)
        True

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex.
        coil_maps: Coil maps of shape ``(batch or 1, [sets,] coils, ny, nx)``, complex.

    Returns:
        Image of shape ``(batch, ny, nx)``, complex64 for complex64 input.

    Raises:
        InputError: If k-space or maps are malformed or do not match.
    """
    check_kspace(kspace)
    if (
        coil_maps.ndim not in (4, 5)
        or coil_maps.shape[-3:] != kspace.shape[1:]
        or coil_maps.shape[0] not in (1, kspace.shape[0])
    ):
        raise InputError(
            f"expected coil maps (batch or 1, [sets,] coils, ny, nx) for k-space "
            f"{tuple(kspace.shape)}, got {tuple(coil_maps.shape)}: pass maps with the same coils "
            "and matrix size"
        )
    maps = coil_maps[:, None] if coil_maps.ndim == 4 else coil_maps
    combined = (maps.conj() * ifft2c(kspace)[:, None]).sum(dim=2)
    power = (maps.real**2 + maps.imag**2).sum(dim=2)
    images = torch.where(power > 0, combined / power.clamp_min(1e-20), 0)
    return images[:, 0] if coil_maps.ndim == 4 else combine_sets(images)


def root_sum_of_squares(images: Tensor, *, dim: int = 1) -> Tensor:
    """Compute the root sum of squares ``√Σ_c |x_c|²`` over the coil axis, real.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import root_sum_of_squares
        >>> root_sum_of_squares(torch.ones(1, 4, 2, 2))[0, 0]
        tensor([2., 2.])

    Args:
        images: Coil images of shape ``(batch, coils, ny, nx)``, complex or real.
        dim: Coil axis.
    """
    return torch.linalg.vector_norm(images, dim=dim)


class CompressedCoils(NamedTuple):
    """Result of :func:`compress_coils`.

    Attributes:
        kspace: K-space of shape ``(batch, virtual coils, ny, nx)``, strongest virtual coil first.
        matrix: Compression matrix ``(virtual coils, coils)`` with orthonormal rows; applied to the
            coil axis of maps or noise it returns those of the virtual coils.
        energy: Fraction of the k-space energy that is kept.
    """

    kspace: Tensor
    matrix: Tensor
    energy: float


def compress_coils(kspace: Tensor, num_coils: int) -> CompressedCoils:
    """Compress coils by a singular value decomposition (Huang et al., 2008).

    One matrix serves the whole batch, so that the slices of a scan share their virtual coils. White
    noise stays white with the same variance.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import compress_coils
        >>> generator = torch.Generator().manual_seed(0)
        >>> kspace = torch.randn(2, 8, 16, 16, dtype=torch.complex64, generator=generator)
        >>> compress_coils(kspace, 4).kspace.shape
        torch.Size([2, 4, 16, 16])

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex.
        num_coils: Number of virtual coils to keep, 1 to ``coils``.

    Raises:
        InputError: If k-space is malformed or zero, or ``num_coils`` is out of range.
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
    """Decorrelate the noise of the coils and scale it to unit variance in each complex sample.

    The result is ``L⁻¹ y``; see :func:`whitening_matrix`. Estimate coil maps from the whitened
    coils, or multiply them by the same matrix.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import prewhiten
        >>> generator = torch.Generator().manual_seed(0)
        >>> noise = 3 * torch.randn(4, 1000, dtype=torch.complex64, generator=generator)
        >>> prewhiten(noise.reshape(1, 4, 20, 50), noise).std().round()
        tensor(1.)

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex.
        noise: Noise-only samples of shape ``(coils, samples)``, complex, in the units of
            ``kspace``, at least 10 per coil.

    Raises:
        InputError: If the noise has other coils or is not valid for :func:`whitening_matrix`.
    """
    check_kspace(kspace)
    coils = kspace.shape[1]
    if noise.ndim != 2 or noise.shape[0] != coils:
        raise InputError(
            f"expected complex noise ({coils} coils, samples), got {noise.dtype} of shape "
            f"{tuple(noise.shape)}: pass the noise scan of the same coils"
        )
    matrix = whitening_matrix(noise)
    return torch.einsum("dc,bcyx->bdyx", matrix.to(kspace.device, kspace.dtype), kspace)


def whitening_matrix(noise: Tensor) -> Tensor:
    r"""Compute the whitening matrix of a noise scan (Pruessmann et al., Magn Reson Med 46:638).

    .. math::

        L^{-1} \quad\text{with}\quad \Psi = L L^H

    where :math:`\Psi` is the noise covariance.

    Args:
        noise: Noise-only samples of shape ``(coils, samples)``, complex, at least 10 per coil.

    Returns:
        Matrix of shape ``(coils, coils)``, complex128, in the inverse units of ``noise``.

    Raises:
        InputError: If the noise scan is too short, not finite or not linearly independent.
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
            f"{noise.shape[1]}: pass a longer noise scan"
        )
    if not bool(torch.isfinite(torch.view_as_real(noise)).all()):
        raise InputError(
            "expected finite noise samples, got NaN or infinite ones: remove those readouts"
        )
    # Noise is tiny in scanner units, so the covariance is computed in double precision.
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
