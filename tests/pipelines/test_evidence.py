"""Evidence of the data for prompts: the known likelihood ratio, the same numbers in any batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from gaussian import ALPHAS, GaussianDenoiser, complex_noise, seeded

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.inference.evidence import denoising_score, noise_levels, prompt_evidence
from ctxrecon.measurement import Measurement
from ctxrecon.phantom import phantom_scan
from ctxrecon.priors import TextDenoiser

SHAPE = (4, 3)
WIDE = (0.02, 50.0)
PROMPTS = ["brain, T1", "brain, T2", ""]
QUICK: dict[str, Any] = {"num_inference_steps": 2, "num_levels": 3}


def log_likelihood(prior: GaussianDenoiser, images: torch.Tensor) -> torch.Tensor:
    """``log p(x)`` of images ``(batch, ny, nx)`` but for a constant."""
    error = (fft2c(images) - prior.mean).abs().square()
    each = error / (2 * prior.variance) + prior.variance.log()
    return -each.double().flatten(1).sum(dim=1)


def gaussian(seed: int, variance: float | None = None) -> GaussianDenoiser:
    """A Gaussian law of images with one variance or those of random colour."""
    source = seeded(seed)
    mean = 0.5 * complex_noise(SHAPE, source)
    drawn = 0.2 + torch.rand(SHAPE, generator=source)
    return GaussianDenoiser(mean, drawn if variance is None else torch.full(SHAPE, variance))


@pytest.mark.parametrize("variance", [0.6, None])
def test_differences_of_scores_are_the_known_likelihood_ratios(variance):
    """For exact denoisers, up to the error of 64 draws at 60 levels."""
    right, wrong = gaussian(1, variance), gaussian(2, variance)
    source = seeded(3)
    spread = (2 * right.variance).sqrt()
    images = ifft2c(right.mean + spread * complex_noise((6, *SHAPE), source))
    levels, draws = noise_levels(ALPHAS, 60, WIDE), 64
    noise = torch.randn(len(levels) * draws, 2, *SHAPE, generator=source)
    scores = [denoising_score(prior, images, levels, noise) for prior in (right, wrong)]
    ratios = log_likelihood(right, images) - log_likelihood(wrong, images)
    assert float(ratios.abs().mean()) > 2
    torch.testing.assert_close(scores[0] - scores[1], ratios, atol=0.25, rtol=0.03)


def test_common_noise_makes_differences_exact_where_scores_are_not():
    right, wrong = gaussian(1, 0.6), gaussian(2, 0.6)
    images = ifft2c(right.mean[None])
    levels = noise_levels(ALPHAS, 30, WIDE)
    found = []
    for seed in range(20):
        noise = torch.randn(len(levels), 2, *SHAPE, generator=seeded(seed))
        found.append([float(denoising_score(p, images, levels, noise)) for p in (right, wrong)])
    scores = torch.tensor(found, dtype=torch.float64)
    assert float((scores[:, 0] - scores[:, 1]).std()) < 0.5 * float(scores[:, 0].std())


def test_levels_are_even_in_the_logarithm_of_the_noise():
    levels = noise_levels(ALPHAS, 8, (0.1, 5.0))
    alphas = ALPHAS[levels].double()
    noise = ((1 - alphas) / alphas).sqrt()
    assert float(noise[0]) == pytest.approx(5, rel=0.02)
    assert float(noise[-1]) == pytest.approx(0.1, rel=0.05)
    steps = noise.log().diff()
    assert float((steps / steps.mean() - 1).abs().max()) < 0.1
    with pytest.raises(InputError, match="num_levels"):
        noise_levels(ALPHAS, 500, (0.1, 0.2))


@pytest.fixture(scope="module")
def measurement() -> Measurement:
    """Two slices of different brightness whose size is no multiple of the network's."""
    scans = [phantom_scan("brain", shape=(26, 22), generator=seeded(seed)) for seed in (0, 1)]
    mask = torch.zeros(1, 1, 26, 22, dtype=torch.bool)
    mask[..., ::2] = mask[..., 8:14] = True
    kspace = torch.cat([(1 + 9 * n) * scan.kspace for n, scan in enumerate(scans)])
    maps = torch.cat([scan.coil_maps for scan in scans if scan.coil_maps is not None])
    return Measurement.from_arrays(kspace * mask, mask, maps)


