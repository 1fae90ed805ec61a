"""A run's folder: protected from other runs, intact after every kill, and resumed exactly."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scripts import forget_accelerate
from tqdm.auto import tqdm

from ctxrecon import precision
from ctxrecon.errors import InputError
from ctxrecon.training import (
    TrainingConfig,
    build_accelerator,
    check_run,
    parse_config,
    train,
)
from ctxrecon.training.config import RATE, option
from ctxrecon.training.folders import check_folder, folder_beside
from ctxrecon.training.log import log_validation, read_lines
from ctxrecon.training.run_folder import claimed

pytestmark = pytest.mark.usefixtures("_on_the_cpu")
Nothing = Callable[[int], None]


@pytest.fixture
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


class Numbers:
    """Samples of a line with noise."""

    def __getitem__(self, place: tuple[int, int]) -> torch.Tensor:
        return torch.randn(5, generator=torch.Generator().manual_seed(place[1]))

    def collate(self, samples: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"numbers": torch.stack(samples)}


class Line(torch.nn.Module):
    """Predicts the last number from the others."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(4))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers = batch["numbers"]
        return (numbers[:, :4] @ self.weight - numbers[:, 4]).square()


@dataclass(frozen=True, kw_only=True)
class LineConfig(TrainingConfig):
    """The options of such a training."""

    network: str = option("line", on_resume="refused")
    learning_rate: float = option(1e-2, check=RATE)


def configured(folder: Path, *options: str) -> LineConfig:
    given = ["--output_dir", str(folder), "--report_to", "none", "--train_batch_size", "2"]
    given += ["--max_train_steps", "50", "--checkpointing_steps", "3", "--validation_steps", "3"]
    return parse_config(LineConfig, [*given, *options], description="")


def run(
    folder: Path,
    *options: str,
    samples: Numbers | None = None,
    before_export: Nothing = lambda step: None,
    before_validation: Nothing = lambda step: None,
) -> Path:
    config = configured(folder, *options)
    check_run(config)
    forget_accelerate()
    accelerator = build_accelerator(config)
    exports = []

    def export(weights: dict[str, torch.Tensor]) -> None:
        exports.append(weights)
        before_export(len(exports))
        with folder_beside(folder / "pipeline") as beside:
            (beside / "weights.json").write_text(json.dumps(weights["weight"].tolist()))

    def validate(step: int, weights: dict[str, torch.Tensor]) -> None:
        before_validation(step)
        log_validation(accelerator, folder, step, {"norm": weights["weight"].norm().item()})

    train(config, accelerator, Line(), samples or Numbers(), export=export, validate=validate)
    return folder


def in_a_child(work: Callable[[], object]) -> int:
    """The number of a process that does it."""
    child = os.fork()
    if child:
        return child
    status = 1
    with contextlib.suppress(BaseException):
        torch.set_num_threads(1)
        # The lock of tqdm is shared by processes, and a child killed with it would never return it.
        tqdm.set_lock(threading.RLock())
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            work()
        status = 0
    os._exit(status)


