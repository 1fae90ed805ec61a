from __future__ import annotations

import cmath
import math

import torch
from gaussian import GaussianDenoiser, complex_noise, seeded

from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.priors import EquivariantDenoiser

SHAPE = (2, 8, 8)
GOLDEN_ANGLE = 2 * math.pi / ((1 + math.sqrt(5)) / 2)


def gaussian(mean: complex) -> GaussianDenoiser:
    """A prior whose images have a random phase if the mean is zero."""
    variance = 0.1 + torch.rand(SHAPE[1:], generator=seeded(0))
    return GaussianDenoiser(torch.full(SHAPE, mean, dtype=torch.complex64), variance)


def noisy_images(seed: int = 1) -> torch.Tensor:
    return complex_to_channels(complex_noise(SHAPE, seeded(seed)))


def test_an_equivariant_prior_is_unchanged():
    plain, denoiser = gaussian(0), EquivariantDenoiser(gaussian(0))
    x_t = noisy_images()
    for t in (900, 400, 10):
        for given, expected in zip(denoiser(x_t, t), plain(x_t, t), strict=True):
            torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


def test_each_evaluation_has_the_next_golden_angle():
    plain, denoiser = gaussian(1 + 0.5j), EquivariantDenoiser(gaussian(1 + 0.5j))
    x_t = noisy_images()
    for number in range(6):
        factor = cmath.exp(1j * number * GOLDEN_ANGLE)
        turned = plain(complex_to_channels(channels_to_complex(x_t) * factor), 300)
        expected = [channels_to_complex(each) / factor for each in turned]
        for given, wanted in zip(denoiser(x_t, 300), expected, strict=True):
            torch.testing.assert_close(channels_to_complex(given), wanted, rtol=1e-5, atol=1e-5)


def test_the_first_evaluation_is_that_of_the_prior():
    x_t = noisy_images()
    given, expected = EquivariantDenoiser(gaussian(2j))(x_t, 50), gaussian(2j)(x_t, 50)
    assert torch.equal(given[0], expected[0])
    assert torch.equal(given[1], expected[1])


def test_evaluations_average_to_the_prior_of_random_phase():
    denoiser, x_t = EquivariantDenoiser(gaussian(1)), noisy_images()
    mean = torch.stack([denoiser(x_t, 600)[0] for _ in range(400)]).mean(0)
    torch.testing.assert_close(mean, gaussian(0)(x_t, 600)[0], rtol=0, atol=5e-3)
    assert (gaussian(1)(x_t, 600)[0] - mean).abs().max() > 0.1


def test_gradients_pass():
    x_t = noisy_images().requires_grad_()
    denoiser = EquivariantDenoiser(gaussian(1))
    denoiser(x_t, 500)
    (given,) = torch.autograd.grad(denoiser(x_t, 500)[0].square().sum(), x_t)
    assert given.isfinite().all()
    assert given.abs().max() > 0
