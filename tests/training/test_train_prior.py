"""The script that trains the prior: resume, distribution, fine-tuning, validation."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow import images_of
from safetensors.torch import load_file, save_file
from scripts import TRAINING, forget_accelerate, in_two_processes, start

from ctxrecon.datasets import write_shard
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import AnatomyBank, knee_anatomy
from ctxrecon.pipelines import build_pipeline, load_prior
from ctxrecon.training import prior as script

# Adam divides a gradient by its size: one that is zero but for rounding (a bias before a group
# norm) would move its parameter as far as any other, and no two orders of summation would agree.
STEADY = ("--adam_epsilon", "1e-3")
SCRIPT = TRAINING / "train_prior.py"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """A bank, a tiny U-Net's configuration and a tiny pipeline."""
    folder = tmp_path_factory.mktemp("inputs")
    generator = torch.Generator().manual_seed(0)
    AnatomyBank.build([knee_anatomy(generator, size=64) for _ in range(3)]).save(
        folder / "bank.npz"
    )
    pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16)
    config = {key: value for key, value in pipe.unet.config.items() if key[0] != "_"}
    (folder / "unet.json").write_text(json.dumps(config))
    pipe.save_pretrained(folder / "pipeline")
    return folder


@pytest.fixture
def run(inputs, monkeypatch):
    """Train in this process; the options are those of a tiny run, then those given."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def train(folder: Path, *options: str, new: bool = True) -> Path:
        forget_accelerate()
        script.main([*arguments(inputs, folder, new=new), *options])
        return folder

    return train


def arguments(inputs: Path, folder: Path, *, new: bool = True) -> list[str]:
    chosen = ["--unet_config", str(inputs / "unet.json"), "--train_text_encoder"]
    return [
        *("--bank", str(inputs / "bank.npz"), "--output_dir", str(folder)),
        *("--resolution", "16", "--train_batch_size", "2", "--max_train_steps", "3"),
        *("--learning_rate", "1e-3", "--lr_warmup_steps", "2", "--validation_scans", "0"),
        *("--report_to", "none", *(chosen if new else [])),
    ]


def weights(folder: Path, step: int, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoint-{step}" / f"{name}.safetensors")


def launch(arguments: list[str]) -> list[str]:
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
    return [*accelerate, "--num_processes", "1", "--num_machines", "1", str(SCRIPT), *arguments]


def test_two_processes_train_as_one_with_twice_the_batch(inputs: Path, tmp_path: Path) -> None:
    def options(folder: Path, batch: int) -> list[str]:
        steps = ["--max_train_steps", "20", "--train_batch_size", str(batch), *STEADY]
        return [*arguments(inputs, folder), *steps, "--validation_scans", "1"]

    two, one = tmp_path / "two", tmp_path / "one"
    start([*in_two_processes(SCRIPT), *options(two, 2)])
    start(launch(options(one, 4)))
    config = json.loads((two / "config.json").read_text())
    assert config["from step 0"]["num_processes"] == 2
    first, second = weights(two, 20), weights(one, 20)
    change = weights_before(inputs)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-4)
    assert any((first[name] - change[name]).abs().max() > 5e-3 for name in change)
    curves = [json.loads((folder / "log.jsonl").read_text()) for folder in (two, one)]
    assert curves[0]["loss"] == pytest.approx(curves[1]["loss"], rel=1e-4)
    for folder in (two, one):  # validated and written once
        assert len((folder / "validation.jsonl").read_text().splitlines()) == 1


def weights_before(inputs: Path) -> dict[str, torch.Tensor]:
    """The new U-Net's weights, as training starts from."""
    pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16)
    return {f"unet.{name}": value for name, value in pipe.unet.state_dict().items()}


def test_accumulated_gradients_equal_those_of_a_larger_batch(run, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", *STEADY, "--train_batch_size", "4")
    parts = run(tmp_path / "parts", *STEADY, "--gradient_accumulation_steps", "2")
    one, other = weights(whole, 3), weights(parts, 3)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-4)


