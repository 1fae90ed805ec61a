"""DDNM, DPS, ΠGDM and DiffPIR on linear-Gaussian problems.

References of each solver:

- DDNM: ``A x = y`` without noise; the correction equals that of a dense pseudo-inverse; the whole
  loop equals a transcription of the paper in its DDPM form. DDNM+: the noise of ``x_{t−1}`` adds up
  to σ_t².
- DPS: its gradient, in closed form and by finite differences. Its ``x_0`` does not have the moments
  of the posterior, because the step is normalized for any noise. Unmeasured coefficients keep the
  prior's distribution.
- ΠGDM: for a prior of unit covariance, the guided image of a step is ``E[x_0 | x_t, y]``, and the
  loop without adaptive weights ends at the posterior's mean and covariance.
- DiffPIR: the proximal step is the mean of a posterior; the whole loop equals a transcription.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gaussian import (
    ALPHAS,
    GaussianDenoiser,
    complex_noise,
    dense,
    posterior,
    random_prior,
    two_lines,
)
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels, fft2c, ifft2c
from ctxrecon.operators import CartesianSense
from ctxrecon.solvers import DDNM, DPS, DiffPIR, PiGDM, ddim_sample

NY, NX = 6, 5
TIMESTEPS = [960, 700, 450, 200, 60, 5]
EXACT: dict[str, Any] = {"cg_iterations": 200, "tolerance": 1e-6}


@pytest.fixture
def prior(generator):
    return random_prior((NY, NX), generator)


@pytest.fixture
def white(generator):
    """The prior for which ΠGDM's r_t² is right: unit variance in each channel."""
    return GaussianDenoiser(complex_noise((NY, NX), generator), torch.ones(NY, NX))


@pytest.fixture
def multicoil(generator):
    """Two coils, two of five columns: 24 equations for 30 unknowns, no projection."""
    return two_lines((NY, NX), generator)


@pytest.fixture
def single_coil():
    mask = torch.zeros(1, 1, NY, NX, dtype=torch.bool)
    mask[..., 1:4] = True
    return CartesianSense(mask)


class Network(torch.nn.Module):
    """A nonlinear denoiser with parameters."""

    alphas_cumprod, size_multiple = ALPHAS, 1

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 2, 3, padding=1)
        with torch.no_grad():
            values = torch.linspace(-0.4, 0.6, self.conv.weight.numel())
            self.conv.weight.copy_(values.reshape(self.conv.weight.shape))
            present(self.conv.bias).fill_(0.1)

    def forward(self, x_t, t):
        x0 = 0.5 * x_t + torch.tanh(self.conv(x_t))
        a = float(ALPHAS[t])
        return x0, (x_t - math.sqrt(a) * x0) / math.sqrt(1 - a)


def denoised(denoiser, x_t, t):
    return channels_to_complex(denoiser(x_t, t)[0])


def numpy_image(x):
    return x.flatten().numpy().astype(np.complex128)


def torch_image(x):
    return torch.from_numpy(x.reshape(1, NY, NX).astype(np.complex64))


# --- DDNM and DiffPIR: projections and proximal steps -------------------------------------------


