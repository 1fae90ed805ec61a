from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from gaussian import ALPHAS, GaussianDenoiser, complex_noise, random_prior, random_sense

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels, fft2c, ifft2c
from ctxrecon.operators import CartesianSense, Crop
from ctxrecon.solvers import DDS, ddim_sample

NY, NX = 12, 10
TIMESTEPS = [990, 700, 450, 200, 60, 5]


@pytest.fixture
def prior(generator):
    return random_prior((NY, NX), generator)


@pytest.fixture
def multicoil(generator):
    return random_sense((NY, NX), generator)


def reference_dds(network, prediction_type, matrix, y, timesteps, eta, xi, iterations, noises):
    """ContextMRI's equations, one sample, dense matrices in double precision."""
    alphas = ALPHAS.double().numpy()
    noises = iter(noises)
    x_t = next(noises)
    normal = np.eye(matrix.shape[1]) + xi * matrix.conj().T @ matrix
    for i, t in enumerate(timesteps):
        a = alphas[t]
        a_prev = alphas[timesteps[i + 1]] if i + 1 < len(timesteps) else 1.0
        out = network(x_t, t)
        if prediction_type == "epsilon":
            eps = out
        else:
            eps = np.sqrt(a) * out + np.sqrt(1 - a) * x_t
        x = (x_t - np.sqrt(1 - a) * eps) / np.sqrt(a)
        r = x + xi * matrix.conj().T @ y - normal @ x
        p = r
        for _ in range(iterations):
            step = np.vdot(r, r).real / np.vdot(p, normal @ p).real
            x = x + step * p
            r_next = r - step * (normal @ p)
            p = r_next + np.vdot(r_next, r_next).real / np.vdot(r, r).real * p
            r = r_next
        sigma = eta * np.sqrt((1 - a_prev) / (1 - a)) * np.sqrt(1 - a / a_prev)
        x_t = np.sqrt(a_prev) * x + np.sqrt(1 - a_prev - sigma**2) * eps
        if i + 1 < len(timesteps):
            x_t = x_t + sigma * next(noises)
    return x_t


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 0.8])
def test_agrees_with_a_plain_transcription_of_the_paper(prediction_type, eta, multicoil, generator):
    from types import SimpleNamespace

    from ctxrecon.priors import TextDenoiser

    def network(x_t, t):  # smooth, nonlinear, on complex values
        return 0.9 * x_t + 0.3 * (np.tanh(x_t.real) - 1j * np.tanh(x_t.imag)) + 1e-4 * t

    class FakeUNet:
        config = SimpleNamespace(in_channels=2, out_channels=2, block_out_channels=(8,))
        dtype = torch.float32

        def __call__(self, sample, timestep, *, encoder_hidden_states, return_dict):
            value = network(channels_to_complex(sample).numpy(), int(timestep))
            return (complex_to_channels(torch.from_numpy(value.astype(np.complex64))),)

    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type=prediction_type, clip_sample=False
    )
    embeds = torch.zeros(1, 1, 1)
    denoiser = TextDenoiser(FakeUNet(), scheduler, embeds, embeds, 1.0)
    y = multicoil(complex_noise((1, NY, NX), generator))
    source = torch.Generator().manual_seed(7)
    noise_draws = [torch.randn(1, 2, NY, NX, generator=source) for _ in TIMESTEPS]

    got = DDS(eta=eta, data_weight=5.0, cg_iterations=3)(
        denoiser, multicoil, y, timesteps=TIMESTEPS, generator=torch.Generator().manual_seed(7)
    )

    basis = torch.eye(NY * NX, dtype=torch.complex64).reshape(-1, NY, NX)
    matrix = torch.stack([multicoil(e[None]).flatten() for e in basis], dim=1)
    expected = reference_dds(
        network,
        prediction_type,
        matrix.numpy().astype(np.complex128),
        y.flatten().numpy().astype(np.complex128),
        TIMESTEPS,
        eta,
        5.0,
        3,
        [channels_to_complex(z).flatten().numpy().astype(np.complex128) for z in noise_draws],
    )
    error = np.abs(got.flatten().numpy() - expected).max() / np.abs(expected).max()
    assert error < 1e-5


