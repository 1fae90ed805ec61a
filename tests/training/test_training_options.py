"""Options of the training scripts, and how the scripts end."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from scripts import TRAINING, load_script, start

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import SAMPLERS
from ctxrecon.reconstructors import RECONSTRUCTORS, UNetReconstructor
from ctxrecon.training import TrainingConfig, UsageError, masks, run_script
from ctxrecon.training import script as ending
from ctxrecon.training.options import build_from_text
from ctxrecon.training.samplers import build_sampler, calibration, middle_acceleration
from ctxrecon.training.scans import check_calibration
from ctxrecon.training.trackers import show_picture, start_trackers

SUBJECTS = ("prior", "clip", "reconstructor", "masks", "tasks")
NEEDED = ["--output_dir", "run", "--max_train_steps", "3", "--bank", "bank.npz"]


def parsed(subject: str, *options: str) -> TrainingConfig:
    return import_module(f"ctxrecon.training.{subject}").parse_args([*NEEDED, *options])


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ema_decay", "2"),
        ("ema_decay", "1"),
        ("learning_rate", "nan"),
        ("learning_rate", "-1"),
        ("learning_rate", "fast"),
        ("max_train_steps", "0"),
        ("max_train_steps", "1e3"),
        ("train_batch_size", "0"),
        ("train_batch_size", "1000000000"),
        ("adam_beta1", "1"),
        ("adam_epsilon", "0"),
        ("max_grad_norm", "inf"),
        ("lr_warmup_steps", "-1"),
        ("lr_scheduler", "step"),
        ("dataloader_num_workers", "-1"),
        ("seed", "-1"),
        ("seed", "99999999999"),
        ("resolution", "1000000"),
        ("resolution", "0"),
        ("mixed_precision", "fp8"),
        ("report_to", "paper"),
        ("no_such_option", "1"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name: str, option: str, value: str) -> None:
    with pytest.raises(UsageError, match=option):
        parsed(name, f"--{option}", value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prior", ("--data_weights", "1", "-1")),
        ("prior", ("--prompt_dropout", "1.5")),
        ("prior", ("--field_of_view", "0")),
        ("prior", ("--snr_gamma", "0")),
        ("clip", ("--readout_weight", "nan")),
        ("reconstructor", ("--num_coils", "8", "0")),
        ("reconstructor", ("--paired_start", "9", "--paired_end", "3")),
        ("reconstructor", ("--critic_steps", "0")),
        ("reconstructor", ("--accelerations", "4", "inf")),
        ("masks", ("--task_weight", "0")),
        ("masks", ("--center_fraction", "1.5")),
        ("masks", ("--validation_scans", "-4")),
        ("tasks", ("--target", "liver")),
        ("tasks", ("--latent_weight", "-1")),
        ("tasks", ("--raters", "0")),
    ],
)
def test_values_of_one_script(name: str, options: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=options[0]):
        parsed(name, *options)


def test_a_bank_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing to draw"):
        load_script("build_bank").main(["--output", "x.npz", "--knees", "0", "--brains", "0"])


def test_tensorboard_is_the_default_where_there_is_one(monkeypatch, caplog) -> None:
    there = "ctxrecon.training.trackers.get_available_trackers"
    monkeypatch.setattr(there, lambda: ["tensorboard", "wandb"])
    assert parsed("clip").report_to == "tensorboard"
    assert parsed("clip", "--report_to", "wandb").report_to == "wandb"
    assert parsed("clip", "--report_to", "all").report_to == "all"
    monkeypatch.setattr(there, lambda: [])
    with caplog.at_level("INFO", "ctxrecon.training"):
        assert parsed("clip").report_to == "none"
    assert "tensorboard is not installed" in caplog.text
    for name, package in (("tensorboard", "train"), ("comet_ml", "comet-ml"), ("wandb", "wandb")):
        with pytest.raises(InputError, match=rf"needs {name}.*pip install.*{package}"):
            parsed("clip", "--report_to", name)
    with pytest.raises(InputError, match="no tracker is installed"):
        parsed("clip", "--report_to", "all")


class Tracker:
    """What accelerate's trackers share, and pictures as some of them take them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.options: dict[str, Any] = {}
        self.shown: Any = None

    def store_init_configuration(self, options: dict[str, Any]) -> None:
        self.options = options

    def log_images(self, values: dict[str, Any], step: int, **more: str) -> None:
        self.shown = values["validation"]