@pytest.mark.parametrize("solver", [DDNM(**EXACT), DiffPIR(noise_std=0.0, **EXACT)])
def test_without_noise_the_correction_is_that_of_the_pseudo_inverse(
    solver, prior, multicoil, generator
):
    y = complex_noise((1, 2, NY, NX), generator)  # outside the range: a least-squares solution
    x_t = torch.randn(1, 2, NY, NX, generator=generator)
    got = solver(prior, multicoil, y, timesteps=[300], latents=x_t)
    x0, matrix = numpy_image(denoised(prior, x_t, 300)), dense(multicoil)
    expected = x0 + np.linalg.pinv(matrix, rcond=1e-5) @ (numpy_image(y) - matrix @ x0)
    assert np.linalg.matrix_rank(matrix) < matrix.shape[1]
    assert np.abs(numpy_image(got) - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("solver", [DDNM(**EXACT), DiffPIR(noise_std=0.0, **EXACT)])
def test_without_noise_the_measurement_is_met(solver, prior, multicoil, generator):
    y = multicoil(complex_noise((2, NY, NX), generator))
    x = solver(prior, multicoil, y, timesteps=TIMESTEPS, generator=generator)
    assert float((multicoil(x) - y).norm() / y.norm()) < 1e-4
    assert float((x[0] - x[1]).abs().max()) > 0.1


@pytest.mark.parametrize("noise_std", [0.01, 0.5])
def test_diffpir_proximal_step_is_a_posterior_mean(noise_std, prior, multicoil, generator):
    # argmin ‖y − A x‖² + ρ ‖x − x̂_0‖² with ρ = λ σ_n²/σ̄² is the mean of x given y if
    # x ~ N(x̂_0, σ̄²/λ in each part) and each part of the noise has the variance noise_std²/2.
    y = complex_noise((1, 2, NY, NX), generator).masked_fill(~multicoil.mask, 0)
    x_t, t = torch.randn(1, 2, NY, NX, generator=generator), 300
    a = float(ALPHAS[t])
    solver = DiffPIR(noise_std=noise_std, lambda_=4.0, **EXACT)
    got = solver(prior, multicoil, y, timesteps=[t], latents=x_t)
    belief = GaussianDenoiser(
        denoised(prior, x_t, t)[0], torch.full((NY, NX), (1 - a) / a / solver.lambda_)
    )
    expected, _ = posterior(belief, multicoil, y, noise_std)
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)


def transcription(solver, prior, matrix, y, draws):
    """DDNM(+) in the paper's DDPM form, or DiffPIR: dense, in double precision."""
    alphas, draws = ALPHAS.double().numpy(), iter(draws)
    x_t = next(draws)
    level = solver.default_noise_std if solver.noise_std is None else solver.noise_std
    variance = level**2 / 2
    for t, a_prev in zip(TIMESTEPS, [*alphas[TIMESTEPS[1:]], 1.0], strict=True):
        a = alphas[t]
        x = numpy_image(denoised(prior, complex_to_channels(torch_image(x_t)), t))
        if isinstance(solver, DDNM):
            beta = 1 - a / a_prev
            sigma2 = (1 - a_prev) / (1 - a) * beta
            a_t = math.sqrt(a_prev) * beta / (1 - a)
            scale = 1.0
            if sigma2 < a_t**2 * variance:
                scale = math.sqrt(sigma2 / (a_t**2 * variance))
            gamma = max(sigma2 - (a_t * scale) ** 2 * variance, 0.0)
            x = x + scale * np.linalg.pinv(matrix, rcond=1e-5) @ (y - matrix @ x)
            x_t = a_t * x + math.sqrt(a / a_prev) * (1 - a_prev) / (1 - a) * x_t
        else:
            rho = solver.lambda_ * variance * a / (1 - a)
            normal = matrix.conj().T @ matrix + rho * np.eye(matrix.shape[1])
            x = np.linalg.solve(normal, matrix.conj().T @ y + rho * x)
            eps = (x_t - math.sqrt(a) * x) / math.sqrt(1 - a)
            x_t = math.sqrt(a_prev) * x + math.sqrt((1 - a_prev) * (1 - solver.zeta)) * eps
            gamma = (1 - a_prev) * solver.zeta
        if gamma > 0:
            x_t = x_t + math.sqrt(gamma) * next(draws)
    return x


@pytest.mark.parametrize(
    "solver",
    [DDNM(**EXACT), DDNM(noise_std=0.3, **EXACT), DiffPIR(0.2, **EXACT), DiffPIR(0.2, zeta=1.0)],
)
def test_walk_is_the_papers(solver, prior, multicoil, generator):
    y = multicoil(complex_noise((1, NY, NX), generator))
    source = torch.Generator().manual_seed(7)
    draws = [
        numpy_image(channels_to_complex(torch.randn(1, 2, NY, NX, generator=source)))
        for _ in TIMESTEPS
    ]
    got = solver(
        prior, multicoil, y, timesteps=TIMESTEPS, generator=torch.Generator().manual_seed(7)
    )
    expected = transcription(solver, prior, dense(multicoil), numpy_image(y), draws)
    assert np.abs(numpy_image(got) - expected).max() < 2e-3 * np.abs(expected).max()