def kill_myself(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def result_of(folder: Path) -> dict[str, Any]:
    """Return everything that must not depend on kills."""
    logs = {
        name: [
            {key: value for key, value in line.items() if key != "seconds_per_step"}
            for line in read_lines(folder / f"{name}.jsonl")
        ]
        for name in ("log", "validation")
    }
    state = {
        f"{part}.{name}": value.tolist()
        for part in ("model", "model_ema", "optimizer")
        for name, value in load_file(folder / "checkpoint-50" / f"{part}.safetensors").items()
    }
    exported = json.loads((folder / "pipeline" / "weights.json").read_text())
    checkpoints = sorted(path.name for path in folder.glob("checkpoint-*"))
    return {**logs, "state": state, "exported": exported, "checkpoints": checkpoints}


def test_nothing_is_lost_by_kills_at_any_moment(tmp_path: Path) -> None:
    started = time.perf_counter()
    expected = result_of(run(tmp_path / "straight"))
    whole = time.perf_counter() - started
    steps = [*range(3, 50, 3), 50]
    assert [line["step"] for line in expected["validation"]] == steps
    folder = tmp_path / "killed"
    resume = ("--resume_from_checkpoint", "auto")
    moments = random.Random(0)
    deaths = 0
    for _ in range(12):
        child = in_a_child(lambda: run(folder, *resume))
        time.sleep(moments.uniform(0.0, whole / 2))
        os.kill(child, signal.SIGKILL)
        deaths += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert deaths > 0
    run(folder, *resume)
    assert result_of(folder) == expected
    assert {path.name for path in folder.glob(".*")} == {".lock"}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("moment", ["before_export", "before_validation"])
def test_a_kill_after_a_checkpoint_takes_nothing_with_it(
    tmp_path: Path, moment: str, last: bool
) -> None:
    expected = result_of(run(tmp_path / "straight"))
    folder = tmp_path / "killed"
    fatal = {"before_export": 17, "before_validation": 50} if last else {}

    def die(count: int) -> None:
        if count == fatal.get(moment, 3):
            kill_myself()

    moments: dict[str, Any] = {moment: die}
    child = in_a_child(lambda: run(folder, **moments))
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert (folder / "checkpoint-50").exists() == last
    for _ in range(2):  # and is there once, however often it is resumed
        run(folder, "--resume_from_checkpoint", "latest")
    assert result_of(folder) == expected


def test_another_run_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = contents()
    with pytest.raises(InputError, match=r"checkpoint-48.*auto"):
        run(folder, "--seed", "1")
    with pytest.raises(InputError, match="has --seed 0, not 1"):
        run(folder, "--seed", "1", "--resume_from_checkpoint", "auto")
    with pytest.raises(InputError, match="--network line, not curve"):
        run(folder, "--network", "curve", "--resume_from_checkpoint", "latest")
    with pytest.raises(InputError, match=r"newer checkpoints .checkpoint-50"):
        run(folder, "--resume_from_checkpoint", str(folder / "checkpoint-48"))
    other = run(tmp_path / "other", "--seed", "1")
    with pytest.raises(InputError, match="already contains a run"):
        run(folder, "--resume_from_checkpoint", str(other / "checkpoint-50"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, specify a folder"):
        run(tmp_path / "file" / "run")
    assert contents() == before


def test_what_a_resumed_run_does_otherwise_is_said(tmp_path: Path, caplog) -> None:
    folder = run(tmp_path / "run")
    more = ("--learning_rate", "0.5", "--max_train_steps", "60")
    run(folder, "--resume_from_checkpoint", "auto", *more)
    assert "--learning_rate changed from 0.01" in caplog.text
    assert "max_train_steps" not in caplog.text
    assert list(json.loads((folder / "config.json").read_text())) == ["from step 0", "from step 50"]


def test_a_new_folder_may_go_on_from_the_checkpoint_of_another_run(tmp_path: Path) -> None:
    first = run(tmp_path / "first")
    steps = ("--max_train_steps", "55", "--resume_from_checkpoint", str(first / "checkpoint-50"))
    second = run(tmp_path / "second", *steps)
    assert [line["step"] for line in read_lines(second / "validation.jsonl")] == [51, 54, 55]


def test_auto_starts_anew_only_where_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(InputError, match=r"no checkpoint .*auto"):
        run(folder, "--resume_from_checkpoint", "latest")
    assert not folder.exists()
    run(folder, "--resume_from_checkpoint", "auto", "--max_train_steps", "2")
    (folder / "checkpoint-2" / "optimizer.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="no complete checkpoint"):
        run(folder, "--resume_from_checkpoint", "auto")


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog) -> None:
    folder = run(tmp_path / "run")
    expected = result_of(folder)
    weights = folder / "checkpoint-50" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    run(folder, "--resume_from_checkpoint", "auto")
    assert "checkpoint-50 is damaged" in caplog.text
    assert result_of(folder) == expected


def test_two_trainings_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = configured(folder, "--resume_from_checkpoint", "auto")
    forget_accelerate()
    accelerator = build_accelerator(config)
    with claimed(config, accelerator) as checkpoint:
        assert checkpoint is None
        with pytest.raises(InputError, match="another training is writing"):
            check_run(config)
        refused = claimed(config, accelerator)
        with pytest.raises(InputError, match="another training is writing"):
            refused.__enter__()
    run(folder)  # a lock that nobody holds is none


def test_an_emulated_precision_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(precision, "_capabilities", lambda: {"architecture": "x86_64"})
    for value, warns in (("no", False), ("bf16", True)):
        forget_accelerate()
        build_accelerator(configured(tmp_path / value, "--mixed_precision", value))
        assert ("no instructions for bfloat16" in caplog.text) == warns
    forget_accelerate()


def test_what_is_not_finite_never_becomes_a_checkpoint(tmp_path: Path) -> None:
    class Damaged(Numbers):
        def __getitem__(self, place: tuple[int, int]) -> torch.Tensor:
            return super().__getitem__(place) / (0 if place[0] == 10 else 1)

    folder = tmp_path / "run"
    with pytest.raises(InputError, match=r"step 12: .*--learning_rate"):
        run(folder, samples=Damaged())
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == [
        "checkpoint-6",
        "checkpoint-9",
    ]


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_written_files_have_the_mode_that_the_umask_asks_for(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = run(tmp_path / "run", "--max_train_steps", "3")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~umask}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="/proc/run"):
        check_folder(Path("/proc/run"))
    check_folder(tmp_path / "new" / "folders")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["log.jsonl", "config.json"])
def test_damaged_notes_are_refused(tmp_path: Path, name: str) -> None:
    folder = run(tmp_path / "run", "--max_train_steps", "3")
    (folder / name).write_text("[1]\n")
    with pytest.raises(InputError, match=rf"{name}.*(fix|damaged|restore)"):
        run(folder, "--resume_from_checkpoint", "auto")