def test_trackers_get_the_options_and_pictures_in_their_own_form(tmp_path: Path) -> None:
    names = ("tensorboard", "wandb", "aim")
    trackers = [Tracker(name) for name in names]
    started = []
    accelerator: Any = SimpleNamespace(
        log_with=list(names),
        trackers=trackers,
        init_trackers=lambda project, **more: started.append((project, more)),
    )
    start_trackers(accelerator, {"seed": 3}, 5)
    assert started == [("tracker", {"init_kwargs": {"tensorboard": {"purge_step": 6}}})]
    assert [one.options for one in trackers] == [{}, {"seed": 3}, {"seed": 3}]
    Image.new("RGB", (4, 3)).save(tmp_path / "picture.png")
    show_picture(accelerator, tmp_path / "picture.png", 5)
    assert trackers[0].shown.shape == (1, 3, 4, 3)
    assert [one.shape for one in trackers[1].shown] == [(3, 4, 3)]
    assert trackers[2].shown.size == (4, 3)


def test_a_tracker_that_does_not_start_is_refused() -> None:
    def refused(*_: object, **more: object) -> None:
        raise RuntimeError("no API key")

    accelerator: Any = SimpleNamespace(log_with=["wandb"], init_trackers=refused)
    with pytest.raises(InputError, match=r"wandb .*no API key"):
        start_trackers(accelerator, {}, 0)


@pytest.mark.parametrize(
    ("text", "keyword"),
    [
        ("varnet:cascade=4", "'cascade'"),
        ("varnet:cascades=a", "whole number, got 'a'"),
        ("varnet:cascades=1.5", "whole number, got 1.5"),
        ("varnet:cascades=true", "whole number, got True"),
        ("varnet:cascades=1000000000", "cascades up to 1024"),
        ("varnet:learned_maps=2", "true or false"),
        ("varnet:text_width", "text_width"),
        ("modl:damping=NaN", "damping as a number"),
        ("modl:damping=[1]", "damping as a number"),
        ("unet:width=1024:depth=9", "parameters"),
        ("transformer", "unknown --network"),
    ],
)
def test_networks_are_checked_before_they_are_built(text: str, keyword: str) -> None:
    with pytest.raises(InputError) as refused:
        build_from_text("--network", text, RECONSTRUCTORS)
    assert keyword in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "pattern_generator:ratios=5",
        "pattern_generator:ratios=[0.1]",
        'pattern_generator:ratios=["a",1]',
        "pattern_generator:slope=steep",
        "loupe:lines=maybe",
        "loupe:shape=3",
        "per_contrast",
    ],
)
def test_samplers_are_checked_before_they_are_built(text: str) -> None:
    with pytest.raises(InputError, match="--sampler"):
        build_from_text("--sampler", text, SAMPLERS, {"acceleration": 4.0, "shape": (32, 32)})


def test_the_check_of_a_network_draws_no_random_numbers() -> None:
    torch.manual_seed(1)
    expected = UNetReconstructor(width=4, depth=1).state_dict()
    torch.manual_seed(1)
    network = build_from_text("--network", "unet:width=4:depth=1", RECONSTRUCTORS)
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_a_sampler_keeps_the_center_that_coil_maps_need() -> None:
    network = ("--network", "unet:width=4:depth=1")
    given = ("--sampler", "pattern_generator:ratios=[0.06,0.25]", *network)

    def sampler(*options: str) -> Any:
        config: Any = parsed("masks", *given, *options)
        return masks.starting_point(config).sampler

    assert sampler().budget(1 / 0.06).kept == 4
    assert sampler("--num_coils", "1").budget(1 / 0.06).kept == 2
    center = calibration(sampler("--center_fraction", "0.02"))
    with pytest.raises(InputError, match=r"--center_fraction 0\.0313"):
        check_calibration(center, 8, "the sampler")


