"""Centered orthonormal Fourier transforms, and complex images as two real channels."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError

_AXES = (-2, -1)


def fft2c(image: Tensor) -> Tensor:
    """Apply the centered orthonormal 2-D FFT over the last two axes.

    The zero frequency of the result is at index ``n // 2``; ``‖fft2c(x)‖ = ‖x‖``.

    Example:
        >>> import torch
        >>> from ctxrecon.fourier import fft2c
        >>> fft2c(torch.ones(4, 4, dtype=torch.complex64))[2, 2].real
        tensor(4.)

    Args:
        image: Complex image of shape ``(..., ny, nx)``.
    """
    shifted = torch.fft.ifftshift(image, dim=_AXES)
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=_AXES)


def ifft2c(kspace: Tensor) -> Tensor:
    """Apply the inverse (and adjoint) of :func:`fft2c`.

    Example:
        >>> import torch
        >>> from ctxrecon.fourier import fft2c, ifft2c
        >>> image = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) + 0j
        >>> torch.allclose(ifft2c(fft2c(image)), image, atol=1e-6)
        True

    Args:
        kspace: Complex k-space of shape ``(..., ny, nx)``, zero frequency at ``n // 2``.
    """
    shifted = torch.fft.ifftshift(kspace, dim=_AXES)
    return torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=_AXES)


def complex_to_channels(image: Tensor) -> Tensor:
    """Convert complex ``(batch, ny, nx)`` to real ``(batch, 2, ny, nx)``, real part first."""
    if not image.is_complex():
        raise InputError(f"expected a complex image (batch, ny, nx), got dtype {image.dtype}")
    return torch.view_as_real(image).movedim(-1, -3).contiguous()


def channels_to_complex(channels: Tensor) -> Tensor:
    """Convert real ``(batch, 2, ny, nx)`` to complex64 ``(batch, ny, nx)``."""
    if channels.ndim < 3 or channels.shape[-3] != 2:
        raise InputError(
            f"expected 2 channels (real, imaginary) in (batch, 2, ny, nx), "
            f"got shape {tuple(channels.shape)}"
        )
    return torch.view_as_complex(channels.movedim(-3, -1).float().contiguous())
