"""A solver, a network and a mask of a user's own: one class or function and one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.configuration_utils import register_to_config
from narrow import complete, images_of, present

import ctxrecon
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks import MASKS, make_mask
from ctxrecon.pipelines import ReconstructionPipeline, build_pipeline, load_reconstructor
from ctxrecon.reconstructors import RECONSTRUCTORS, Reconstructor
from ctxrecon.registry import Registry
from ctxrecon.solvers import SOLVERS, DiffusionSolver, denoise, on_step_end, schedule

SHAPE = (32, 32)


@dataclass(frozen=True)
class GradientStep(DiffusionSolver):
    """``x_0`` of the denoiser, pulled to the data by one gradient step."""

    step_size: float = 0.5

    def __call__(
        self, denoiser, operator, y, *, timesteps, generator=None, latents=None, callback=None
    ):
        steps, noise = schedule(denoiser, operator, y, timesteps, generator, latents)
        x_t = noise.initial()
        for step in steps:
            x0_hat, eps = denoise(denoiser, x_t, step.t)
            x0 = x0_hat - self.step_size * operator.H(operator(x0_hat) - y)
            x_t = on_step_end(callback, step, step.mean(x0, eps, 0.0), x0)
        return x0


class Doubled(Reconstructor):
    """Twice the zero-filled image, to begin with."""

    @register_to_config
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(2.0))

    def reconstruct(self, operator, y, zero_filled, embeds):
        return self.gain * zero_filled, None


def every_other(shape, acceleration, center_fraction=0.0, *, batch_size=1, generator=None):
    """Every other line."""
    mask = torch.zeros(batch_size, 1, *shape, dtype=torch.bool)
    mask[..., ::2] = True
    return mask


@pytest.fixture
def registered():
    SOLVERS.register("gradient_step", GradientStep, title="Gradient step")
    RECONSTRUCTORS.register("doubled", Doubled, aliases=("twice",))
    MASKS.register("every_other", every_other)
    yield
    del SOLVERS["gradient_step"], RECONSTRUCTORS["doubled"], MASKS["every_other"]


@pytest.fixture
def scan():
    generator = torch.Generator().manual_seed(0)
    maps = simulate_coil_maps(4, SHAPE, generator=generator)
    image = torch.randn(1, *SHAPE, dtype=torch.complex64, generator=generator)
    return fft2c(maps * image[:, None]), maps


def test_a_solver(registered, scan, tmp_path):
    kspace, maps = scan
    mask = make_mask("uniform1d", SHAPE, 2, 0.2, generator=torch.Generator().manual_seed(1))
    prior = build_pipeline(block_out_channels=(8, 8, 16), sample_size=32)
    prior.save_pretrained(tmp_path)
    calls = {"coil_maps": maps, "num_inference_steps": 3}
    pulled, free = (
        prior(
            kspace * mask,
            mask,
            solver=solver,
            generator=torch.Generator().manual_seed(0),
            **calls,
        )
        for solver in ("gradient-step", GradientStep(step_size=0.0))
    )
    assert float(present(complete(pulled).residual)) < float(present(complete(free).residual))
    pipe: Any = ctxrecon.load("gradient_step:step_size=0.25", path=tmp_path)
    assert pipe.default_solver == GradientStep(step_size=0.25)
    with pytest.raises(InputError, match="no option"):
        ctxrecon.load("gradient_step:size=1")


def test_a_network(registered, scan, tmp_path):
    kspace, maps = scan
    mask = make_mask("uniform1d", SHAPE, 2, 0.2, generator=torch.Generator().manual_seed(1))
    ReconstructionPipeline(RECONSTRUCTORS["twice"]()).save_pretrained(tmp_path)
    loads: tuple[Callable[..., Any], ...] = (load_reconstructor, ctxrecon.load)
    for load in loads:
        pipe = load(tmp_path)
        output = pipe(kspace * mask, mask, coil_maps=maps)
        expected = 2 * (
            maps.conj()
            * torch.fft.fftshift(
                torch.fft.ifft2(torch.fft.ifftshift(kspace * mask, dim=(-2, -1)), norm="ortho"),
                dim=(-2, -1),
            )
        ).sum(dim=1)
        torch.testing.assert_close(images_of(output), expected, rtol=1e-4, atol=1e-5)


def test_a_mask(registered):
    mask = make_mask("every-other", SHAPE, 2.0)
    assert int(mask.sum()) == SHAPE[0] * SHAPE[1] // 2
    with pytest.raises(InputError, match="unknown mask 'every_third'"):
        make_mask("every_third", SHAPE, 2.0)


def test_names_are_read_in_any_spelling():
    registry: Registry = Registry("thing")
    registry.register("one_thing", int, title="One thing", aliases=("first",))
    for name in ("one_thing", "one-thing", "One-Thing", "first", "FIRST"):
        assert registry[name] is int
        assert registry.find(name) == "one_thing"
        assert name in registry
    assert registry.title("first") == "One thing"
    assert registry.name_of(int) == "one_thing"
    assert registry.name_of(float) is None
    assert list(registry) == ["one_thing"]
    for taken in ("one_thing", "first"):
        with pytest.raises(InputError, match="already"):
            registry.register(taken, float)
    with pytest.raises(InputError, match="identifier"):
        registry.register("One thing", float)
    with pytest.raises(InputError, match="one_thing"):
        registry.find(3)
    del registry["first"]
    assert "one_thing" not in registry
    assert "first" not in registry


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("dsd", "dsd"),
        ("dds:weight=1", "no option weight"),
        ("l1_wavelet:regularization=1", "l1_wavelet"),
    ],
)
def test_load_refuses_what_there_is_not(source, message):
    with pytest.raises(InputError, match=message):
        ctxrecon.load(source)


def test_load_refuses_options_of_a_prior_for_others():
    for source in ("network", "cg-sense"):
        with pytest.raises(InputError, match="option subfolder out"):
            ctxrecon.load(source, subfolder="fastmri")
