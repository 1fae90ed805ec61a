"""Options of the wrong type or range raise an error before any work, at every entry point."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from gaussian import seeded
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

import ctxrecon
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.inference.batches import images_at_once
from ctxrecon.masks import make_mask
from ctxrecon.pipelines import (
    BaselinePipeline,
    build_pipeline,
    load_joint,
    load_prior,
    load_reconstructor,
    load_text_encoder,
)
from ctxrecon.solvers import SOLVERS, make_solver, parse_solver

SHAPE = (32, 32)
MASK = make_mask("uniform1d", SHAPE, 2, 0.25, generator=seeded(0))
ILL_TYPED = ["x", math.nan, -1, [], {}, object(), None, True]


@pytest.fixture(scope="module")
def kspace() -> torch.Tensor:
    image = torch.zeros(1, 1, *SHAPE, dtype=torch.complex64)
    image[..., 6:26, 8:24] = 1.0
    return fft2c(simulate_coil_maps(4, SHAPE, generator=seeded(0)) * image) * MASK


@pytest.mark.parametrize("name", SOLVERS)
def test_every_option_of_every_solver(name):
    accepted: set[tuple[str, bool | None]] = {("adaptive_weights", True), ("equivariant", True)}
    accepted |= {(name, None) for name in ("langevin_steps", "num_slices", "noise_std")}
    accepted |= {("data_weight", None)} if name == "dds" else set()
    for field in fields(SOLVERS[name]):
        for value in [*ILL_TYPED, 0.5 if isinstance(field.default, int) else 1j]:
            if isinstance(value, bool | None) and (field.name, value) in accepted:
                make_solver(name, **{field.name: value})
                continue
            with pytest.raises(InputError, match=f"{field.name}|tolerance"):
                make_solver(name, **{field.name: value})
    with pytest.raises(InputError, match="eta"):
        parse_solver("dds:eta=x")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"guidance_scale": "1"}, "guidance_scale .* '1'"),
        ({"guidance_scale": None}, "guidance_scale .* None"),
        ({"guidance_scale": True}, "guidance_scale .* True"),
        ({"guidance_scale": 1e9}, "guidance_scale .* 50"),
        ({"strength": "0.3"}, "strength .* '0.3'"),
        ({"strength": math.nan, "image": "zero_filled"}, "strength"),
        ({"timesteps": 5}, "timesteps"),
        ({"timesteps": None}, "timesteps"),
        ({"timesteps": [9.5]}, "timesteps"),
        ({"latents": 5}, "latents"),
        ({"latents": torch.zeros(1, 2, *SHAPE, dtype=torch.cfloat)}, "latents as a real"),
        ({"latents": torch.full((1, 2, *SHAPE), math.nan)}, "finite latents"),
        ({"prompt_embeds": 5}, "prompt_embeds"),
        ({"prompt_embeds": torch.full((1, 77, 128), math.inf)}, "finite prompt_embeds"),
        ({"image": 5}, "image to start from"),
        ({"solver": 5}, "a solver's name or a solver"),
        ({"generator": (1,)}, "generator"),
        ({"num_inference_steps": "2"}, "num_inference_steps"),
        ({"num_samples": "2"}, "num_samples"),
        ({"batch_size": 1.0}, "batch_size"),
        ({"output_type": []}, "output_type"),
        ({"callback_on_step_end": 5}, "callback_on_step_end"),
        ({"callback_on_step_end_tensor_inputs": "latents"}, "tensor_inputs from"),
        ({"callback_on_step_end_tensor_inputs": 5}, "tensor_inputs from"),
        ({"callback_on_step_end_tensor_inputs": [[]]}, "tensor_inputs from"),
    ],
)
def test_options_of_the_prior(pipe, kspace, options, sentence):
    with pytest.raises(InputError, match=sentence):
        pipe(kspace, MASK, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prompt": []}, "at least one prompt"),
        ({"prompt": 5}, "prompt"),
        ({"height": "a"}, "height as a whole number"),
        ({"eta": "a"}, "eta .* 'a'"),
        ({"num_images_per_prompt": 1.5}, "num_samples"),
        ({"guidance_scale": "2"}, "guidance_scale"),
    ],
)
def test_options_of_generation(pipe, options, sentence):
    with pytest.raises(InputError, match=sentence):
        pipe.generate(**options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_iterations": "x"}, "iteration.* 'x'"),
        ({"num_iterations": 1.5}, r"iteration.* 1\.5"),
        ({"num_iterations": True}, "iteration.* True"),
        ({"regularization": "x"}, "regularization .* 'x'"),
        ({"prompt": 5}, "prompt"),
        ({"output_type": 5}, "output_type"),
    ],
)
def test_options_of_baselines(kspace, options, sentence):
    with pytest.raises(InputError, match=sentence):
        BaselinePipeline("l1_wavelet")(kspace, MASK, **options)
    with pytest.raises(InputError, match="unknown baseline"):
        BaselinePipeline([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "load", [load_prior, load_reconstructor, load_joint, ctxrecon.load, load_text_encoder]
)
def test_what_cannot_be_loaded(load):
    wrong: list[Any] = [5, b"x", []]
    for path in wrong:
        with pytest.raises(InputError, match="folder or a hub repository"):
            load(path)
    place = str(Path(__file__).parent)
    for dtype in ("float64", "x", 5, torch.int8, None):
        with pytest.raises(InputError, match=r"dtype .*bfloat16"):
            load(place, dtype=dtype)


def test_devices_and_precisions_by_name():
    wrong: list[Any] = ["foo", [], 1.5]
    for device in wrong:
        with pytest.raises(InputError, match="device as a name"):
            load_prior(device=device)
    missing = ["meta", "cpu:x"] if torch.cuda.is_available() else ["meta", "cuda", "cuda:3"]
    for device in missing:
        with pytest.raises(InputError, match="device"):
            load_reconstructor(device=device)
    half = load_prior(dtype="bfloat16", device="cpu")
    assert half.unet.dtype == half.text_encoder.dtype == torch.bfloat16
    with pytest.raises(InputError, match="subfolder as text"):
        load_prior(subfolder=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("shown", [True, False])
def test_loading_shows_no_bars_and_leaves_settings_alone(shown, capfd):
    libraries = (diffusers_logging, transformers_logging)
    before = [library.is_progress_bar_enabled() for library in libraries]
    hub = are_progress_bars_disabled()
    try:
        for library in libraries:
            (library.enable_progress_bar if shown else library.disable_progress_bar)()
        quiet = are_progress_bars_disabled()
        load_prior()
        load_reconstructor()
        assert [library.is_progress_bar_enabled() for library in libraries] == [shown] * 2
        assert are_progress_bars_disabled() == quiet
        assert capfd.readouterr().err == ""
    finally:
        for library, active in zip(libraries, before, strict=True):
            (library.enable_progress_bar if active else library.disable_progress_bar)()
        assert are_progress_bars_disabled() == hub


def test_weights_that_are_not_finite(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    path = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.bias"][0] = math.nan
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"conv_in\.bias"):
        load_prior(tmp_path)


def test_a_result_that_is_not_finite_is_refused(kspace):
    own = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16, seed=3)
    own.set_progress_bar_config(disable=True)
    own.unet.conv_out.bias.data[0] = math.nan
    with pytest.raises(InputError, match=r"NaN .* slice 0:"):
        own(kspace, MASK, num_inference_steps=1)
    with pytest.raises(InputError, match=r"NaN .* slices 0, 1"):
        own.generate(["Brain", "Knee"], num_inference_steps=1)


def test_builders():
    for channels in ("x", (7,), (), 8, (8.0,)):
        with pytest.raises(InputError, match="block_out_channels"):
            build_pipeline(block_out_channels=channels)  # type: ignore[arg-type]
    for option in ("sample_size", "seed"):
        with pytest.raises(InputError, match=option):
            build_pipeline(**{option: "x"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"generator": 5}, "generator` as a torch.Generator"),
        ({"generator": [5]}, "generator` as a torch.Generator"),
        ({"acceleration": "4"}, "acceleration .* '4'"),
        ({"acceleration": None}, "acceleration of at least 1"),
        ({"center_fraction": "x"}, "center_fraction.* 'x'"),
        ({"batch_size": "x"}, "batch size"),
        ({"shape": 5}, "mask shape"),
        ({"name": []}, "unknown mask"),
    ],
)
def test_options_of_masks(call, sentence):
    with pytest.raises(InputError, match=sentence):
        make_mask(**({"name": "uniform1d", "shape": SHAPE, "acceleration": 4} | call))


def test_numpy_is_as_good_as_torch(pipe, kspace):
    latents = torch.randn(1, 2, *SHAPE, generator=seeded(0))
    embeds = pipe.encode_prompt(["Brain, T2"])
    call = {"num_inference_steps": 2, "solver": "ddnm", "generator": seeded(1)}
    expected = pipe(kspace, MASK, latents=latents, prompt_embeds=embeds, **call).images
    call["generator"] = seeded(1)
    found = pipe(
        kspace.numpy(),
        MASK.numpy(),
        latents=latents.double().numpy(),
        prompt_embeds=embeds.detach().numpy(),
        timesteps=np.array([999, 250]),
        **call,
    )
    torch.testing.assert_close(found.images, expected)


def test_worse_than_an_empty_image_is_warned_of(pipe, kspace, caplog):
    class Wrong:
        def __call__(self, denoiser, operator, y, **call):
            return torch.full((len(y), *operator.domain_shape[1:]), 5.0, dtype=torch.complex64)

    both = torch.cat([kspace, 2 * kspace])
    assert "residual" not in caplog.text
    pipe(both, MASK, num_inference_steps=2)
    assert "residual" not in caplog.text
    residual = pipe(both, MASK, num_inference_steps=2, solver=Wrong()).residual
    assert float(residual.min()) > 1
    assert "in slices 0, 1" in caplog.text
    assert "coil maps" in caplog.text


def test_bars_say_what_runs(kspace, capfd):
    own = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16, seed=3)
    own(kspace, MASK, num_inference_steps=4, num_samples=2)
    lines = [line for line in capfd.readouterr().err.replace("\r", "\n").split("\n") if line]
    assert {line.split(":")[0] for line in lines} == {"estimate", "samples"}
    own.set_progress_bar_config(desc="mine")
    own(kspace, MASK, num_inference_steps=1)
    lines = [line for line in capfd.readouterr().err.replace("\r", "\n").split("\n") if line]
    assert {line.split(":")[0] for line in lines} == {"mine"}


def test_images_at_once_are_bounded_by_their_memory(pipe, kspace, monkeypatch):
    assert images_at_once(24, (320, 320)) == 10
    assert images_at_once(24, (320, 320), copies=2) == 5
    assert images_at_once(320, (640, 640)) == 1
    sizes = []
    forward = pipe.unet.forward

    def watched(x, *args, **options):
        sizes.append(len(x))
        return forward(x, *args, **options)

    monkeypatch.setattr(pipe.unet, "forward", watched)
    monkeypatch.setattr("ctxrecon.inference.batches._FEATURES_AT_ONCE", 2 * 8 * 32 * 32)
    call = {"num_inference_steps": 1, "num_samples": 5, "solver": "dds"}
    bounded = pipe(kspace, MASK, generator=seeded(0), **call)
    assert sizes == [2, 2, 1]
    free = pipe(kspace, MASK, generator=seeded(0), batch_size=5, **call)
    torch.testing.assert_close(bounded.samples, free.samples, atol=1e-3, rtol=1e-4)
