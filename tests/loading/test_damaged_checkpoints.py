"""Edited or damaged checkpoints raise an InputError or load correctly, nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import LOUPE
from ctxrecon.pipelines import JointPipeline, build_pipeline, load_joint, load_prior
from ctxrecon.priors import build_text_encoder
from ctxrecon.reconstructors import UNetReconstructor

TEXT, UNET = "text_encoder/model.safetensors", "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prior")
    build_pipeline(block_out_channels=(8, 8, 16), sample_size=16).save_pretrained(folder)
    return folder


@pytest.fixture
def prior(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "prior"))


def change_json(path: Path, keys: tuple[str, ...], value: Any) -> None:
    config = json.loads(path.read_text())
    place = config
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("name", "keys", "value"),
    [
        ("text_encoder/config.json", ("hidden_act",), 0),
        ("text_encoder/config.json", ("hidden_size",), "x"),
        ("text_encoder/config.json", ("layer_norm_eps",), [1]),
        ("text_encoder/config.json", ("num_hidden_layers",), False),
        ("tokenizer/tokenizer.json", ("model", "vocab", "k"), None),
        ("tokenizer/tokenizer.json", ("model", "vocab", "k"), "x" * 5000),
        ("tokenizer/tokenizer.json", ("model", "dropout"), 1e12),
        ("scheduler/scheduler_config.json", ("beta_schedule",), ["x"]),
    ],
)
def test_any_edit_is_refused_in_a_sentence(prior: Path, name: str, keys, value) -> None:
    change_json(prior / name, keys, value)
    with pytest.raises(InputError) as caught:
        load_prior(prior)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(prior))


@pytest.mark.parametrize("name", [TEXT, UNET])
def test_weights_that_no_training_gave_are_refused(prior: Path, name: str) -> None:
    weights = load_file(prior / name)
    first = next(key for key, value in weights.items() if value.ndim == 1)
    for damaged, words in (
        (weights[first].view(torch.int32), "stored as I32"),
        (weights[first].to(torch.complex64), "stored as C64"),
        (torch.full_like(weights[first], 1e20), "hold 1e.20"),
        (torch.full_like(weights[first], torch.nan), "NaN or infinite"),
    ):
        save_file({**weights, first: damaged}, prior / name, metadata={"format": "pt"})
        with pytest.raises(InputError, match=words):
            load_prior(prior)


def test_a_tokenizer_of_another_text_encoder_is_refused(prior: Path) -> None:
    few = build_text_encoder(300)
    few.save_pretrained(prior / "text_encoder")
    with pytest.raises(InputError, match=r"text encoder .* 300"):
        load_prior(prior)
    other_end = build_text_encoder(1200)
    other_end.save_pretrained(prior / "text_encoder")
    with pytest.raises(InputError, match=r"token .* 1199"):
        load_prior(prior)


@pytest.mark.parametrize(("key", "value"), [("freq_shift", "x"), ("norm_eps", [])])
def test_a_network_that_cannot_run(prior: Path, key: str, value: Any) -> None:
    config = prior / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
    with pytest.raises(InputError, match=r"config\.json"):
        load_prior(prior)


def test_what_a_configuration_leaves_open_is_said(prior: Path, caplog, tmp_path: Path) -> None:
    load_prior(prior)
    joint = tmp_path / "joint"
    JointPipeline(UNetReconstructor(width=4), LOUPE((16, 16), 2)).save_pretrained(joint)
    load_joint(joint)
    assert "does not state" not in caplog.text
    change_json(prior / "scheduler/scheduler_config.json", ("prediction_type",), None)
    load_prior(prior)
    assert "prediction_type" in caplog.text
    for name, key in (
        ("sampler/config.json", "lines"),
        ("reconstructor/config.json", "depth"),
        ("model_index.json", "contrasts"),
    ):
        change_json(joint / name, (key,), None)
        load_joint(joint)
        assert f"{name} does not state {key}" in caplog.text


@pytest.mark.parametrize("part", ["sampler", "reconstructor"])
@pytest.mark.parametrize("name", [["LOUPE"], {}, 1, "x" * 5000])
def test_a_kind_that_is_no_name(tmp_path: Path, part: str, name: Any) -> None:
    pipe = JointPipeline(UNetReconstructor(width=4), LOUPE((16, 16), 2))
    pipe.save_pretrained(tmp_path)
    assert isinstance(load_joint(tmp_path), JointPipeline)
    change_json(tmp_path / part / "config.json", ("_class_name",), name)
    with pytest.raises(InputError, match="unknown kind") as caught:
        load_joint(tmp_path)
    assert len(str(caught.value)) < 1000
