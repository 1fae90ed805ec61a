"""When runs end and how their learning rate falls."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import Accelerator

from ctxrecon.training.config import UsageError
from ctxrecon.training.prior import PriorConfig
from ctxrecon.training.schedule import Schedule


def schedule(seconds: float = 0.0, **options) -> Schedule:
    config = PriorConfig(
        output_dir=Path("out"), lr_scheduler="linear", lr_warmup_steps=4, **options
    )
    return Schedule(config, Accelerator(cpu=True), seconds)


def test_a_run_of_steps_follows_its_steps() -> None:
    by_steps = schedule(max_train_steps=14)
    assert by_steps.part is None
    assert [by_steps.rate(step) for step in (0, 2, 4, 9)] == pytest.approx([0, 0.5, 1, 0.5])
    assert (by_steps.ended(13), by_steps.ended(14)) == (False, True)


def test_a_run_of_minutes_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("ctxrecon.training.schedule.time.monotonic", lambda: now[0])
    by_time = schedule(max_train_minutes=2)
    assert by_time.rate(0) == pytest.approx(0.2)  # it warms up by steps
    now[0] += 60
    by_time.tick()
    assert (by_time.part, by_time.rate(100)) == pytest.approx((0.5, 0.5))
    assert not by_time.ended(10**6)
    now[0] += 61
    by_time.tick()
    assert by_time.ended(3)
    assert by_time.rate(100) == pytest.approx(0)


def test_a_resumed_run_has_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxrecon.training.schedule.time.monotonic", lambda: 7.0)
    resumed = schedule(90.0, max_train_minutes=2)
    assert (resumed.seconds, resumed.part) == pytest.approx((90, 0.75))
    assert schedule(120.0, max_train_minutes=2).ended(5)
    assert schedule(1.0, max_train_minutes=2, max_train_steps=5).ended(5)


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(UsageError, match="max_train_minutes"):
        schedule()