def test_full_noiseless_measurement_is_reproduced_with_a_large_data_weight(prior, generator):
    maps = complex_noise((1, 3, NY, NX), generator)
    maps = maps / maps.abs().square().sum(1, keepdim=True).sqrt()
    operator = CartesianSense(torch.ones(1, 1, NY, NX, dtype=torch.bool), maps)
    truth = complex_noise((2, NY, NX), generator)
    got = DDS(data_weight=1e4)(
        prior, operator, operator(truth), timesteps=TIMESTEPS, generator=generator
    )
    torch.testing.assert_close(got, truth, atol=2e-3, rtol=1e-3)


def expected_moments(prior, y, mask, timesteps, eta, xi):
    """Mean and variance (of each part) of DDS in closed form, each Fourier coefficient alone.

    Prior, mask and DDIM step are all diagonal in Fourier space, so the mean and the variance
    follow scalar recursions. ``AᴴA`` is a projection, so that CG solves
    ``(1 + ξ m) X = X̂_0 + ξ m Y`` exactly.
    """
    mean, c = prior.mean, prior.variance
    x_t, variance = torch.zeros_like(mean), torch.ones_like(c)
    for i, t in enumerate(timesteps):
        a = float(ALPHAS[t])
        a_prev = float(ALPHAS[timesteps[i + 1]]) if i + 1 < len(timesteps) else 1.0
        gain = c * math.sqrt(a) / (a * c + 1 - a)
        x0 = mean + gain * (x_t - math.sqrt(a) * mean)
        eps = (x_t - math.sqrt(a) * x0) / math.sqrt(1 - a)
        x0 = torch.where(mask, (x0 + xi * y) / (1 + xi), x0)
        sigma = eta * math.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
        keep = math.sqrt(1 - a_prev - sigma**2)
        x_t = math.sqrt(a_prev) * x0 + keep * eps
        factor = math.sqrt(a_prev) * gain * torch.where(mask, 1 / (1 + xi), 1.0)
        factor = factor + keep * (1 - math.sqrt(a) * gain) / math.sqrt(1 - a)
        variance = factor**2 * variance + sigma**2
    return x_t, variance


@pytest.mark.parametrize("xi", [1.0, 5.0, 1e3])
def test_linear_gaussian_prior_is_sampled_with_the_right_mean(xi, prior, generator):
    """Unmeasured frequencies keep the prior's mean and spread; measured ones go to y with ξ."""
    mask = torch.rand(1, 1, NY, NX, generator=generator) < 0.4
    operator = CartesianSense(mask)
    draw = prior.variance.sqrt() * complex_noise((1, NY, NX), generator) * math.sqrt(2)
    y = operator(ifft2c(prior.mean + draw))
    timesteps = list(range(990, 0, -20))
    count, eta = 2000, 0.8
    samples = DDS(eta=eta, data_weight=xi)(
        prior, operator, y.expand(count, -1, -1, -1), timesteps=timesteps, generator=generator
    )
    coefficients = fft2c(samples)
    mean = coefficients.mean(0)
    standard_error = coefficients.std(0) / math.sqrt(count) + 1e-5
    measured, target = mask[0, 0], y[0, 0]

    recursion, spread = expected_moments(prior, target, measured, timesteps, eta, xi)
    assert float(((mean - recursion).abs() / standard_error).max()) < 5
    # A sample variance of `count` draws has the relative standard deviation √(2 / count).
    ratio = coefficients.real.var(0) / spread
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / count)

    # The posterior of an unmeasured coefficient is its prior, up to the start at √ᾱ > 0.
    free = ~measured
    start = math.sqrt(float(ALPHAS[timesteps[0]])) * prior.mean.abs()
    deviation = (mean - prior.mean).abs()[free]
    assert bool((deviation < 5 * standard_error[free] + start[free]).all())
    # Fifty steps of DDIM narrow the prior a little: a discretisation error of order 1 / steps.
    assert 0.9 < float((spread / prior.variance)[free].mean()) <= 1

    # A measured one moves from the prior's mean towards y: at most 1 / (1 + ξ) of the way is left.
    left = (recursion - target).abs()[measured] / (prior.mean - target).abs()[measured]
    assert float(left.max()) < 1 / (1 + xi)


def test_same_seeds_batched_or_one_by_one(prior, multicoil, generator):
    y = multicoil(complex_noise((3, NY, NX), generator))

    def seeded(seed):
        return torch.Generator().manual_seed(seed)

    together = DDS()(
        prior, multicoil, y, timesteps=TIMESTEPS, generator=[seeded(s) for s in range(3)]
    )
    for index in range(3):
        alone = DDS()(
            prior, multicoil, y[index : index + 1], timesteps=TIMESTEPS, generator=seeded(index)
        )
        torch.testing.assert_close(alone[0], together[index], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[0], together[1])


