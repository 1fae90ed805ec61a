"""Starting from an estimate of the image in place of noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gaussian import ALPHAS, seeded
from narrow import images_of

from ctxrecon.baselines import l1_wavelet
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex
from ctxrecon.inference.warm_start import noised_image, remaining_timesteps
from ctxrecon.operators import CartesianSense, sense_operator
from ctxrecon.pipelines import BaselinePipeline, prepare_measurement
from ctxrecon.solvers import DDS

SHAPE = (29, 37)  # padded to 32 × 40


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    images = torch.zeros(2, *SHAPE, dtype=torch.complex64)
    images[0, 5:20, 8:30] = 40.0
    images[1, 10:25, 5:32] = torch.tensor(2.0 + 1.0j)
    return images


@pytest.fixture(scope="module")
def scan(images) -> dict[str, torch.Tensor]:
    maps = simulate_coil_maps(4, SHAPE, generator=seeded(1))
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    mask[..., ::2] = True
    mask[..., 14:23] = True
    return {"kspace": CartesianSense(mask, maps)(images), "mask": mask, "coil_maps": maps}


def test_the_share_of_timesteps_that_is_left():
    steps = [900, 700, 500, 300, 100]
    assert remaining_timesteps(steps, 1.0) == steps
    assert remaining_timesteps(steps, 0.4) == [300, 100]
    assert remaining_timesteps(steps, 0.01) == [100]


def test_a_noised_image_has_the_moments_of_the_forward_process():
    image = torch.full((1, 64, 64), 3.0 - 1.0j, dtype=torch.complex64)
    noise = torch.randn(2, 2, 64, 64, generator=seeded(0))
    noised = noised_image(image, 0.64, noise)
    assert noised.shape == (2, 2, 64, 64)
    torch.testing.assert_close((noised - 0.6 * noise)[1, 0], torch.full((64, 64), 2.4))
    torch.testing.assert_close((noised - 0.6 * noise)[0, 1], torch.full((64, 64), -0.8))


def test_the_walk_starts_at_the_noised_image(pipe, scan, images):
    """What the solver sees first is ``√ᾱ x + √(1−ᾱ) z`` at the training scale, padded."""
    seen: dict[str, Any] = {}

    class Watch(DDS):
        def __call__(self, denoiser, operator, y, *, timesteps, latents=None, **rest):
            seen.update(timesteps=timesteps, latents=latents)
            return super().__call__(
                denoiser, operator, y, timesteps=timesteps, latents=latents, **rest
            )

    noise = torch.randn(4, 2, 32, 40, generator=seeded(4))
    call = {"num_inference_steps": 5, "strength": 0.4, "num_samples": 2, "solver": Watch()}
    pipe(**scan, image=images, latents=noise, **call)
    assert seen["timesteps"] == [160, 40]
    alpha_bar = float(ALPHAS[160])
    clean = channels_to_complex(seen["latents"] - (1 - alpha_bar) ** 0.5 * noise)
    scale = prepare_measurement(**scan).intensity_scale()
    inside = clean[:, 2:31, 2:39] / alpha_bar**0.5 * scale[[0, 0, 1, 1], None, None]
    torch.testing.assert_close(inside, images[[0, 0, 1, 1]], rtol=1e-4, atol=1e-3)
    assert float(clean[:, 0].abs().max()) < 1e-5  # the padding


def test_images_of_every_form(pipe, scan):
    call = {**scan, "num_inference_steps": 4, "strength": 0.5}
    named = pipe(**call, image="l1_wavelet", generator=seeded(0)).images
    made = l1_wavelet(sense_operator(scan["mask"], scan["coil_maps"]), scan["kspace"])
    assert torch.equal(named, pipe(**call, image=made, generator=seeded(0)).images)
    assert torch.equal(named, pipe(**call, image=made.numpy(), generator=seeded(0)).images)
    plain = pipe(**scan, num_inference_steps=4, generator=seeded(0)).images
    assert not torch.allclose(named, plain)
    first = pipe(**scan, num_inference_steps=4, solver="pnp_admm").images
    again = pipe(**call, image=first, generator=seeded(0)).images
    assert torch.equal(pipe(**call, image="pnp_admm", generator=seeded(0)).images, again)
    single = {**call, "kspace": scan["kspace"][:1]}
    one = pipe(**single, image=made[0], generator=seeded(0)).images
    assert torch.equal(one, pipe(**single, image=made[:1], generator=seeded(0)).images)


def test_little_strength_stays_near_the_image(pipe, scan, images):
    def distance(strength: float) -> float:
        solver = DDS(data_weight=1e-3)  # the data would bring both back to the image
        output = pipe(**scan, image=images, strength=strength, generator=seeded(0), solver=solver)
        return float((output.images - images).norm() / images.norm())

    assert distance(0.02) < 0.1 < distance(1.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"image": "l2"}, "'l2'.*zero_filled"),
        ({"image": "tv", "strength": 0.0}, "strength above 0"),
        ({"strength": 0.5}, "omit strength"),
        ({"image": "zero_filled", "solver": "pnp_admm"}, "PnPADMM"),
        ({"image": "zero_filled", "solver": "red_diff"}, "REDDiff"),
        ({"image": torch.zeros(2, 29, 37)}, r"image .*\(2, 29, 37\)"),
        ({"image": torch.zeros(3, 29, 37, dtype=torch.complex64)}, "got torch.complex64"),
        ({"image": np.full((29, 37), np.nan + 0j)}, "contains NaN or infinite"),
    ],
)
def test_a_start_that_makes_no_sense(pipe, scan, change, sentence):
    with pytest.raises(InputError, match=sentence):
        pipe(**scan, num_inference_steps=2, **change)


def test_a_pipeline_or_a_function_makes_the_image(pipe, scan):
    """Each is called with the measurement, and what it gives is the image to start from."""
    by_name, by_pipeline, by_function = (
        pipe(
            **scan,
            solver="dds",
            num_inference_steps=2,
            image=image,
            generator=torch.Generator().manual_seed(0),
        ).images
        for image in (
            "cg_sense",
            BaselinePipeline("cg_sense"),
            lambda measurement: images_of(BaselinePipeline("cg_sense")(measurement)).numpy(),
        )
    )
    torch.testing.assert_close(by_pipeline, by_name, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_function, by_name, rtol=1e-5, atol=1e-5)
