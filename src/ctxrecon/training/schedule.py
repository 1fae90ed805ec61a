"""Learning rate and end of a run, by steps or by time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.optimization import get_scheduler
from torch import nn

from ctxrecon.training.config import TrainingConfig

_ENDLESS = 10**9
"""Number of steps of a run that is limited by time."""
_FINE = 10**6
"""Resolution of a time-limited run for schedules that count steps."""


class Schedule:
    """Learning rate and end of a run.

    With ``--max_train_minutes`` both depend on the elapsed time, including the time before the
    checkpoint that a run resumes from; otherwise both depend on the step only.

    Args:
        config: Configuration of the run.
        accelerator: Accelerator of the run; the clock of its main process is used.
        seconds: Elapsed training time before this start.

    Attributes:
        steps: Maximum number of steps.
        seconds: Elapsed training time.
    """

    def __init__(
        self, config: TrainingConfig, accelerator: Accelerator, seconds: float = 0.0
    ) -> None:
        self.steps = config.max_train_steps or _ENDLESS
        self._warmup = config.lr_warmup_steps
        minutes = config.max_train_minutes
        self._limit = None if minutes is None else 60 * minutes
        self._accelerator = accelerator
        self._factor = learning_rate(
            config.lr_scheduler,
            0 if self._limit else self._warmup,
            _FINE if self._limit else self.steps,
        )
        self._began = time.monotonic() - seconds
        self.seconds = seconds

    def tick(self) -> None:
        """Read the clock; every process must call this once per step."""
        self.seconds = time.monotonic() - self._began
        if self._limit is not None and self._accelerator.num_processes > 1:
            read = torch.tensor([self.seconds], device=self._accelerator.device)
            self.seconds = float(broadcast(read))

    @property
    def part(self) -> float | None:
        """Elapsed share of the training time, 0 to 1; ``None`` for a run limited by steps."""
        return None if self._limit is None else min(self.seconds / self._limit, 1.0)

    def rate(self, step: int) -> float:
        """Return the learning-rate factor of the next step after ``step`` steps."""
        part = self.part
        if part is None:
            return self._factor(step)
        warm = min(1.0, (step + 1) / (self._warmup + 1))
        return warm * self._factor(int(part * _FINE))

    def ended(self, step: int) -> bool:
        """Return whether the run is over after ``step`` steps."""
        return step >= self.steps or self.part == 1.0


def learning_rate(name: str, warmup: int, steps: int) -> Callable[[int], float]:
    """Return the learning-rate factor as a function of the step, from diffusers' schedules.

    It depends on the step alone, so that nothing has to be restored on resume.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule: Any = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=steps
    )
    return schedule.lr_lambdas[0]
