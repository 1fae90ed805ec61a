"""The training loss, its checkpoints, and the script from start to resume."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import AnatomyBank, knee_anatomy
from ctxrecon.priors.factory import build_scheduler
from ctxrecon.training import (
    denoising_loss,
    drop_metadata,
    latest_checkpoint,
    load_state,
    prune_checkpoints,
    save_state,
    spread_timestep,
)

SCRIPT = Path(__file__).resolve().parents[1] / "training" / "train_prior.py"


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_network_has_no_loss(prediction_type: str, generator: torch.Generator) -> None:
    alphas = build_scheduler().alphas_cumprod
    images = torch.randn(3, 2, 8, 8, generator=generator)
    noise = torch.randn(3, 2, 8, 8, generator=generator)
    timesteps = torch.tensor([10, 400, 900])
    alpha_bar = alphas[timesteps].view(-1, 1, 1, 1)

    def oracle(noisy, t, states):
        torch.testing.assert_close(
            noisy, alpha_bar.sqrt() * images + (1 - alpha_bar).sqrt() * noise
        )
        epsilon = (noisy - alpha_bar.sqrt() * images) / (1 - alpha_bar).sqrt()
        v = alpha_bar.sqrt() * epsilon - (1 - alpha_bar).sqrt() * images
        return SimpleNamespace(sample=epsilon if prediction_type == "epsilon" else v)

    def loss(network):
        return denoising_loss(
            network,
            alphas,
            images,
            torch.zeros(3, 1, 4),
            prediction_type=prediction_type,
            timesteps=timesteps,
            noise=noise,
        )

    assert loss(oracle).max() < 1e-8
    silent = loss(lambda noisy, t, states: SimpleNamespace(sample=torch.zeros_like(noisy)))
    assert silent.shape == (3,)
    assert silent.min() > 0.5


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(InputError, match="prediction type"):
        denoising_loss(
            None,
            build_scheduler().alphas_cumprod,
            torch.zeros(1, 2, 4, 4),
            torch.zeros(1, 1, 4),
            prediction_type="sample",
            timesteps=torch.tensor([1]),
            noise=torch.zeros(1, 2, 4, 4),
        )


@pytest.mark.parametrize("first", [0, 12_345, 10**7])
@pytest.mark.parametrize("size", [8, 16, 100])
def test_every_batch_holds_all_levels_of_noise(first: int, size: int) -> None:
    timesteps = sorted(spread_timestep(first + k, 1000) for k in range(size))
    gaps = [b - a for a, b in itertools.pairwise([0, *timesteps, 1000])]
    assert max(gaps) <= 2 * 1000 / size + 1
    assert len(set(timesteps)) == size


def test_dropout_has_the_stated_rates(generator: torch.Generator) -> None:
    metadata = ScanMetadata(
        anatomy="knee", slice=3, contrast="PD", tr=3000, te=30, field_strength=1.5
    )
    prompts = [drop_metadata(metadata, generator) for _ in range(4000)]
    empty = sum(prompt == "" for prompt in prompts) / len(prompts)
    without = sum("TR" not in prompt for prompt in prompts if prompt) / sum(map(bool, prompts))
    assert empty == pytest.approx(0.1, abs=0.02)
    assert without == pytest.approx(0.5, abs=0.03)
    complete = "knee, Slice 3, PD, TR: 3000, TE: 30, Field strength: 1.5"
    assert set(prompts) == {"", "knee, Slice 3, PD", complete}


def trained_module() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    module = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
    for _ in range(3):
        module(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return module, optimizer


def test_a_checkpoint_restores_weights_averages_and_optimiser(tmp_path: Path) -> None:
    module, optimizer = trained_module()
    averages = {"net": [torch.full_like(p, 2.0) for p in module.parameters()]}
    save_state(tmp_path, 3, modules={"net": module}, averages=averages, optimizer=optimizer)
    fresh = torch.nn.Linear(4, 3)
    other = torch.optim.AdamW(fresh.parameters(), lr=0.1)
    blank = {"net": [torch.zeros_like(p) for p in fresh.parameters()]}
    folder = latest_checkpoint(tmp_path)
    assert load_state(folder, modules={"net": fresh}, averages=blank, optimizer=other) == 3
    for network, optim in ((module, optimizer), (fresh, other)):
        network(torch.ones(1, 4)).sum().backward()
        optim.step()
    assert torch.equal(module.weight, fresh.weight)
    assert torch.equal(blank["net"][0], averages["net"][0])
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def test_a_half_written_checkpoint_is_never_picked_up(tmp_path: Path) -> None:
    module, optimizer = trained_module()
    averages = {"net": [p.detach() for p in module.parameters()]}
    for step in (9, 10, 11):
        save_state(tmp_path, step, modules={"net": module}, averages=averages, optimizer=optimizer)
    (tmp_path / ".checkpoint-12.partial").mkdir()
    (tmp_path / "checkpoint-13").mkdir()
    assert latest_checkpoint(tmp_path).name == "checkpoint-11"
    (tmp_path / "checkpoint-13").rmdir()
    prune_checkpoints(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-10",
        "checkpoint-11",
    ]


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint to resume"):
        latest_checkpoint(tmp_path)
    with pytest.raises(InputError, match="no training checkpoint"):
        load_state(tmp_path, modules={}, averages={}, optimizer=None)


def launch(folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1"]
    command += [
        str(SCRIPT),
        "--bank",
        str(folder / "bank.npz"),
        "--output_dir",
        str(folder / "run"),
    ]
    command += ["--resolution", "32", "--train_batch_size", "2", "--max_train_steps", "4"]
    done = subprocess.run(
        [*command, "--checkpointing_steps", "2", *options],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_training_resumes_bit_for_bit_and_ships_a_pipeline(
    tmp_path: Path, generator: torch.Generator
) -> None:
    bank = AnatomyBank.build([lambda: knee_anatomy(generator, size=64) for _ in range(3)])
    bank.save(tmp_path / "bank.npz")
    launch(tmp_path)
    run = tmp_path / "run"
    straight = load_file(run / "checkpoint-4" / "prior.safetensors")
    averaged = load_file(run / "checkpoint-4" / "prior_ema.safetensors")
    (run / "checkpoint-4" / "state.json").unlink()  # as if killed before it was whole
    launch(tmp_path, "--resume_from_checkpoint", "latest")
    resumed = load_file(run / "checkpoint-4" / "prior.safetensors")
    again = load_file(run / "checkpoint-4" / "prior_ema.safetensors")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert all(torch.equal(averaged[name], again[name]) for name in averaged)
    assert json.loads((run / "config.json").read_text())["resolution"] == "32"

    from ctxrecon.pipelines import load_prior

    pipe = load_prior(run / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    images = pipe.generate("Knee, PD", num_inference_steps=2, generator=generator).images
    assert images.shape == (1, 32, 32)
    assert torch.isfinite(images.abs()).all()
