"""Plug-and-play that starts with half of the pixels."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian import (
    ALPHAS,
    GaussianDenoiser,
    complex_noise,
    posterior,
    random_sense,
    seeded,
)

from ctxrecon.fourier import fft2c
from ctxrecon.operators import CartesianSense, Crop, EachSet, Identity
from ctxrecon.priors.denoiser import SetDenoiser
from ctxrecon.solvers import PnPADMM, PnPHQS, _resolution
from ctxrecon.solvers._shared import proximal_step

FULL, HALF = (12, 10), (6, 6)
TIMESTEPS = [990, 700, 450, 200, 60, 5]
STD = ((1 - ALPHAS) / ALPHAS).sqrt()


@pytest.fixture(autouse=True)
def small_images(monkeypatch):
    monkeypatch.setattr(_resolution, "_FEWEST_PIXELS", 6)


class Shapes(GaussianDenoiser):
    """A white prior for images of any size that records its calls."""

    size_multiple = 2

    def __init__(self) -> None:
        self.alphas_cumprod = ALPHAS
        self.seen: list[tuple[int, tuple[int, ...]]] = []

    def __call__(self, x_t, t):
        self.seen.append((t, tuple(x_t.shape[2:])))
        a = float(ALPHAS[t])
        x0 = x_t * math.sqrt(a)  # unit variance of each part
        return x0, (x_t - math.sqrt(a) * x0) / math.sqrt(1 - a)


def measurement(seed: int) -> tuple[CartesianSense, torch.Tensor]:
    generator = seeded(seed)
    operator = random_sense(FULL, generator)
    return operator, operator(complex_noise((1, *FULL), generator))


@pytest.mark.parametrize("solver", [PnPHQS, PnPADMM])
def test_much_noise_means_few_pixels(solver):
    operator, y = measurement(0)
    denoiser = Shapes()
    made = solver(largest_denoiser_std=1.0, coarse_denoiser_std=0.3)
    image = made(denoiser, operator, y, timesteps=TIMESTEPS)
    assert image.shape == (1, *FULL)
    assert [shape for _, shape in denoiser.seen] == [
        HALF if STD[t] > 0.3 else FULL for t, _ in denoiser.seen
    ]
    assert {shape for _, shape in denoiser.seen} == {HALF, FULL}
    denoiser.seen.clear()
    solver(coarse_denoiser_std=math.inf)(denoiser, operator, y, timesteps=TIMESTEPS)
    assert {shape for _, shape in denoiser.seen} == {FULL}


@pytest.mark.parametrize("solver", [PnPHQS, PnPADMM])
def test_all_timesteps_of_much_noise_still_give_all_pixels(solver):
    operator, y = measurement(1)
    image = solver(coarse_denoiser_std=0.01)(Shapes(), operator, y, timesteps=[990, 700])
    assert image.shape == (1, *FULL)
    high = fft2c(image) - Crop((1, *FULL), HALF).H(Crop((1, *FULL), HALF)(fft2c(image)))
    assert float(high.abs().max()) > 1e-2  # what was measured beyond the coarse band is there


def test_admm_still_ends_at_the_map_estimate():
    operator, y = measurement(2)
    white = GaussianDenoiser(
        torch.zeros(FULL, dtype=torch.complex64), torch.ones(FULL, dtype=torch.float32)
    )
    expected, _ = posterior(white, operator, y, 0.3)
    solver = PnPADMM(
        noise_std=0.3, largest_denoiser_std=1.0, coarse_denoiser_std=0.9, cg_iterations=20
    )
    # Some steps with few pixels, then many at a constant level with all of them.
    few = int((STD <= 1.0).nonzero()[-1])
    denoiser = Shapes()
    level = int((STD <= 0.85).nonzero()[-1])
    timesteps = [*range(few + 3, few - 1, -1), *range(level, level - 150, -1)]
    got = solver(denoiser, operator, y, timesteps=timesteps)
    assert {shape for _, shape in denoiser.seen} == {HALF, FULL}
    torch.testing.assert_close(got, expected, atol=5e-3, rtol=0)


def test_callbacks_see_all_pixels_and_may_change_them():
    operator, y = measurement(3)
    seen = []

    def watch(_step, _t, latents, image):
        seen.append((latents.shape, image.shape))

    def clear(_step, _t, latents, _image):
        return torch.zeros_like(latents)

    solver = PnPADMM(largest_denoiser_std=1.0)
    plain = solver(Shapes(), operator, y, timesteps=TIMESTEPS)
    watched = solver(Shapes(), operator, y, timesteps=TIMESTEPS, callback=watch)
    assert seen == [((1, 2, *FULL), (1, *FULL))] * len(TIMESTEPS)
    torch.testing.assert_close(watched, plain, rtol=1e-4, atol=1e-5)
    cleared = solver(Shapes(), operator, y, timesteps=TIMESTEPS, callback=clear)
    assert float((cleared - plain).abs().max()) > 1e-2


def test_sets_of_maps_keep_to_themselves():
    denoiser = SetDenoiser(Shapes(), 2)
    stage, full = _resolution.stages(denoiser, EachSet(Identity((1, *FULL)), 2), proximal)
    assert stage.shape == (2 * HALF[0], HALF[1])
    assert full.shape == (2 * FULL[0], FULL[1])
    x = torch.zeros(1, *stage.shape, dtype=torch.complex64)
    x[:, : HALF[0]] = 1
    fine = stage.refined(x)
    torch.testing.assert_close(fine[:, : FULL[0]], torch.ones(1, *FULL, dtype=torch.complex64))
    assert float(fine[:, FULL[0] :].abs().max()) < 1e-6
    torch.testing.assert_close(stage.restricted(fine), x, rtol=1e-5, atol=1e-6)


def proximal(operator):
    """The data step of measurements of zero."""
    y = torch.zeros(operator.range_shape, dtype=torch.complex64)
    return proximal_step(operator, y, cg_iterations=5, tolerance=0.0)


@pytest.mark.parametrize(
    ("shape", "coarse"),
    [
        ((256, 256), (128, 128)),
        ((232, 184), (120, 96)),
        ((232, 176), None),
        ((368, 200), (184, 104)),
        ((128, 256), None),
    ],
)
def test_pixels_of_a_coarse_image(monkeypatch, shape, coarse):
    monkeypatch.setattr(_resolution, "_FEWEST_PIXELS", 96)
    denoiser = Shapes()
    denoiser.size_multiple = 8
    stage, full = _resolution.stages(denoiser, Identity((1, *shape)), proximal)
    if coarse is None:
        assert stage is full
    else:
        assert stage.shape == coarse
    assert full.shape == shape