def test_composes_with_a_crop(generator):
    operator = CartesianSense(torch.ones(1, 1, 7, 5, dtype=torch.bool)) @ Crop((1, 8, 8), (7, 5))
    prior = GaussianDenoiser(torch.zeros(8, 8, dtype=torch.complex64), torch.ones(8, 8))
    truth = complex_noise((1, 7, 5), generator)
    y = fft2c(truth)[:, None]
    image = DDS(data_weight=1e4)(prior, operator, y, timesteps=TIMESTEPS, generator=generator)
    assert image.shape == (1, 8, 8)
    torch.testing.assert_close(Crop((1, 8, 8), (7, 5))(image), truth, atol=2e-3, rtol=1e-3)


def test_callback_sees_each_step_and_may_replace_the_latents(prior, multicoil, generator):
    y = multicoil(complex_noise((1, NY, NX), generator))
    seen = []

    def watch(step, t, latents, x0):
        seen.append((step, t, tuple(latents.shape), tuple(x0.shape)))
        return torch.zeros_like(latents)

    changed = DDS(eta=0.0)(
        prior, multicoil, y, timesteps=TIMESTEPS, generator=generator, callback=watch
    )
    assert [entry[:2] for entry in seen] == list(enumerate(TIMESTEPS))
    assert seen[0][2:] == ((1, 2, NY, NX), (1, NY, NX))
    restarted = DDS(eta=0.0)(
        prior, multicoil, y, timesteps=TIMESTEPS[-1:], latents=torch.zeros(1, 2, NY, NX)
    )
    torch.testing.assert_close(changed, restarted)


def test_unconditional_ddim_draws_the_prior(prior, generator):
    timesteps, count = list(range(995, 0, -20)), 2000
    samples = ddim_sample(prior, (count, NY, NX), timesteps=timesteps, eta=1.0, generator=generator)
    coefficients = fft2c(samples)
    nothing = torch.zeros(NY, NX, dtype=torch.bool)
    mean, variance = expected_moments(prior, 0.0, nothing, timesteps, 1.0, 1.0)
    assert float((mean - prior.mean).abs().max()) < 0.05
    assert float((coefficients.mean(0) - mean).abs().max()) < 5 * math.sqrt(2 * 1.2 / count)
    ratio = coefficients.imag.var(0) / variance
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / count)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"eta": 1.2}, "eta between 0 and 1"),
        ({"eta": float("nan")}, "eta between 0 and 1"),
        ({"data_weight": 0.0}, "positive data_weight"),
        ({"data_weight": float("inf")}, "positive data_weight"),
        ({"cg_iterations": 0}, "cg_iterations"),
        ({"cg_iterations": 2.5}, "cg_iterations"),
    ],
)
def test_bad_settings(settings, sentence):
    with pytest.raises(InputError, match=sentence):
        DDS(**settings)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"y": torch.zeros(1, 2, NY, NX, dtype=torch.complex64)}, "does not fit"),
        ({"y": torch.zeros(1, 3, NY, NX)}, "complex64 measurement"),
        ({"timesteps": []}, "at least one timestep"),
        ({"timesteps": [10, 20]}, "strictly descending"),
        ({"timesteps": [1000, 20]}, "from 0 to 999"),
        ({"latents": torch.zeros(1, 2, 4, 4)}, "latents of shape"),
        ({"generator": [torch.Generator()] * 2}, "1 samples"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_loop(change, sentence, multicoil):
    class Untouched:
        alphas_cumprod, size_multiple = ALPHAS, 1

        def __call__(self, x_t, t):
            raise AssertionError("the loop was entered")

    call = {"y": torch.zeros(1, 3, NY, NX, dtype=torch.complex64), "timesteps": [10]} | change
    with pytest.raises(InputError, match=sentence):
        DDS()(Untouched(), multicoil, call.pop("y"), **call)


def test_batches_and_sizes_that_do_not_fit(prior, generator):
    two = CartesianSense(torch.ones(2, 1, NY, NX, dtype=torch.bool))
    y = complex_noise((3, 1, NY, NX), generator)
    with pytest.raises(InputError, match="batch 3 and the operator 2"):
        DDS()(prior, two, y, timesteps=[10])
    prior.size_multiple = 8
    with pytest.raises(InputError, match=r"multiples of 8.* got 12x10: pad"):
        DDS()(prior, two, y[:2], timesteps=[10])
