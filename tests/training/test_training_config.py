"""Configurations of training: files of options, a run's own file, and ``ctxrecon train``."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from scripts import forget_accelerate, start
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from ctxrecon.cli import main
from ctxrecon.errors import InputError
from ctxrecon.training import TrainingConfig, UsageError, read_config
from ctxrecon.training.clip import ClipConfig
from ctxrecon.training.config import fields_of
from ctxrecon.training.masks import MasksConfig
from ctxrecon.training.prior import PriorConfig, parse_args
from ctxrecon.training.reconstructor import ReconstructorConfig
from ctxrecon.training.tasks import TasksConfig

CONFIGS = {
    "prior": PriorConfig,
    "clip": ClipConfig,
    "reconstructor": ReconstructorConfig,
    "masks": MasksConfig,
    "tasks": TasksConfig,
}
NEEDED = {"output_dir": "run", "max_train_steps": 3}
OPTIONS = {
    "learning_rate": 2e-4,
    "resolution": [32, 64],
    "train_text_encoder": True,
    "train_data_dir": ["one", "two"],
    "bank": "bank.npz",
    "lr_scheduler": "linear",
    "report_to": "none",
}


def written(folder: Path, options: object, name: str = "options.yaml") -> Path:
    path = folder / name
    path.write_text(json.dumps(options) if path.suffix == ".json" else yaml.safe_dump(options))
    return path


@pytest.mark.parametrize("name", ["options.yaml", "options.yml", "options.json"])
def test_a_file_and_a_command_line_say_the_same(tmp_path: Path, name: str) -> None:
    words = []
    for option, value in {**NEEDED, **OPTIONS}.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{option}", *map(str, values)]
    path = written(tmp_path, {**NEEDED, **OPTIONS}, name)
    config = parse_args([str(path)])
    assert config == parse_args(words) == read_config(PriorConfig, path)
    assert config.train_data_dir == [Path("one"), Path("two")]


def test_options_override_a_file_and_a_file_overrides_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, {**NEEDED, **OPTIONS, "snr-gamma": 3, "adam_epsilon": "1e-6"})
    more = ["--learning-rate=1e-3", "--train_text_encoder", "false", "--resolution", "16"]
    config = parse_args([str(path), *more, "--seed", "7"])
    assert (config.learning_rate, config.resolution, config.seed) == (1e-3, [16], 7)
    assert not config.train_text_encoder
    assert (config.snr_gamma, config.adam_epsilon, config.lr_scheduler) == (3.0, 1e-6, "linear")
    assert config.prompt_dropout == 0.1


@pytest.mark.parametrize(
    ("options", "keyword"),
    [
        ({"learning_rat": 1}, "learning_rate"),
        ({"ema_decay": 2}, "ema_decay"),
        ({"max_train_steps": 2.5}, "max_train_steps"),
        ({"max_train_steps": True}, "max_train_steps"),
        ({"resolution": []}, "resolution"),
        ({"resolution": [32, [64]]}, "resolution"),
        ({"bank": 3}, "bank"),
        ({"subfolder": ["a"]}, "subfolder"),
        ({"train_text_encoder": "yes please"}, "train_text_encoder"),
        ({"lr_scheduler": "step"}, "lr_scheduler"),
        ({"mixed_precision": False}, "in quotes"),
        ({1: 2}, "no option '1'"),
    ],
)
def test_bad_options_in_a_file_are_refused_with_its_name(tmp_path: Path, options, keyword) -> None:
    path = written(tmp_path, {**NEEDED, **options})
    with pytest.raises(UsageError, match=keyword) as refused:
        parse_args([str(path)])
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("[1, 2]", "no options by name"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("[" * 100_000, "not valid YAML"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("# " + "x" * 2**20, "bytes"),
        (b"\xff", "not valid YAML"),
    ],
)
def test_files_that_hold_no_options_are_refused(tmp_path: Path, text, keyword: str) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=keyword) as refused:
        parse_args([str(path)])
    assert len(str(refused.value)) < 600


def test_a_small_file_that_unfolds_to_a_large_value_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = tmp_path / "options.yaml"
    path.write_text("\n".join(lines) + "\nresolution: *a11\n")
    with pytest.raises(UsageError, match="no option 'a0'"):
        parse_args([str(path)])
    path.write_text("\n".join(lines).replace("a11: &a11", "resolution:") + "\n")
    with pytest.raises(UsageError):
        parse_args([str(path)])


def test_misplaced_missing_and_other_files(tmp_path: Path) -> None:
    path = written(tmp_path, {**NEEDED, **OPTIONS})
    with pytest.raises(InputError, match="cannot be read"):
        parse_args([str(tmp_path / "none.yaml")])
    with pytest.raises(UsageError, match=r"neither in \.yaml"):
        parse_args(["options.toml"])
    with pytest.raises(UsageError, match=rf"unrecognized.*{path.name}"):
        parse_args(["--output_dir", "run", "--max_train_steps", "1", str(path)])
    with pytest.raises(UsageError, match="max_train_steps"):
        read_config(PriorConfig, written(tmp_path, {"output_dir": "run"}))


@pytest.mark.parametrize("config", CONFIGS.values())
def test_a_configuration_goes_through_its_json(tmp_path: Path, config) -> None:
    options = {"output_dir": tmp_path, "max_train_steps": 5, "bank": tmp_path / "bank.npz"}
    made = config(**options, learning_rate=0.5, resume_from_checkpoint="auto")
    path = tmp_path / "config.json"
    notes = {"num_processes": 1, "device": "cpu", "torch_threads": 1, "command": ["x.py", "--y"]}
    stages = {"from step 0": {}, "from step 3": {**made.as_json(), **notes}}
    path.write_text(json.dumps(stages))
    assert read_config(config, path) == made
    known = fields_of(config).values()
    assert {one.option.on_resume for one in known} <= {"refused", "logged", "free"}


def test_a_configuration_made_in_python_is_checked_and_cannot_change() -> None:
    config = TrainingConfig(output_dir=Path("run"), max_train_steps=3)
    assert config.output_dir == Path("run")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3  # type: ignore[misc]
    with pytest.raises(UsageError, match=r"seed.*from 0 to"):
        TrainingConfig(output_dir=Path("run"), max_train_steps=3, seed=-1)
    with pytest.raises(UsageError, match="paired_end"):
        ReconstructorConfig(output_dir=Path("run"), max_train_steps=3, paired_end=1)


def status(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("subject", CONFIGS)
def test_help_lists_the_options(subject: str, capsys) -> None:
    assert status("train", subject, "--help") == 0
    said = capsys.readouterr().out
    assert f"ctxrecon train {subject}" in said
    assert all(f"--{name} " in said for name in fields_of(CONFIGS[subject]))


def test_the_command_refuses_as_the_scripts_do(tmp_path: Path, capsys) -> None:
    needed = ("--output_dir", tmp_path / "run", "--max_train_steps", 1)
    bank = ("--bank", tmp_path / "none.npz")
    assert status("train", "clip", *needed, *bank, "--ema_decay", 2) == 2
    assert "--ema_decay" in capsys.readouterr().err
    assert status("train", "clip", *needed, *bank, "--num_processes", 0) == 2
    assert "--num_processes" in capsys.readouterr().err
    assert status("train", "clip", *needed, *bank, "--num_processes", 2, "--seed", "x") == 2
    assert "--seed" in capsys.readouterr().err
    assert status("train", "clip", *needed, *bank) == 1
    assert "no anatomy bank" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_from_a_file_through_the_command_line(bank, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forget_accelerate()
    options = {
        "bank": str(bank),
        "output_dir": str(tmp_path / "run"),
        "network": "unrolled:width=4:iterations=1:blocks=1",
        "resolution": 32,
        "masks": ["variable_density2d"],
        "center_fraction": 0.25,
        "num_coils": [3],
        "train_batch_size": 2,
        "report_to": "none",
        "validation_scans": 1,
    }
    monkeypatch.setattr(sys, "argv", ["bin/ctxrecon", "train", "reconstructor", "options.yaml"])
    path = written(tmp_path, options)
    main_words = ["train", "reconstructor", str(path), "--max-train-steps", "2"]
    main_words += ["--accelerations", "3"]
    with pytest.raises(SystemExit) as stopped:
        main(main_words)
    assert not stopped.value.code
    config = read_config(ReconstructorConfig, tmp_path / "run" / "config.json")
    assert (config.max_train_steps, config.accelerations) == (2, [3.0])
    card = (tmp_path / "run" / "pipeline" / "README.md").read_text()
    assert "Last command: `ctxrecon train reconstructor options.yaml`" in card
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "apache-2.0"
    assert head["datasets"] == ["ctxrecon-phantom"]
    scores = json.loads((tmp_path / "run" / "validation.jsonl").read_text())
    (result,) = head["model-index"][0]["results"]
    found = {one["type"]: one["value"] for one in result["metrics"]}
    assert found["psnr"] == pytest.approx(scores["psnr"], abs=1e-4)
    assert "step 2" in result["dataset"]["name"]


def test_several_processes_by_accelerates_launcher(bank, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ctxrecon.cli", "train", "clip", "--num_processes", "2"]
    command += ["--bank", str(bank), "--output_dir", str(tmp_path / "run"), "--resolution", "32"]
    command += ["--train_batch_size", "2", "--max_train_steps", "2", "--report_to", "none"]
    start(command)
    stage = json.loads((tmp_path / "run" / "config.json").read_text())["from step 0"]
    assert stage["num_processes"] == 2
    assert (tmp_path / "run" / "clip" / "text_encoder" / "config.json").is_file()


def test_the_status_is_that_of_the_process_that_failed(bank, tmp_path, monkeypatch) -> None:
    words = []

    def launch(arguments: argparse.Namespace) -> None:
        words.extend([arguments.training_script, *arguments.training_script_args])
        failure = ProcessFailure(local_rank=1, pid=1, exitcode=130, error_file="none")
        raise ChildFailedError("training", {1: failure})

    monkeypatch.setattr("accelerate.commands.launch.launch_command", launch)
    options = ["--bank", str(bank), "--output_dir", str(tmp_path), "--max_train_steps", "2"]
    assert status("train", "clip", *options, "--num-processes", "2") == 130
    assert words == ["ctxrecon.training.clip", *options]


@pytest.mark.parametrize("subject", CONFIGS)
def test_modules_are_what_accelerate_launches(subject: str) -> None:
    assert callable(import_module(f"ctxrecon.training.{subject}").main)
    assert import_module(f"ctxrecon.training.{subject}.__main__")