def test_what_is_shipped_is_a_pipeline_with_its_card(run, inputs, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", "--validation_scans", "2", "--gradient_checkpointing")
    pipe = load_prior(folder / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    images = images_of(pipe.generate("Knee, PD", num_inference_steps=2))
    assert images.shape == (1, 16, 16)
    assert torch.isfinite(images.abs()).all()
    averages = weights(folder, 3, "model_ema")
    shipped = pipe.unet.state_dict()
    for name, value in shipped.items():
        torch.testing.assert_close(value, averages[f"unet.{name}"].half().float())
    card = (folder / "pipeline" / "README.md").read_text()
    assert "learning_rate 0.001" in card
    assert "| 3 | 0." in card
    assert {path.suffix for path in (folder / "pipeline").rglob("*") if path.is_file()} == {
        ".safetensors",
        ".json",
        ".md",
    }
    scores = json.loads((folder / "validation.jsonl").read_text())
    assert scores["step"] == 3
    assert scores["psnr"] != scores["psnr_without_prompt"]
    assert (folder / "validation-3.png").stat().st_size > 5000


def test_a_published_checkpoint_is_fine_tuned_at_another_matrix_size(
    run, inputs, tmp_path: Path
) -> None:
    published = tmp_path / "published"  # the layout of DHCAI/ContextMRI
    published.mkdir()
    shutil.copytree(inputs / "pipeline" / "unet", published / "fastmri")
    parts = {name: str(inputs / "pipeline" / name) for name in ("scheduler", "tokenizer")}
    options = [
        *("--pretrained_model_name_or_path", str(published), "--subfolder", "fastmri"),
        *("--scheduler", parts["scheduler"], "--tokenizer", parts["tokenizer"]),
        *("--text_encoder", str(inputs / "pipeline" / "text_encoder"), "--resolution", "24"),
    ]
    folder = run(tmp_path / "run", *options, new=False)
    saved = weights(folder, 3)
    before = load_prior(inputs / "pipeline")
    assert all(name.startswith("unet.") for name in saved)  # the text encoder is frozen
    moved = [
        (saved[f"unet.{name}"] - value).abs().max().item()
        for name, value in before.unet.state_dict().items()
    ]
    assert 0 < max(moved) < 0.02  # from there, not from new weights
    after = load_prior(folder / "pipeline")
    for name, value in before.text_encoder.state_dict().items():
        torch.testing.assert_close(after.text_encoder.state_dict()[name], value.half().float())


def test_prepared_shards_and_epsilon_prediction(run, tmp_path: Path) -> None:
    images = torch.randn(3, 2, 20, 24, generator=torch.Generator().manual_seed(1))
    (tmp_path / "shards").mkdir()
    metadata = [ScanMetadata(anatomy="heart", slice=k) for k in range(3)]
    shard = tmp_path / "shards" / "volume.safetensors"
    write_shard(shard, images.numpy(), metadata, source=SCRIPT)
    folder = run(
        tmp_path / "run",
        *("--train_data_dir", str(tmp_path / "shards"), "--data_weights", "1", "3"),
        *("--prediction_type", "epsilon", "--loss_weighting", "min_snr"),
        *("--timestep_density", "quadratic", "--resolution", "16", "32"),
    )
    assert load_prior(folder / "pipeline").scheduler.config.prediction_type == "epsilon"


def test_tensorboard_is_written_where_asked_for(run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = run(tmp_path / "run", "--report_to", "tensorboard", "--validation_scans", "1")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tracker"), size_guidance={"images": 0})
    events.Reload()
    assert {"loss", "lr", "validation/psnr"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"] == ["validation"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--text_encoder", "nowhere"), "folder nowhere"),
        (("--resolution", "18"), "expected multiples of 4"),
        (("--loss_weighting", "balanced", "--prediction_type", "epsilon"), "need v_prediction"),
        (("--resume_from_checkpoint", "latest"), "no checkpoint to resume"),
        (("--data_weights", "1", "2"), "1 data sources"),
    ],
)
def test_unsuitable_options_are_refused(run, tmp_path: Path, options, message) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", *options)


def test_a_new_text_encoder_has_to_be_trained(inputs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    options = [item for item in arguments(inputs, tmp_path) if item != "--train_text_encoder"]
    with pytest.raises(InputError, match="train_text_encoder"):
        script.main(options)


def test_a_finished_run_that_is_started_again_changes_no_file(
    run, tmp_path: Path, monkeypatch
) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        found = (path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in found}

    before = files(run(tmp_path / "run"))
    assert any(name.endswith("tokenizer.json") for name in before)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--resume_from_checkpoint", "auto"])
    after = files(run(tmp_path / "run", "--resume_from_checkpoint", "auto"))
    assert [name for name in {**before, **after} if before.get(name) != after.get(name)] == []


def test_a_checkpoint_with_damaged_weights_is_refused(run, inputs, tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    path = folder / "checkpoint-3" / "model_ema.safetensors"
    tensors = load_file(path)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, path)
    with pytest.raises(InputError, match="is of another network"):
        run(folder, "--resume_from_checkpoint", "latest", "--max_train_steps", "4")


def test_a_run_ends_at_its_time_and_has_no_more_when_resumed(run, tmp_path: Path) -> None:
    timed = ("--max_train_minutes", "0.05", "--max_train_steps", "100000")
    run(tmp_path / "timed", *timed)
    lines = [json.loads(line) for line in (tmp_path / "timed" / "log.jsonl").open()]
    steps = lines[-1]["step"]
    assert 1 < steps < 100000
    assert lines[-1]["lr"] < 2e-4  # of 1e-3, fallen by the cosine
    state = json.loads((tmp_path / "timed" / f"checkpoint-{steps}" / "state.json").read_text())
    assert state["seconds"] >= 3
    run(tmp_path / "timed", *timed, "--resume_from_checkpoint", "latest")
    assert sorted(path.name for path in (tmp_path / "timed").glob("checkpoint-*"))[-1].endswith(
        f"-{steps}"
    )


def test_magnitudes_train_beside_the_phantom(run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    (tmp_path / "set").mkdir()
    images = np.random.default_rng(0).random((3, 1, 24, 32)).astype(np.float16)
    metadata = [ScanMetadata(anatomy="brain", contrast="T2")] * 3
    write_shard(
        tmp_path / "set" / "one.safetensors",
        images,
        metadata,
        source=source,
        origins=["an open collection, CC0"],
    )
    run(
        tmp_path / "mixed",
        *("--train_data_dir", str(tmp_path / "set"), "--data_weights", "1", "1"),
        *("--native_share", "0.5", "--random_contrast", "0.2", "--field_of_view", "0.8"),
    )
    assert load_prior(tmp_path / "mixed" / "pipeline").unet.config.in_channels == 2
    card = (tmp_path / "mixed" / "pipeline" / "README.md").read_text()
    assert "- an open collection, CC0" in card
