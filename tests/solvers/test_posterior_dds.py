"""Posterior DDS on linear-Gaussian problems: the mean of a step, the moments of the samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian import (
    ALPHAS,
    GaussianDenoiser,
    complex_noise,
    posterior,
    random_prior,
    random_sense,
)

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.coils.noise import estimate_noise_std
from ctxrecon.fourier import channels_to_complex, ifft2c
from ctxrecon.measurement import Measurement
from ctxrecon.operators import CartesianSense
from ctxrecon.solvers import PosteriorDDS

SHAPE = (4, 3)
NOISE = 0.3


def measured(prior, operator, generator):
    """A measurement of a draw from the prior."""
    draw = prior.mean + (2 * prior.variance).sqrt() * complex_noise((1, *SHAPE), generator)
    y = operator(ifft2c(draw))
    return (y + NOISE * complex_noise(y.shape, generator)).masked_fill(~operator.mask, 0)


def errors(prior, operator, y, steps, generator):
    """Errors of mean and covariance at η = 0, where samples are ``m + G x_T``."""
    size = math.prod(SHAPE)
    half = torch.randn(2 * size, 2, *SHAPE, generator=generator)
    latents = torch.cat([half, -half])
    timesteps = [round(t) for t in np.linspace(985, 3, steps)]
    solver = PosteriorDDS(noise_std=NOISE, eta=0.0)
    samples = solver(
        prior,
        operator,
        y.expand(len(latents), -1, -1, -1),
        timesteps=timesteps,
        latents=latents,
    )
    x = samples.flatten(1).numpy().astype(np.complex128)
    mean, covariance = posterior(prior, operator, y, NOISE)
    odd = (x[: 2 * size] - x[2 * size :]) / 2
    gain = np.linalg.solve(half.flatten(1).numpy().astype(np.float64), odd)
    error = np.linalg.norm(x.mean(0) - mean.flatten().numpy())
    return (
        error / math.sqrt(np.trace(covariance).real),
        np.linalg.norm(gain.T @ gain.conj() - covariance) / np.linalg.norm(covariance),
    )


def test_a_step_ends_at_the_mean_given_both(generator):
    prior, operator = random_prior(SHAPE, generator), random_sense(SHAPE, generator)
    y, t = measured(prior, operator, generator), 300
    x_t = torch.randn(1, 2, *SHAPE, generator=generator)
    x0_hat = channels_to_complex(prior(x_t, t)[0])
    belief = GaussianDenoiser(x0_hat[0], torch.full(SHAPE, 1 - float(ALPHAS[t])))
    expected, _ = posterior(belief, operator, y, NOISE)
    solver = PosteriorDDS(noise_std=NOISE, cg_iterations=50)
    got = solver(prior, operator, y, timesteps=[t], latents=x_t)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("colored", [False, True])
def test_samples_come_to_be_those_of_the_posterior(colored, generator):
    prior, operator = random_prior(SHAPE, generator), random_sense(SHAPE, generator)
    if not colored:
        prior.variance = torch.ones(SHAPE)
    y = measured(prior, operator, generator)
    few, many = (errors(prior, operator, y, steps, generator) for steps in (10, 40))
    assert many[1] < 0.5 * few[1]
    assert many[1] < 0.12
    assert many[0] < (0.15 if colored else 0.05)


def test_without_noise_to_speak_of_the_data_are_met(generator):
    prior, operator = random_prior(SHAPE, generator), random_sense(SHAPE, generator)
    y = operator(complex_noise((1, *SHAPE), generator))
    x = PosteriorDDS(noise_std=1e-4, cg_iterations=50)(
        prior, operator, y, timesteps=[900, 700, 450, 200, 60, 5], generator=generator
    )
    assert float((operator(x) - y).norm() / y.norm()) < 0.01


@pytest.mark.parametrize("given", [None, 3.0, "auto"])
def test_a_pipeline_gives_it_the_noise_of_the_scan(pipe, generator, monkeypatch, given):
    """In units of the image's scale: what was given, or what the scan shows."""
    shape, noise_std = (64, 64), 4.0
    maps = simulate_coil_maps(4, shape, generator=generator)
    mask = torch.ones(1, 1, *shape, dtype=torch.bool)
    image = 40 * complex_noise((1, *shape), generator)
    kspace = CartesianSense(mask, maps)(image)
    kspace = kspace + noise_std * complex_noise(tuple(kspace.shape), generator)
    scale = Measurement.from_arrays(kspace, mask, maps).normalized()[0].intensity_scale()
    levels = []

    def note(self, denoiser, operator, y, **options):
        levels.append(self.noise_std)
        return operator.adjoint(y)

    monkeypatch.setattr(PosteriorDDS, "__call__", note)
    pipe(kspace, mask, coil_maps=maps, solver="posterior_dds", noise_std=given, num_samples=2)
    sigma = 3.0 if given == 3.0 else float(estimate_noise_std(kspace, mask))
    share = sigma / float(scale)
    if given is None:
        share = math.sqrt(share**2 - (2 * PosteriorDDS.default_noise_std) ** 2)
    assert len(levels[-1]) == 2
    assert levels[-1].tolist() == pytest.approx([share] * 2, rel=0.02)