@pytest.mark.parametrize("noise_std", [0.1, 3.0])
def test_ddnm_plus_counts_the_noise_of_the_measurement(noise_std, generator):
    # One coil, fully sampled: A† leaves the noise as it is, so that in each channel the noise of y
    # in x_{t−1} and the new noise add up to σ_t², whether λ_t is 1 (small noise) or less.
    count, size, t, t_prev = 2000, 4, 300, 200
    operator = CartesianSense(torch.ones(1, 1, size, size, dtype=torch.bool))
    white = GaussianDenoiser(torch.zeros(size, size, dtype=torch.complex64), torch.ones(size, size))
    y = noise_std * complex_noise((count, 1, size, size), generator)
    seen = []
    DDNM(noise_std=noise_std)(
        white,
        operator,
        y,
        timesteps=[t, t_prev],
        latents=torch.zeros(count, 2, size, size),
        generator=generator,
        callback=lambda step, t, latents, x0: seen.append(latents),
    )
    a, a_prev = float(ALPHAS[t]), float(ALPHAS[t_prev])
    expected = (1 - a_prev) / (1 - a) * (1 - a / a_prev)
    assert float(seen[0].var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / y.numel() / 2))


# --- ΠGDM -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
def test_pigdm_step_is_the_posterior_mean_for_a_unit_prior(noise_std, white, multicoil, generator):
    x_t, t = torch.randn(1, 2, NY, NX, generator=generator), 500
    y = multicoil(complex_noise((1, NY, NX), generator))
    a = float(ALPHAS[t])
    x0 = denoised(white, x_t, t)
    # x_0 given x_t is N(x̂_0, 1 − ᾱ_t in each part), here exactly.
    belief = GaussianDenoiser(x0[0], torch.full((NY, NX), 1 - a))
    expected, _ = posterior(belief, multicoil, y, max(noise_std, 1e-4))

    def guided(adaptive_weights):
        solver = PiGDM(noise_std, adaptive_weights=adaptive_weights, **EXACT)
        return solver(white, multicoil, y, timesteps=[t], latents=x_t)

    torch.testing.assert_close(guided(False), expected, atol=2e-3, rtol=2e-3)
    # √ᾱ_t in place of 1/√ᾱ_t.
    torch.testing.assert_close(guided(True), x0 + a * (expected - x0), atol=2e-3, rtol=2e-3)


def test_pigdm_walk_ends_at_the_posterior_of_a_unit_prior(white, single_coil, generator):
    noise_std = 0.5
    y = single_coil(complex_noise((1, NY, NX), generator))
    y = (y + noise_std * complex_noise(y.shape, generator)).masked_fill(~single_coil.mask, 0)
    # At η = 0 the loop maps x_T to m + G x_T, and G is diagonal in Fourier space: zeros yield the
    # mean, ones the standard deviation of each coefficient.
    ones = ifft2c(torch.ones(1, NY, NX, dtype=torch.complex64))
    x = PiGDM(noise_std, eta=0.0, adaptive_weights=False)(
        white,
        single_coil,
        y.expand(2, -1, -1, -1),
        timesteps=list(range(985, 0, -12)),
        latents=complex_to_channels(torch.cat([torch.zeros_like(ones), ones])),
    )
    mean, covariance = posterior(white, single_coil, y, noise_std)
    in_fourier = fft2c(torch.eye(NY * NX, dtype=torch.complex64).reshape(-1, NY, NX))
    fourier = in_fourier.reshape(NY * NX, -1).T.numpy()
    variance = np.diag(fourier @ covariance @ fourier.conj().T).real.reshape(NY, NX) / 2
    start = math.sqrt(float(ALPHAS[985])) * float(mean.abs().max())  # x_T has this mean, not 0
    assert float((x[0] - mean[0]).abs().max()) < 0.03 + start
    gain = fft2c(x[1] - x[0]).abs().numpy()
    np.testing.assert_allclose(gain**2, variance, rtol=0.08)
    assert variance.min() < 0.2  # a measured coefficient: 1 / (1 + 2/0.5²)
    assert variance.max() > 0.99


