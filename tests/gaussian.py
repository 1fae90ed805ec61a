"""Linear-Gaussian inverse problem with a known posterior, the reference for solvers."""

from __future__ import annotations

import math

import numpy as np
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray

from ctxrecon.fourier import channels_to_complex, complex_to_channels, fft2c, ifft2c
from ctxrecon.operators import CartesianSense, LinearOperator

ALPHAS = DDIMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod


class GaussianDenoiser:
    """The exact denoiser of ``x ~ N(mean, C)``, C diagonal in Fourier space.

    ``variance`` holds that of each part of each Fourier coefficient, ``(ny, nx)``.
    """

    size_multiple = 1

    def __init__(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        self.mean, self.variance = fft2c(mean), variance
        self.alphas_cumprod = ALPHAS

    def __call__(self, x_t: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        a = float(self.alphas_cumprod[t])
        noisy = fft2c(channels_to_complex(x_t))
        gain = self.variance * math.sqrt(a) / (a * self.variance + 1 - a)
        x0 = self.mean + gain * (noisy - math.sqrt(a) * self.mean)
        eps = (noisy - math.sqrt(a) * x0) / math.sqrt(1 - a)
        return complex_to_channels(ifft2c(x0)), complex_to_channels(ifft2c(eps))


class Untouched:
    """A denoiser that must not be called, because input is validated before the loop."""

    size_multiple = 1

    def __init__(self, alphas: torch.Tensor = ALPHAS) -> None:
        self.alphas_cumprod = alphas

    def __call__(self, x_t: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        raise AssertionError("the loop was entered")


def complex_noise(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Of unit variance, so ½ in each part."""
    return torch.randn(shape, dtype=torch.complex64, generator=generator)


def seeded(seed: int) -> torch.Generator:
    """Return a new seeded generator."""
    return torch.Generator().manual_seed(seed)


def random_prior(shape: tuple[int, int], generator: torch.Generator) -> GaussianDenoiser:
    """A coloured Gaussian prior with variances from 0.2 to 1.2."""
    mean = complex_noise(shape, generator)
    return GaussianDenoiser(mean, 0.2 + torch.rand(shape, generator=generator))


def random_sense(shape: tuple[int, int], generator: torch.Generator) -> CartesianSense:
    """Three coils, and about half of the lines."""
    ny, nx = shape
    mask = torch.rand(1, 1, 1, nx, generator=generator).lt(0.5).expand(1, 1, ny, nx).contiguous()
    mask[..., nx // 2] = True
    maps = complex_noise((1, 3, ny, nx), generator)
    return CartesianSense(mask, maps / maps.abs().square().sum(1, keepdim=True).sqrt())


def two_lines(shape: tuple[int, int], generator: torch.Generator) -> CartesianSense:
    """Two coils and the second and third line only: fewer equations than unknowns."""
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[..., 1:3] = True
    maps = complex_noise((1, 2, *shape), generator)
    return CartesianSense(mask, maps / maps.abs().square().sum(1, keepdim=True).sqrt())


def dense(operator: LinearOperator) -> NDArray[np.complex128]:
    """The matrix of an operator of batch 1, columns in the order of the flattened image."""
    _, *shape = operator.domain_shape
    size = math.prod(shape)
    basis = torch.eye(size, dtype=torch.complex64).reshape(size, 1, *shape)
    columns = [operator(column).flatten() for column in basis]
    return torch.stack(columns, dim=1).numpy().astype(np.complex128)


def posterior(
    prior: GaussianDenoiser, operator: LinearOperator, y: torch.Tensor, noise_std: float
) -> tuple[torch.Tensor, NDArray[np.complex128]]:
    """Mean ``(1, ny, nx)`` and covariance of ``x`` given ``y = A x + n``.

    ``noise_std`` is that of a complex sample of the measurement, so each part of it has the
    variance ``noise_std²/2``. The covariance ``E (x−x̄)(x−x̄)ᴴ`` counts both parts.
    """
    shape = prior.variance.shape
    size = prior.variance.numel()
    basis = torch.eye(size, dtype=torch.complex64).reshape(size, *shape)
    fourier = fft2c(basis).reshape(size, size).T.numpy().astype(np.complex128)
    precision = np.diag(1 / (2 * prior.variance.double().numpy().ravel()))
    information = fourier.conj().T @ precision @ fourier
    matrix = dense(operator)
    mean = ifft2c(prior.mean).numpy().astype(np.complex128).ravel()
    covariance = np.linalg.inv(information + matrix.conj().T @ matrix / noise_std**2)
    data = y.numpy().astype(np.complex128).ravel()
    values = covariance @ (information @ mean + matrix.conj().T @ data / noise_std**2)
    return torch.from_numpy(values.reshape(1, *shape).astype(np.complex64)), covariance
