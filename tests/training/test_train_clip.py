"""The contrastive loss, and the script that trains a CLIP with it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from narrow import present
from safetensors.torch import load_file
from scripts import forget_accelerate

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import AnatomyBank, brain_anatomy, knee_anatomy
from ctxrecon.pipelines import load_text_encoder
from ctxrecon.training import clip as script
from ctxrecon.training.clip import (
    READOUT,
    contrastive_loss,
    readout_loss,
    readout_targets,
)


def loss_of(images: torch.Tensor, texts: torch.Tensor, tokens: list[int], scale: float) -> float:
    words = torch.tensor(tokens)[:, None]
    return contrastive_loss(images, texts, words, torch.tensor(math.log(scale))).item()


def test_the_contrastive_loss_of_known_cases() -> None:
    unit = torch.eye(4)
    # Right pairs at similarity 1 among others at 0: −log e^s / (e^s + 3).
    expected = -math.log(math.exp(2) / (math.exp(2) + 3))
    assert loss_of(unit, unit, [1, 2, 3, 4], 2.0) == pytest.approx(expected, rel=1e-5)
    blank = torch.full((4, 4), 0.5)
    assert loss_of(blank, blank, [1, 2, 3, 4], 10.0) == pytest.approx(math.log(4), rel=1e-5)
    assert loss_of(unit, unit.roll(1, 0), [1, 2, 3, 4], 10.0) > 5


def test_equal_prompts_match_each_others_images() -> None:
    pairs = torch.eye(2).repeat_interleave(2, dim=0)  # two slices of each of two prompts
    assert loss_of(pairs, pairs, [1, 1, 2, 2], 20.0) == pytest.approx(math.log(2), abs=1e-3)
    apart = torch.eye(4)  # telling equal prompts apart costs more
    assert loss_of(apart, apart, [1, 1, 2, 2], 20.0) > 5


def test_numbers_are_standardized_and_unknown_ones_do_not_count() -> None:
    known = ScanMetadata(tr=math.exp(7.5), te=0.0, slice=25)
    targets = readout_targets([known, ScanMetadata()])
    assert targets.shape == (2, len(READOUT))
    columns = dict(zip(READOUT, targets[0].tolist(), strict=True))
    assert columns["tr"] == pytest.approx(0, abs=1e-6)
    assert columns["slice"] == pytest.approx(1)
    assert math.isnan(columns["te"])  # 0 ms has no logarithm
    assert targets[1].isnan().all()
    predicted = torch.ones(2, len(READOUT), requires_grad=True)
    loss = readout_loss(predicted, targets)
    assert loss.item() == pytest.approx(((1 - 0) ** 2 + (1 - 1) ** 2) / 2, abs=1e-6)
    loss.backward()
    assert present(predicted.grad)[1].abs().max() == 0
    assert readout_loss(predicted, targets[1:].expand(2, -1)).item() == 0


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("bank") / "bank.npz"
    generator = torch.Generator().manual_seed(0)
    draws = [lambda: knee_anatomy(generator, size=64), lambda: brain_anatomy(generator, size=64)]
    AnatomyBank.build([draw() for draw in draws * 3]).save(path)
    return path


@pytest.fixture
def run(bank, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def train(folder: Path, *options: str) -> Path:
        forget_accelerate()
        arguments = ["--bank", str(bank), "--output_dir", str(folder), "--resolution", "32"]
        arguments += ["--train_batch_size", "16", "--report_to", "none", "--learning_rate", "1e-3"]
        script.main([*arguments, "--lr_warmup_steps", "2", "--ema_decay", "0.5", *options])
        return folder

    return train


def test_a_bank_with_fewer_pixels_than_the_images_is_refused(run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="64 × 64 pixels, got 96"):
        run(tmp_path / "clip", "--max_train_steps", "1", "--resolution", "96")


def test_training_learns_resumes_and_gives_a_text_encoder(run, tmp_path: Path) -> None:
    steps = ["--max_train_steps", "24", "--checkpointing_steps", "12", "--validation_steps", "4"]
    straight = run(tmp_path / "straight", *steps)
    lines = (straight / "validation.jsonl").read_text().splitlines()
    scores = [json.loads(line) for line in lines]
    assert [score["step"] for score in scores] == [4, 8, 12, 16, 20, 24]
    assert scores[-1]["loss"] < scores[0]["loss"] - 0.3

    resumed = tmp_path / "resumed"
    (straight / "checkpoint-24").rename(tmp_path / "checkpoint-24")
    straight.rename(resumed)
    run(resumed, *steps, "--resume_from_checkpoint", "latest")
    one = load_file(tmp_path / "checkpoint-24" / "model.safetensors")
    other = load_file(resumed / "checkpoint-24" / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)
    again = [json.loads(line) for line in (resumed / "validation.jsonl").read_text().splitlines()]
    assert again == scores

    encoder, tokenizer = load_text_encoder(resumed / "clip")
    tokens = tokenizer(["knee, PD, TR: 3000"], padding="max_length", return_tensors="pt").input_ids
    averages = load_file(resumed / "checkpoint-24" / "model_ema.safetensors")
    prefix = "clip.text_model."
    for name, value in encoder.state_dict().items():
        torch.testing.assert_close(value, averages[prefix + name])
    assert encoder(tokens).last_hidden_state.shape == (1, 77, 128)