def built(text: str, **options: Any) -> Any:
    given = {"acceleration": None, "center_fraction": None, "num_coils": 1, **options}
    torch.manual_seed(3)
    return build_sampler(text, 128, default_acceleration=5.0, **given)


def test_a_wider_center_leaves_the_weights_as_they_are() -> None:
    text = "loupe:acceleration=16"
    alone, array = built(text), built(text, num_coils=8)
    assert alone.budget().kept < array.budget().kept == 4
    assert torch.equal(alone.weights, array.weights)


def test_samplers_of_fixed_masks_go_by_the_names_of_the_masks() -> None:
    assert built("uniform1d").acceleration == 5
    named = built("variable_density2d:acceleration=6", center_fraction=0.1)
    assert (named.mask, named.acceleration, named.center_fraction) == ("variable_density2d", 6, 0.1)
    assert middle_acceleration(named) is None
    assert middle_acceleration(built("pattern_generator:ratios=[0.1,0.3]")) == pytest.approx(5)


@pytest.mark.parametrize(
    ("error", "status", "keyword"),
    [
        (InputError("no\nsuch scan"), 1, "error: no such scan"),
        (UsageError("no such option"), 2, "error: no such option"),
        (OSError(28, "No space left on device", "log.jsonl"), 1, "log.jsonl: No space left"),
        (PermissionError(13, "Permission denied", "bank.npz"), 1, "bank.npz: Permission denied"),
        (ModuleNotFoundError("No module named 'x'", name="x"), 1, "the package x"),
        (torch.OutOfMemoryError("CUDA out of memory"), 1, "lower --train_batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "lower --train_batch_size"),
        (KeyboardInterrupt(), 130, "--resume_from_checkpoint auto"),
        (InputError("Caught InputError in worker 0.\nx\nc.InputError: no scan"), 1, "or: no scan"),
    ],
)
def test_a_script_ends_with_a_sentence_and_a_status(error, status, keyword, capsys) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_script(main)
    assert stopped.value.code == status
    said = capsys.readouterr().err
    assert keyword in said
    assert len(said.strip().splitlines()) == 1


def test_other_processes_wait_until_the_main_one_has_spoken(monkeypatch, capsys) -> None:
    waited: list[float] = []
    monkeypatch.setattr(ending.time, "sleep", waited.append)
    monkeypatch.setenv("WORLD_SIZE", "2")

    def refused() -> None:
        raise InputError("no bank")

    def broken() -> None:
        raise RuntimeError("connection closed by peer")

    for rank, main, patience in (("0", refused, 0), ("1", refused, 1), ("0", broken, 1)):
        monkeypatch.setenv("RANK", rank)
        waited.clear()
        with pytest.raises((SystemExit, RuntimeError)):
            run_script(main)
        assert len(waited) == patience
    assert capsys.readouterr().err.count("error: no bank") == 2


def test_accelerate_adds_nothing_to_the_sentence(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--config_file"]
    launch += [str(TRAINING / "accelerate" / "single.yaml"), str(TRAINING / "train_clip.py")]
    options = ["--bank", str(tmp_path / "none.npz"), "--output_dir", str(tmp_path / "run")]
    done = start([*launch, *options, "--max_train_steps", "1"], status=1)
    said = [line for line in done.stderr.splitlines() if line]
    assert [line for line in said if line.startswith("error: no anatomy bank")] == said[-1:]
    assert "Traceback" not in done.stderr
    assert "not passed" not in done.stderr
    assert not (tmp_path / "run").exists()
