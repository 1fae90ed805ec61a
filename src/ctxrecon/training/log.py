"""Logging of losses, validation scores and options of a run."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm.auto import tqdm

from ctxrecon.errors import InputError
from ctxrecon.files import write_json, written_beside
from ctxrecon.training.config import STAGE, TrainingConfig
from ctxrecon.training.run_folder import CONFIG, LOGS, read_stages
from ctxrecon.training.schedule import Schedule
from ctxrecon.training.trackers import show_picture, start_trackers

_LOG_STEPS = 20
_LOSSES, _VALIDATIONS = LOGS


class Log:
    """Progress bar, ``log.jsonl`` and trackers.

    Lines after the step from which a run resumes are removed, since those steps are repeated.

    Args:
        config: Configuration of the run.
        accelerator: Accelerator of the run.
        start: Step from which the run continues.
        losses: Losses since the last line of the log, if the run is resumed.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Accelerator,
        start: int,
        losses: Sequence[float] = (),
    ) -> None:
        self.accelerator = accelerator
        self.path = config.output_dir / _LOSSES
        self.losses = [torch.tensor(loss, device=accelerator.device) for loss in losses]
        self.first, self.began = start, time.monotonic()
        self.bar = tqdm(
            total=None if config.max_train_minutes else config.max_train_steps,
            initial=start,
            unit="step",
            disable=not accelerator.is_main_process,
        )
        if not accelerator.is_main_process:
            return
        self.path.touch()
        for name in LOGS:
            _drop_later_lines(config.output_dir / name, start)
        start_trackers(accelerator, config.as_json(), start)

    def add(self, loss: Tensor) -> None:
        """Record the loss of one micro-batch on this process."""
        self.losses.append(loss)

    def pending(self, step: int) -> list[float]:
        """Return the losses since the last line, of all processes; each process must call this.

        Raises:
            InputError: If they are not finite.
        """
        if not self.losses:
            return []
        losses = self.accelerator.reduce(torch.stack(self.losses), reduction="mean")
        self._check(losses.mean().item(), step)
        return losses.tolist()

    def step(self, step: int, rate: float, schedule: Schedule) -> None:
        """Record an optimizer step and its learning rate."""
        self.bar.update()
        if step % _LOG_STEPS and not schedule.ended(step):
            return
        mean = self.accelerator.reduce(torch.stack(self.losses).mean(), reduction="mean").item()
        seconds = (time.monotonic() - self.began) / (step - self.first)
        self.losses.clear()
        self._check(mean, step)
        part = schedule.part
        time_had = {} if part is None else {"time": f"{part:.0%}"}
        self.bar.set_postfix(loss=f"{mean:.4f}", **time_had)
        if self.accelerator.is_main_process:
            line = {"step": step, "loss": mean, "lr": rate, "seconds_per_step": round(seconds, 3)}
            write_line(self.path, line)
            self.accelerator.log({"loss": mean, "lr": rate}, step=step)

    @staticmethod
    def _check(mean: float, step: int) -> None:
        if not math.isfinite(mean):
            raise InputError(
                f"the loss is {mean} at step {step}: lower --learning_rate, or look for damaged "
                "data; earlier checkpoints are intact"
            )

    def close(self) -> None:
        """Close the progress bar."""
        self.bar.close()


def write_line(path: Path, line: dict[str, Any]) -> None:
    """Append one line of JSON."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a log; an absent file has none.

    An incomplete last line, left by a killed run, is ignored.

    Raises:
        InputError: If a line is damaged.
    """
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    found = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            found.append(json.loads(line))
            int(found[-1]["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise InputError(
                f"{path}, line {number}: expected a JSON object with a step, got {line[:60]!r}: "
                "fix or remove that line"
            ) from error
    return found


def _drop_later_lines(path: Path, step: int) -> None:
    """Keep the lines up to a step, one per step."""
    if not path.is_file():
        return
    kept = {line["step"]: line for line in read_lines(path) if line["step"] <= step}
    with written_beside(path) as beside:
        beside.write_text("".join(json.dumps(line) + "\n" for line in kept.values()), "utf-8")


def has_validation(folder: Path, step: int) -> bool:
    """Return whether the validation of a step is already logged."""
    return any(line["step"] == step for line in read_lines(folder / _VALIDATIONS))


def log_validation(
    accelerator: Accelerator,
    folder: Path,
    step: int,
    scores: dict[str, float],
    picture: Path | None = None,
) -> None:
    """Write scores to ``validation.jsonl``, trackers and terminal, and show the picture."""
    write_line(folder / _VALIDATIONS, {"step": step, **scores})
    accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step=step)
    if picture is not None:
        show_picture(accelerator, picture, step)
    accelerator.print(json.dumps({"step": step, **scores}))


def write_config(
    config: TrainingConfig, accelerator: Accelerator, start: int, *, finished: bool
) -> None:
    """Write the resolved options, those of each resume under its first step.

    Restarting a finished run adds nothing.
    """
    path = config.output_dir / CONFIG
    if (finished and path.is_file()) or not accelerator.is_main_process:
        return
    runs = read_stages(path) if start else {}
    world = {"num_processes": accelerator.num_processes, "device": str(accelerator.device)}
    threads = {"torch_threads": torch.get_num_threads()}
    runs[f"{STAGE}{start}"] = {**config.as_json(), **world, **threads, "command": sys.argv}
    write_json(path, runs)