def generators() -> list[torch.Generator]:
    return [seeded(5), seeded(6)]


def test_scores_are_the_same_in_any_batch(pipe, measurement):
    together = prompt_evidence(pipe, measurement, PROMPTS, generator=generators(), **QUICK)
    assert together.shape == (2, 3)
    assert together.dtype == torch.float64
    again = prompt_evidence(pipe, measurement, PROMPTS, generator=generators(), **QUICK)
    assert torch.equal(together, again)
    one_by_one = [
        prompt_evidence(pipe, measurement[n], PROMPTS[::-1], generator=g, batch_size=1, **QUICK)
        for n, g in enumerate(generators())
    ]
    torch.testing.assert_close(torch.cat(one_by_one).flip(1), together, rtol=1e-4, atol=1e-2)
    other = prompt_evidence(pipe, measurement, PROMPTS, generator=seeded(9), **QUICK)
    assert not torch.allclose(other, together, rtol=1e-3)


def test_every_slice_may_have_prompts_of_its_own(pipe, measurement):
    own = [["brain, T1", ""], ["brain, T2", ""]]
    found = prompt_evidence(pipe, measurement, own, generator=generators(), **QUICK)
    same = prompt_evidence(pipe, measurement, PROMPTS, generator=generators(), **QUICK)
    expected = torch.stack([same[0, [0, 2]], same[1, [1, 2]]])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)


def test_given_images_are_scored_in_the_units_of_the_prior(pipe, generator):
    """By hand: divided by the scale, under the conditional branch of the network."""
    scan = phantom_scan("brain", shape=(24, 24), num_coils=1, snr=None, generator=generator)
    measurement = Measurement.from_arrays(7 * scan.kspace)
    image = pipe(measurement, num_inference_steps=2).images
    found = prompt_evidence(
        pipe, measurement, PROMPTS, images=image, num_levels=4, num_draws=2, generator=seeded(1)
    )
    child = seeded(int(torch.randint(2**62, (), generator=seeded(1))))
    noise = torch.randn(8, 2, 24, 24, generator=child)
    with torch.no_grad():
        denoiser = TextDenoiser(pipe.unet, pipe.scheduler, pipe.encode_prompt(PROMPTS), None, 1.0)
        levels = noise_levels(pipe.scheduler.alphas_cumprod, 4)
        x = (image / measurement.intensity_scale()).expand(3, -1, -1)
        expected = denoising_score(denoiser, x, levels, noise)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-3)


def test_a_slice_without_signal_speaks_for_no_prompt(pipe, measurement):
    kspace = measurement.y.clone()
    kspace[1] = 0
    silent = Measurement.from_arrays(kspace, measurement.mask, measurement.coil_maps)
    found = prompt_evidence(pipe, silent, PROMPTS, generator=generators(), **QUICK)
    assert torch.equal(found[1], torch.zeros(3, dtype=torch.float64))
    assert bool((found[0] < 0).all())


@pytest.mark.parametrize(
    ("prompts", "options", "word"),
    [
        ("brain, T1", {}, "list of two or more"),
        (["brain, T1"], {}, "two prompts or more"),
        ([], {}, "one list of prompts"),
        ([["a", "b"], ["a", "b", "c"]], {}, "as many for each slice"),
        ([["a", "b"]], {}, "each of the 2 slices"),
        (["brain", 3], {}, "string"),
        (["brain", "TE: -3"], {}, "TE"),
        (PROMPTS, {"num_levels": 1}, "num_levels"),
        (PROMPTS, {"num_draws": 0}, "num_draws"),
        (PROMPTS, {"noise_range": (2.0, 1.0)}, "greatest noise"),
        (PROMPTS, {"noise_range": (0.0, 1.0)}, "least noise"),
        (PROMPTS, {"batch_size": 0}, "batch_size"),
        (PROMPTS, {"generator": [seeded(0)]}, "generator"),
        (PROMPTS, {"images": torch.ones(2, 26, 22)}, "complex images"),
        (PROMPTS, {"images": torch.ones(1, 26, 22, dtype=torch.complex64)}, "shape"),
        (PROMPTS, {"images": math.nan * torch.ones(2, 26, 22, dtype=torch.complex64)}, "finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(pipe, measurement, prompts, options, word):
    with pytest.raises(InputError, match=word):
        prompt_evidence(pipe, measurement, prompts, **(QUICK | options))
