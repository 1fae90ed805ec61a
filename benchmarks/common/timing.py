"""Timing of calls that run in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch


def timed(
    entries: Mapping[str, Callable[[], object]], turns: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Time each call in turn; return the seconds of each turn after an optional warm-up turn."""
    seconds: dict[str, list[float]] = {name: [] for name in entries}
    for turn in range(0 if warm_up else 1, turns + 1):
        for name, entry in entries.items():
            started = time.perf_counter()
            entry()
            synchronize()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
