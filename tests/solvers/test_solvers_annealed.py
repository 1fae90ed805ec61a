"""RED-diff, DAPS, plug-and-play and Score-MRI compared with exact solutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian import (
    ALPHAS,
    GaussianDenoiser,
    Untouched,
    complex_noise,
    dense,
    posterior,
    random_prior,
    random_sense,
    seeded,
)

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels, fft2c
from ctxrecon.operators import CartesianSense, LinearOperator
from ctxrecon.operators.base import freeze
from ctxrecon.solvers.daps import DAPS
from ctxrecon.solvers.pnp import PnPADMM, PnPHQS
from ctxrecon.solvers.predictor_corrector import ScoreMRI
from ctxrecon.solvers.red_diff import REDDiff

NY, NX = 6, 4
TIMESTEPS = [990, 700, 450, 200, 60, 5]


class Matrix(LinearOperator):
    """Any matrix: what is true with it is true of no special structure."""

    matrix: torch.Tensor

    def __init__(self, matrix: torch.Tensor) -> None:
        freeze(self, matrix=matrix)

    @property
    def domain_shape(self):
        return (1, NY, NX)

    @property
    def range_shape(self):
        return (1, len(self.matrix))

    def forward(self, x):
        return x.flatten(1) @ self.matrix.T

    def adjoint(self, y):
        return (y @ self.matrix.conj()).reshape(-1, NY, NX)


@pytest.fixture
def prior(generator):
    return random_prior((NY, NX), generator)


@pytest.fixture
def matrix(generator):
    """Half as many measurements as pixels, singular values near 1."""
    count = NY * NX // 2
    return Matrix(complex_noise((count, NY * NX), generator) / math.sqrt(NY * NX))


@pytest.fixture
def multicoil(generator):
    return random_sense((NY, NX), generator)


def at_one_level(prior, std, steps):
    """The denoiser with a scheduler that stays at the noise ``σ_t = std``, nearly."""
    level = GaussianDenoiser(torch.zeros(NY, NX, dtype=torch.complex64), prior.variance)
    level.mean = prior.mean
    level.alphas_cumprod = 1 / (1 + std**2) - 1e-6 * torch.arange(steps)
    return level, list(range(steps - 1, -1, -1))


def smoothed(prior, std):
    """``N(m, C + std² I)``, by its denoiser."""
    wide = GaussianDenoiser(torch.zeros(NY, NX, dtype=torch.complex64), prior.variance + std**2)
    wide.mean = prior.mean
    return wide


def measure(operator, noise_std, generator):
    truth = complex_noise((1, NY, NX), generator)
    noise = noise_std * complex_noise(operator.range_shape, generator)
    return operator(truth) + noise


# Plug-and-play.


def test_hqs_rests_at_the_posterior_mean_of_the_smoothed_prior(prior, matrix, generator):
    std, noise_std = 0.4, 0.3
    y = measure(matrix, noise_std, generator)
    level, timesteps = at_one_level(prior, std, 200)
    solver = PnPHQS(
        noise_std=noise_std, largest_denoiser_std=1.0, cg_iterations=20, equivariant=False
    )
    got = solver(level, matrix, y, timesteps=timesteps)

    expected, _ = posterior(smoothed(prior, std), matrix, y, noise_std)
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=0)
    mean, _ = posterior(prior, matrix, y, noise_std)
    assert float((got - mean).abs().max()) > 0.05  # a bias of σ_t that ADMM does not have


def test_admm_rests_at_the_map_estimate_at_any_level_and_while_it_falls(prior, matrix, generator):
    noise_std = 0.3
    y = measure(matrix, noise_std, generator)
    mean, _ = posterior(prior, matrix, y, noise_std)
    solver = PnPADMM(
        noise_std=noise_std, largest_denoiser_std=1.0, cg_iterations=20, equivariant=False
    )
    for std in (0.4, 0.7):
        level, timesteps = at_one_level(prior, std, 200)
        got = solver(level, matrix, y, timesteps=timesteps)
        torch.testing.assert_close(got, mean, atol=2e-3, rtol=0)
    # Once there, a change of ρ alone does not move it: the multiplier is kept.
    level.alphas_cumprod = torch.cat(
        [1 / (1 + torch.tensor([0.3, 0.5]) ** 2), level.alphas_cumprod]
    )
    got = solver(level, matrix, y, timesteps=[*(t + 2 for t in timesteps), 1, 0])
    torch.testing.assert_close(got, mean, atol=4e-3, rtol=0)


class Turned:
    """A denoiser whose k-th evaluation is made under the k-th phase."""

    size_multiple = 1
    alphas_cumprod = ALPHAS

    def __init__(self, prior: GaussianDenoiser, phases: list[float]) -> None:
        self.prior, self.phases = prior, list(phases)

    def __call__(self, x_t, t):
        factor = np.exp(1j * self.phases.pop(0))
        found = self.prior(complex_to_channels(channels_to_complex(x_t) * factor), t)
        return tuple(complex_to_channels(channels_to_complex(each) / factor) for each in found)


@pytest.mark.parametrize("solver", [PnPHQS, PnPADMM])
def test_plug_and_play_evaluates_the_prior_under_other_phases(solver, prior, matrix, generator):
    y = measure(matrix, 0.3, generator)

    def run(denoiser, **options):
        made = solver(noise_std=0.3, largest_denoiser_std=1.0, **options)
        return made(denoiser, matrix, y, timesteps=TIMESTEPS)

    found, plain = run(prior), run(prior, equivariant=False)
    # Three turns in six steps, of which the last one keeps the phase.
    by_hand = Turned(prior, [k * math.pi for k in range(6)])
    torch.testing.assert_close(found, run(by_hand, equivariant=False), rtol=0, atol=1e-4)
    assert not by_hand.phases
    assert float((found - plain).abs().max()) > 1e-2
    centered = GaussianDenoiser(torch.zeros(1, NY, NX, dtype=torch.complex64), prior.variance)
    torch.testing.assert_close(run(centered), run(centered, equivariant=False), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("count", "constant"), [(30, 5), (12, 2), (5, 1), (1, 1)])
def test_the_phase_turns_evenly_and_stays_at_the_end(count, constant):
    phases = np.array(PnPADMM()._phases(count))
    assert len(phases) == count
    assert phases[0] == 0
    steps = np.diff(phases)
    np.testing.assert_allclose(steps[: len(steps) + 1 - constant], 6 * math.pi / count)
    np.testing.assert_allclose(steps[len(steps) + 1 - constant :], 0, atol=1e-12)
    assert PnPADMM(equivariant=False)._phases(count) == [0.0] * count


@pytest.mark.parametrize("solver", [PnPHQS, PnPADMM])
def test_plug_and_play_tells_the_denoiser_of_no_more_noise_than_allowed(solver, multicoil):
    seen = []

    class Watched(Untouched):
        def __call__(self, x_t, t):
            seen.append((t, x_t))
            return x_t, x_t

    y = multicoil(torch.ones(1, NY, NX, dtype=torch.complex64))
    solver(largest_denoiser_std=0.5)(Watched(), multicoil, y, timesteps=TIMESTEPS)
    noisiest = seen[0][0]
    std = ((1 - ALPHAS) / ALPHAS).sqrt()
    assert std[noisiest] <= 0.5 < std[noisiest + 1]
    assert [t for t, _ in seen] == [min(t, noisiest) for t in TIMESTEPS]
    # The first thing denoised is √ᾱ A†y: nearly consistent with the data, without noise.
    first = channels_to_complex(seen[0][1]) / math.sqrt(float(ALPHAS[noisiest]))
    assert float((multicoil(first) - y).abs().max()) < 2e-2
    with pytest.raises(InputError, match="raise largest_denoiser_std"):
        solver(largest_denoiser_std=1e-4)(Untouched(), multicoil, y, timesteps=TIMESTEPS)


# DAPS.


def whitened(samples, mean, covariance):
    """Independent complex numbers of unit variance, if mean and covariance are right."""
    root = np.linalg.cholesky(covariance)
    difference = (samples - mean).flatten(1).numpy().astype(np.complex128)
    return np.linalg.solve(root, difference.T)


def test_daps_samples_the_posterior_of_a_white_prior_in_few_steps(matrix, generator):
    """``N(x̂_0, r_t²)`` is then the true p(x_0|x_t), and every x_0 a posterior sample."""
    variance, noise_std, count = 0.7, 0.4, 3000
    prior = GaussianDenoiser(complex_noise((NY, NX), generator), torch.full((NY, NX), variance))
    y = measure(matrix, noise_std, generator)
    solver = DAPS(noise_std, prior_std=math.sqrt(variance), ode_steps=1, cg_iterations=20)
    samples = solver(
        prior, matrix, y.expand(count, -1), timesteps=[900, 500, 50], generator=generator
    )
    z = whitened(samples, *posterior(prior, matrix, y, noise_std))
    assert np.abs(z.mean(1)).max() < 5 / math.sqrt(count)
    empirical = z @ z.conj().T / count
    assert abs(np.trace(empirical).real / len(z) - 1) < 5 / math.sqrt(z.size)
    assert np.abs(empirical - np.eye(len(z))).max() < 5 / math.sqrt(count)
    # Circular: half of the variance in each part, and no correlation between the two.
    assert abs((z**2).mean()) < 5 / math.sqrt(z.size)


def test_daps_with_the_papers_spread_needs_many_steps(prior, matrix, generator):
    noise_std, count = 0.4, 1000
    y = measure(matrix, noise_std, generator)
    solver = DAPS(noise_std, prior_std=math.inf, ode_steps=1)
    samples = solver(
        prior, matrix, y.expand(count, -1), timesteps=list(range(240, 4, -3)), generator=generator
    )
    z = whitened(samples, *posterior(prior, matrix, y, noise_std))
    assert np.abs(z.mean(1)).max() < 0.05 + 5 / math.sqrt(count)
    assert abs((np.abs(z) ** 2).mean() - 1) < 0.1
    eigenvalues = np.linalg.eigvalsh(z @ z.conj().T / count)
    assert 0.6 < eigenvalues[0] < eigenvalues[-1] < 1.6


def test_langevin_draws_the_same_conditional_with_its_known_excess(prior, generator):
    noise_std, prior_std, step, count, t = 0.7, 0.5, 0.2, 2000, 900
    operator = CartesianSense(torch.rand(1, 1, NY, NX, generator=generator) < 0.5)
    y = measure(operator, noise_std, generator)
    latents = torch.randn(1, 2, NY, NX, generator=generator)
    x0_hat = fft2c(channels_to_complex(prior(latents, t)[0]))
    solver = DAPS(noise_std, prior_std, ode_steps=1, langevin_steps=80, langevin_step_size=step)
    samples = solver(
        prior,
        operator,
        y.expand(count, -1, -1, -1),
        timesteps=[t],
        latents=latents.expand(count, -1, -1, -1),
        generator=generator,
    )
    sampled = operator.mask[0, 0]
    alpha_bar = float(ALPHAS[t])
    r_precision = alpha_bar / (1 - alpha_bar) + 1 / prior_std**2
    precision = r_precision + sampled * 2 / noise_std**2
    mean = (r_precision * x0_hat + sampled * 2 / noise_std**2 * y[:, 0])[0] / precision
    h = step / (r_precision + 2 / noise_std**2)
    variance = 1 / (precision * (1 - h * precision / 2))
    coefficients = fft2c(samples)
    error = (coefficients.mean(0) - mean).abs()
    assert float((error / (2 * variance / count).sqrt()).max()) < 5
    ratio = coefficients.real.var(0) / variance
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / count)


# RED-diff.


def test_red_diff_settles_at_the_posterior_mean_of_its_level(prior, matrix, generator):
    std, weight, count = 0.7, 0.25, 128
    noise_std = math.sqrt(2 * weight) * std  # λ σ_t² in each part
    y = measure(matrix, noise_std, generator)
    level, timesteps = at_one_level(prior, std, 400)
    got = REDDiff(prior_weight=weight, learning_rate=0.02)(
        level, matrix, y.expand(count, -1), timesteps=timesteps, generator=generator
    )
    expected, _ = posterior(smoothed(prior, std), matrix, y, noise_std)
    wrong, _ = posterior(smoothed(prior, std), matrix, y, noise_std * math.sqrt(2))
    error = float((got.mean(0) - expected).norm())
    assert error < 0.3 * float((wrong - expected).norm())
    assert error < 0.03 * float(expected.norm())


def test_red_diff_starts_from_the_pseudo_inverse_and_first_noise_given(matrix, generator):
    y = matrix(complex_noise((1, NY, NX), generator))
    latents = torch.randn(1, 2, NY, NX, generator=generator)
    seen = []

    class Watched(Untouched):
        def __call__(self, x_t, t):
            seen.append(x_t)
            return x_t, x_t

    REDDiff(cg_iterations=40)(Watched(), matrix, y, timesteps=[300], latents=latents)
    alpha_bar = float(ALPHAS[300])
    start = np.linalg.pinv(dense(matrix)) @ y[0].numpy()
    expected = (
        math.sqrt(alpha_bar)
        * complex_to_channels(torch.from_numpy(start.astype(np.complex64)).reshape(1, NY, NX))
        + math.sqrt(1 - alpha_bar) * latents
    )
    torch.testing.assert_close(seen[0], expected, atol=1e-3, rtol=0)


# Score-MRI.


def test_score_mri_keeps_the_data_and_draws_the_rest_from_the_prior(prior, generator):
    mask = torch.rand(1, 1, NY, NX, generator=generator) < 0.5
    operator = CartesianSense(mask)
    y = measure(operator, 0.0, generator)
    count = 1000
    samples = ScoreMRI()(
        prior,
        operator,
        y.expand(count, -1, -1, -1),
        timesteps=list(range(990, 0, -30)),
        generator=generator,
    )
    coefficients, measured = fft2c(samples), mask[0, 0]
    torch.testing.assert_close(
        coefficients[:, measured], y[:, 0, measured].expand(count, -1), atol=1e-5, rtol=1e-5
    )
    free = coefficients[:, ~measured]
    error = (free.mean(0) - prior.mean[~measured]).abs()
    standard_error = (2 * prior.variance[~measured] / count).sqrt()
    assert float((error / standard_error).max()) < 5
    ratio = free.real.var(0) / prior.variance[~measured]
    assert 0.85 < float(ratio.mean()) < 1.15


def test_score_mri_alone_is_ancestral_sampling(prior, generator):
    """Without a corrector and with hardly any data step: DDIM at η = 1 with the same noise."""
    from ctxrecon.solvers import ddim_sample

    operator = CartesianSense(torch.ones(1, 1, NY, NX, dtype=torch.bool))
    y = measure(operator, 0.0, generator)
    got = ScoreMRI(corrector_steps=0, data_step=1e-9)(
        prior, operator, y, timesteps=TIMESTEPS, generator=seeded(3)
    )
    expected = ddim_sample(prior, (1, NY, NX), timesteps=TIMESTEPS, eta=1.0, generator=seeded(3))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_corrector_has_the_stated_signal_to_noise_ratio_for_each_sample(generator):
    x, z = torch.zeros(2, 2, 3, 3), torch.randn(2, 2, 3, 3, generator=generator)
    score = (
        torch.randn(2, 2, 3, 3, generator=generator) * torch.tensor([1.0, 9.0])[:, None, None, None]
    )
    signal = ScoreMRI(snr=0.3)._correct(x, score, torch.zeros_like(z) + z)
    for i in range(2):
        size = 2 * (0.3 * float(z[i].norm() / score[i].norm())) ** 2
        expected = size * score[i] + math.sqrt(2 * size) * z[i]
        torch.testing.assert_close(signal[i], expected)
        ratio = size * score[i].norm() / (math.sqrt(2 * size) * z[i].norm())
        assert float(ratio) == pytest.approx(0.3, rel=1e-5)
