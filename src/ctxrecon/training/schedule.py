"""When a run ends, after a number of steps or at a time, and its learning rate on the way there."""

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
"""Steps of a run that ends at a time."""
_FINE = 10**6
"""Parts of a run that ends at a time, for schedules that count steps."""


class Schedule:
    """Learning rate and end of a run.

    With ``--max_train_minutes`` both follow the clock, which goes on from its reading at the
    checkpoint that a run resumes from; otherwise both follow from the step alone.

    Args:
        config: of the run.
        accelerator: of the run; the clock is that of its main process.
        seconds: that the run has taken before.

    Attributes:
        steps: the most that it takes.
        seconds: that it has taken.
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
        """Read the clock; every process has to call it, once a step."""
        self.seconds = time.monotonic() - self._began
        if self._limit is not None and self._accelerator.num_processes > 1:
            read = torch.tensor([self.seconds], device=self._accelerator.device)
            self.seconds = float(broadcast(read))

    @property
    def part(self) -> float | None:
        """How much of its time a run has had, 0 to 1; ``None`` for one that counts steps."""
        return None if self._limit is None else min(self.seconds / self._limit, 1.0)

    def rate(self, step: int) -> float:
        """Factor of the learning rate of the step that follows ``step`` others."""
        part = self.part
        if part is None:
            return self._factor(step)
        warm = min(1.0, (step + 1) / (self._warmup + 1))
        return warm * self._factor(int(part * _FINE))

    def ended(self, step: int) -> bool:
        """Whether the run is over after ``step`` steps."""
        return step >= self.steps or self.part == 1.0


def learning_rate(name: str, warmup: int, steps: int) -> Callable[[int], float]:
    """Factor of the learning rate at each step, by diffusers' schedules.

    A function of the step alone, so that nothing has to be restored on resume.
    """
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule: Any = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=steps
    )
    return schedule.lr_lambdas[0]
