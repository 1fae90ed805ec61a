"""The lines that a run writes: losses, validations, and its options."""

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

    Lines of later steps than that from which a run is resumed are dropped: those steps are done
    again.

    Args:
        config: of the run.
        accelerator: of the run.
        start: step from which it goes on.
        losses: those since the last line, of the run that is resumed.
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
        """The loss of one micro-batch on this process."""
        self.losses.append(loss)

    def pending(self, step: int) -> list[float]:
        """The losses since the last line, of all processes; each of them has to call it.

        Raises:
            InputError: they are not finite.
        """
        if not self.losses:
            return []
        losses = self.accelerator.reduce(torch.stack(self.losses), reduction="mean")
        self._check(losses.mean().item(), step)
        return losses.tolist()

    def step(self, step: int, rate: float, schedule: Schedule) -> None:
        """Note an optimiser step, which had this learning rate."""
        self.bar.update()
        if step % _LOG_STEPS and not schedule.ended(step):
            return
        mean = self.accelerator.reduce(torch.stack(self.losses).mean(), reduction="mean").item()
        seconds = (time.monotonic() - self.began) / (step - self.first)
        self.losses.clear()
        self._check(mean, step)
        part = schedule.part
        time_had = {} if part is None else {"of its time": f"{part:.0%}"}
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
                "data; the checkpoints before are as they were"
            )

    def close(self) -> None:
        """End the bar."""
        self.bar.close()


def write_line(path: Path, line: dict[str, Any]) -> None:
    """Append one JSON line at once."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; none where there is no file.

    A part of a line at the end, left by a killed run, does not count.

    Raises:
        InputError: a damaged line.
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
                "mend or remove that line"
            ) from error
    return found


def _drop_later_lines(path: Path, step: int) -> None:
    """Keep the lines up to a step, one for each."""
    if not path.is_file():
        return
    kept = {line["step"]: line for line in read_lines(path) if line["step"] <= step}
    with written_beside(path) as beside:
        beside.write_text("".join(json.dumps(line) + "\n" for line in kept.values()), "utf-8")


def has_validation(folder: Path, step: int) -> bool:
    """Whether the validation of this step is written."""
    return any(line["step"] == step for line in read_lines(folder / _VALIDATIONS))


def log_validation(
    accelerator: Accelerator,
    folder: Path,
    step: int,
    scores: dict[str, float],
    picture: Path | None = None,
) -> None:
    """Write scores to ``validation.jsonl``, trackers and terminal; show the picture in trackers."""
    write_line(folder / _VALIDATIONS, {"step": step, **scores})
    accelerator.log({f"validation/{name}": value for name, value in scores.items()}, step=step)
    if picture is not None:
        show_picture(accelerator, picture, step)
    accelerator.print(json.dumps({"step": step, **scores}))


def write_config(
    config: TrainingConfig, accelerator: Accelerator, start: int, *, finished: bool
) -> None:
    """The resolved options beside the run, those of each resume under its first step.

    A finished run that is started again trains nothing and adds nothing.
    """
    path = config.output_dir / CONFIG
    if (finished and path.is_file()) or not accelerator.is_main_process:
        return
    runs = read_stages(path) if start else {}
    world = {"num_processes": accelerator.num_processes, "device": str(accelerator.device)}
    threads = {"torch_threads": torch.get_num_threads()}
    runs[f"{STAGE}{start}"] = {**config.as_json(), **world, **threads, "command": sys.argv}
    write_json(path, runs)