def test_pigdm_gradient_by_finite_differences(multicoil, generator):
    network, t, noise_std = Network(), 200, 0.2
    a = float(ALPHAS[t])
    x_t = torch.randn(1, 2, NY, NX, generator=generator)
    y = multicoil(complex_noise((1, NY, NX), generator))
    with torch.no_grad():
        got = PiGDM(noise_std, **EXACT)(network, multicoil, y, timesteps=[t], latents=x_t)
        x0 = denoised(network, x_t, t)
        matrix = dense(multicoil)
        covariance = (1 - a) * matrix @ matrix.conj().T + noise_std**2 / 2 * np.eye(len(matrix))
        u = matrix.conj().T @ np.linalg.solve(covariance, numpy_image(y) - matrix @ numpy_image(x0))
        g = complex_to_channels((got - x0) / (math.sqrt(a) * (1 - a)))
        v = torch.randn(x_t.shape, generator=generator)
        ahead, behind = (denoised(network, x_t + h * v, t) for h in (0.01, -0.01))
    expected = np.vdot(u, numpy_image(ahead - behind)).real / 0.02
    assert float((g * v).sum()) == pytest.approx(expected, rel=0.01)


def test_pigdm_score_needs_some_signal(white, multicoil):
    y = torch.zeros(1, 2, NY, NX, dtype=torch.complex64)
    with pytest.raises(InputError, match=r"of 0\.0001 or more, got 2\.4e-09"):
        PiGDM(adaptive_weights=False)(white, multicoil, y, timesteps=[999, 500])
    assert PiGDM()(white, multicoil, y, timesteps=[999, 500]).isfinite().all()


# --- DPS ------------------------------------------------------------------------------------------


def test_dps_step_in_closed_form(prior, multicoil, generator):
    x_t, t, t_prev, zeta = torch.randn(2, 2, NY, NX, generator=generator), 500, 400, 0.7
    y = complex_noise((2, 2, NY, NX), generator).masked_fill(~multicoil.mask, 0)
    y[1] *= 10
    a = float(ALPHAS[t])
    gain = prior.variance * math.sqrt(a) / (a * prior.variance + 1 - a)  # ∂x̂_0/∂x_t, in Fourier
    residual = y - multicoil(denoised(prior, x_t, t))
    norms = residual.flatten(1).norm(dim=1)[:, None, None]
    gradient = -ifft2c(gain * fft2c(multicoil.adjoint(residual))) / norms
    seen = []
    for solver in (DPS(zeta=zeta), DPS(zeta=1e-12)):
        solver(
            prior,
            multicoil,
            y,
            timesteps=[t, t_prev],
            latents=x_t,
            generator=torch.Generator().manual_seed(3),
            callback=lambda step, t, latents, x0: seen.append(latents),
        )
    shift = channels_to_complex(seen[0] - seen[2])
    torch.testing.assert_close(shift, -zeta * gradient, atol=1e-5, rtol=1e-4)


def test_dps_gradient_by_finite_differences_without_touching_the_network(multicoil, generator):
    network, t = Network(), 200
    x_t = torch.randn(1, 2, NY, NX, generator=generator)
    y = multicoil(complex_noise((1, NY, NX), generator))
    with torch.no_grad():
        got = DPS(zeta=1.0)(network, multicoil, y, timesteps=[t], latents=x_t)
        gradient = complex_to_channels(denoised(network, x_t, t) - got)
        v = torch.randn(x_t.shape, generator=generator)
        ahead, behind = (
            float((y - multicoil(denoised(network, x_t + h * v, t))).norm()) for h in (0.01, -0.01)
        )
    assert float((gradient * v).sum()) == pytest.approx((ahead - behind) / 0.02, rel=0.01)
    assert not got.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())


def test_dps_leaves_alone_what_is_not_measured(prior, single_coil, generator):
    y = single_coil(complex_noise((1, NY, NX), generator))

    def seeded():
        return torch.Generator().manual_seed(5)

    guided = DPS(zeta=1.0)(prior, single_coil, y, timesteps=TIMESTEPS, generator=seeded())
    free = ddim_sample(prior, (1, NY, NX), timesteps=TIMESTEPS, eta=1.0, generator=seeded())
    free_too = ~single_coil.mask[0].expand(1, NY, NX)
    torch.testing.assert_close(fft2c(guided)[free_too], fft2c(free)[free_too], atol=1e-5, rtol=1e-5)
    assert float((single_coil(guided) - y).norm()) < 0.5 * float((single_coil(free) - y).norm())


def test_dps_stands_still_where_the_measurement_is_met(prior, multicoil, generator):
    x_t = torch.randn(1, 2, NY, NX, generator=generator)
    x0 = denoised(prior, x_t, 300)
    got = DPS()(prior, multicoil, multicoil(x0), timesteps=[300], latents=x_t)
    torch.testing.assert_close(got, x0)
