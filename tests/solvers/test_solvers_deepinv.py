"""DPS and DiffPIR compared with deepinv: same denoiser, same seeds, same results."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch

from ctxrecon.fourier import channels_to_complex
from ctxrecon.operators import CartesianSense
from ctxrecon.solvers import DPS, DiffPIR

deepinv: Any = pytest.importorskip("deepinv")

NY, NX = 8, 6


def denoise(x, sigma):
    """A nonlinear denoiser of ``x_0 + σ n``; small, so that deepinv's clipping to [−1, 1] rests."""
    neighbors = torch.roll(x, 1, dims=-1) + torch.roll(x, 1, dims=-2)
    return 0.3 * torch.tanh((x + 0.2 * neighbors) / (1 + sigma))


def keep_latents(reached, step, t, latents, x0):
    reached.append(latents)


class OurDenoiser:
    size_multiple = 1

    def __init__(self, alphas_cumprod):
        self.alphas_cumprod = alphas_cumprod

    def __call__(self, x_t, t):
        a = float(self.alphas_cumprod[t])
        x0 = denoise(x_t / math.sqrt(a), math.sqrt((1 - a) / a))
        return x0, (x_t - math.sqrt(a) * x0) / math.sqrt(1 - a)


class TheirDenoiser(deepinv.models.Denoiser):
    """The same; ``unit`` for images in [0, 1], as deepinv's DiffPIR has them."""

    def __init__(self, unit=False):
        super().__init__()
        self.unit = unit

    def forward(self, x, sigma, **kwargs):
        if self.unit:
            return denoise(2 * x - 1, 2 * sigma) / 2 + 0.5
        return denoise(x, sigma)


@pytest.fixture
def problem(generator):
    mask = torch.zeros(1, 1, NY, NX, dtype=torch.bool)
    mask[..., 1:4] = True
    physics = deepinv.physics.MRI(mask=mask.float(), img_size=(2, NY, NX))
    x = 0.3 * torch.randn(1, 2, NY, NX, generator=generator)
    return physics, CartesianSense(mask), x


def measurement(y):
    return channels_to_complex(y)[:, None]


def test_the_operators_are_the_same(problem):
    physics, operator, x = problem
    torch.testing.assert_close(measurement(physics.A(x)), operator(channels_to_complex(x)))


def test_dps_step_by_step(problem, generator):
    # deepinv adds −w ∇‖y − A x̂_0‖ to the score, so that an ancestral step scales it by
    # √(ᾱ_{t−1}/ᾱ_t) (1 − ᾱ_t/ᾱ_{t−1}); the paper, and we, take ζ ∇‖y − A x̂_0‖ off x_{t−1} whatever
    # the step. With ζ set to that factor each step is the same. It is deepinv's
    # variance-preserving SDE with DDPM steps that matches the paper; its schedule is continuous,
    # ours has its values at the steps.
    physics, operator, x = problem
    y, count, weight, seed = physics.A(x), 6, 3.0, 5
    theirs = deepinv.sampling.DPS(
        TheirDenoiser(),
        num_steps=count,
        weight=weight,
        dtype=torch.float32,
        rng=torch.Generator(),
        minus_one_one=False,
    )
    start = torch.randn(x.shape, generator=generator)
    _, trajectory = theirs(y, physics, x_init=start.clone(), seed=seed, get_trajectory=True)

    times = torch.linspace(1, 0, count)
    alphas_bar = torch.stack([theirs.sde.scale_t(t) for t in times]).square().flip(0)
    ours, source = OurDenoiser(alphas_bar), torch.Generator().manual_seed(seed)
    for index in range(count - 1):
        t = count - 1 - index
        a, a_prev = float(alphas_bar[t]), float(alphas_bar[t - 1])
        zeta = weight * math.sqrt(a_prev / a) * (1 - a / a_prev)
        reached: list[torch.Tensor] = []
        image = DPS(zeta=zeta)(
            ours,
            operator,
            measurement(y),
            timesteps=[t, t - 1] if t > 1 else [t],
            latents=trajectory[index].detach(),
            generator=source,
            callback=functools.partial(keep_latents, reached),
        )
        torch.testing.assert_close(reached[0], trajectory[index + 1], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(image, channels_to_complex(trajectory[-1]), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("zeta", [0.0, 0.4])
def test_diffpir(zeta, problem, monkeypatch):
    # deepinv's images are in [0, 1] inside and its σ counts there, while its σ̄_t is that of images
    # in [−1, 1]. Its proximal step has 1/(2ρ_t) for the weight of ½‖A x − y‖², which is 2ρ_t in
    # the paper's objective and ours: λ here is twice theirs. Our noise_std is that of a complex
    # sample, √2 times that of a part. It starts from the noised Aᴴy at the first timestep (the
    # paper from noise), and ends at x_t of the last one, after which we denoise once more.
    physics, operator, x = problem
    sigma, lambda_, count, seed = 0.05, 5.0, 6, 11
    ones = torch.ones_like(x)
    y_unit = physics.A((x + ones) / 2)
    theirs = deepinv.sampling.DiffPIR(
        TheirDenoiser(unit=True),
        deepinv.optim.data_fidelity.L2(),
        sigma=sigma,
        max_iter=count,
        zeta=zeta,
        lambda_=lambda_,
    )
    # randn_like fills memory in order, and deepinv's tensors are permuted views.
    monkeypatch.setattr(torch, "randn_like", lambda tensor: torch.randn(tensor.shape))
    with torch.random.fork_rng():
        # In double precision: its proximal step divides rounding errors by 2ρ_t, here 1e-6.
        expected = 2 * theirs(y_unit.double(), physics, seed=seed).float() - 1

    alphas_bar = theirs.sqrt_alphas_cumprod.square()
    timesteps = [999 - int(index) for index in theirs.seq]
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(x.shape, generator=source)
    a = float(alphas_bar[timesteps[0]])
    start = 2 * physics.A_adjoint(y_unit) - 1 + math.sqrt((1 - a) / a - 4 * sigma**2) * noise
    reached = []
    DiffPIR(noise_std=math.sqrt(2) * sigma, lambda_=2 * lambda_, zeta=zeta, tolerance=1e-6)(
        OurDenoiser(alphas_bar),
        operator,
        measurement(2 * y_unit - physics.A(ones)),
        timesteps=timesteps,
        latents=math.sqrt(a) * start,
        generator=source,
        callback=lambda step, t, latents, x0: reached.append(latents),
    )
    torch.testing.assert_close(reached[-2], expected, atol=1e-4, rtol=1e-3)
