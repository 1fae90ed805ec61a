"""Pipeline of reconstruction networks, and their checkpoints."""

from __future__ import annotations

import copy
import json
import logging
import shutil
from typing import Any

import numpy as np
import pytest
import torch
from measured import measurement
from narrow import images_of, present

import ctxrecon
from ctxrecon.errors import InputError
from ctxrecon.pipelines import (
    ContextMRIPipeline,
    ReconstructionPipeline,
    load_reconstructor,
)
from ctxrecon.reconstructors import MoDL, UnrolledGenerator

PROMPTS = ["Brain, T2", "Knee, PDFS, TR: 3150"]


@pytest.fixture(scope="module")
def unrolled() -> ReconstructionPipeline:
    torch.manual_seed(0)
    pipeline = ReconstructionPipeline(UnrolledGenerator(width=4, iterations=2, predict_std=True))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def reading(pipe) -> ReconstructionPipeline:
    """A network that reads prompts."""
    torch.manual_seed(0)
    network = MoDL(width=4, iterations=1, text_width=pipe.text_encoder.config.hidden_size)
    for value in network.parameters():
        value.data += 0.3 * torch.randn(value.shape)
    pipeline = ReconstructionPipeline(network, pipe.text_encoder, pipe.tokenizer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_common_call(unrolled):
    operator, y, _ = measurement(shape=(23, 18))
    output = unrolled(y, operator.mask, coil_maps=operator.coil_maps)
    with torch.no_grad():
        direct = unrolled.reconstructor(operator, y)
    torch.testing.assert_close(output.images, direct.images)
    torch.testing.assert_close(output.expected_error, direct.expected_error)
    assert output.residual.shape == (2,)
    error = (operator(output.images) - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)
    torch.testing.assert_close(output.residual, error)
    array = unrolled(y.numpy(), operator.mask.numpy(), output_type="np")
    assert isinstance(array.images, np.ndarray)
    assert array.coil_maps.shape[0] == len(y)
    assert array.coil_maps.shape[-3:] == y.shape[1:]  # of one or two sets
    names = ("images", "expected_error", "residual", "coil_maps", "prompts")
    parts = unrolled(y, operator.mask, coil_maps=operator.coil_maps, return_dict=False)
    for name, value in zip(names, parts, strict=True):
        found = getattr(output, name)
        assert torch.equal(found, value) if found is not None else value is None


def test_slices_may_come_in_batches(unrolled):
    operator, y, _ = measurement(batch=3)
    call = {"kspace": y, "mask": operator.mask, "coil_maps": operator.coil_maps}
    torch.testing.assert_close(
        unrolled(**call, batch_size=2).images, unrolled(**call).images, rtol=1e-4, atol=1e-5
    )


def test_what_no_coil_sees_is_zero(unrolled):
    operator, y, _ = measurement()
    maps = present(operator.coil_maps).clone()
    maps[..., :5] = 0
    images = unrolled(y, operator.mask, coil_maps=maps).images
    assert not images[..., :5].any()
    assert images[..., 5:].all()


def test_prompts_of_networks_that_read_them(reading, unrolled, caplog):
    operator, y, _ = measurement()
    call = {"kspace": y, "mask": operator.mask, "coil_maps": operator.coil_maps}
    with_prompt = reading(**call, prompt=PROMPTS)
    assert with_prompt.prompts == PROMPTS
    assert not torch.allclose(with_prompt.images, reading(**call).images)
    swapped = reading(**call, prompt=PROMPTS[::-1])
    assert not torch.allclose(with_prompt.images, swapped.images)
    with caplog.at_level(logging.INFO, "ctxrecon"):
        ignored = unrolled(**call, prompt="Brain, T2")
    assert "accepts no prompt" in caplog.text
    assert ignored.prompts is None
    with pytest.raises(InputError, match="2 slices, got 3"):
        reading(**call, prompt=["Brain"] * 3)
    with pytest.raises(InputError, match="tokens"):
        reading(**call, prompt="word " * 90)


def test_bad_arguments(unrolled, reading):
    operator, y, _ = measurement()
    for wrong, sentence in (
        ({"output_type": "jpg"}, "output_type"),
        ({"batch_size": 0}, "batch_size 1 or more"),
        ({"prompt": 3}, "prompt as a string"),
        ({"mask": operator.mask[..., :-1]}, "does not fit"),
    ):
        with pytest.raises(InputError, match=sentence):
            unrolled(**({"kspace": y, "mask": operator.mask} | wrong))
    with pytest.raises(InputError, match="text encoder returns None"):
        ReconstructionPipeline(reading.reconstructor)


@pytest.mark.parametrize("which", ["unrolled", "reading"])
def test_save_and_load(which, tmp_path, request):
    pipeline = request.getfixturevalue(which)
    pipeline.save_pretrained(tmp_path / "pipeline")
    operator, y, _ = measurement()
    call: dict[str, Any] = {"kspace": y, "mask": operator.mask, "prompt": PROMPTS}
    expected = pipeline(**call).images
    for load in (load_reconstructor, ReconstructionPipeline.from_pretrained, ctxrecon.load):
        again = load(tmp_path / "pipeline")
        assert isinstance(again, ReconstructionPipeline)
        again.set_progress_bar_config(disable=True)
        assert torch.equal(images_of(again(**call)), expected)
    names = [p.suffix for p in (tmp_path / "pipeline").rglob("*") if p.is_file()]
    assert set(names) <= {".json", ".safetensors", ".txt", ".jinja"}


def test_a_prior_is_told_from_a_network(pipe, unrolled, tmp_path):
    pipe.save_pretrained(tmp_path / "prior")
    assert isinstance(ctxrecon.load(tmp_path / "prior"), ContextMRIPipeline)
    unrolled.save_pretrained(tmp_path / "network")
    with pytest.raises(InputError, match="subfolder"):
        ctxrecon.load(tmp_path / "network", subfolder="fastmri")
    with pytest.raises(InputError, match="there is no reconstructor/"):
        load_reconstructor(tmp_path / "prior")


def test_damaged_checkpoints(unrolled, tmp_path):
    unrolled.save_pretrained(tmp_path / "whole")
    folder = tmp_path / "network"

    def damaged() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)

    damaged()
    config = folder / "reconstructor" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "Exploit"}))
    with pytest.raises(InputError, match="unknown kind 'Exploit'"):
        load_reconstructor(folder)
    damaged()
    config.write_text(json.dumps(json.loads(config.read_text()) | {"width": 8}))
    with pytest.raises(InputError, match="do not fit"):
        load_reconstructor(folder)
    damaged()
    weights = next((folder / "reconstructor").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        load_reconstructor(folder)


def test_half_precision_networks_keep_the_measurement_whole(unrolled):
    half = ReconstructionPipeline(copy.deepcopy(unrolled.reconstructor).to(torch.bfloat16))
    half.set_progress_bar_config(disable=True)
    operator, y, _ = measurement()
    call: dict[str, Any] = {"kspace": y, "mask": operator.mask, "coil_maps": operator.coil_maps}
    full, low = images_of(unrolled(**call)), images_of(half(**call))
    assert low.dtype == torch.complex64
    assert float((low - full).norm() / full.norm()) < 0.02


def test_a_network_may_start_the_diffusion(pipe, unrolled):
    operator, y, _ = measurement(shape=(16, 16))
    call = {"kspace": y, "mask": operator.mask, "coil_maps": operator.coil_maps}
    start = unrolled(**call).images
    output = pipe(**call, image=start, solver="dds", num_inference_steps=4, strength=0.5)
    assert output.images.shape == start.shape
