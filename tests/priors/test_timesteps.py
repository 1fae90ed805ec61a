from __future__ import annotations

import pytest

from ctxrecon.errors import InputError
from ctxrecon.priors import quadratic_timesteps


def test_squares_from_the_start_down() -> None:
    assert quadratic_timesteps(5, start=900) == [900, 576, 324, 144, 36]
    assert quadratic_timesteps(1) == [999]


@pytest.mark.parametrize(("steps", "start"), [(1000, 999), (100, 999), (60, 99), (100, 99), (1, 0)])
def test_timesteps_are_different_and_end_low(steps: int, start: int) -> None:
    taken = quadratic_timesteps(steps, start=start)
    assert len(set(taken)) == steps
    assert taken == sorted(taken, reverse=True)
    assert taken[0] == start
    assert taken[-1] <= max(1, start / steps**2)


def test_half_of_the_steps_lie_in_the_first_quarter() -> None:
    assert sum(t <= 250 for t in quadratic_timesteps(40)) == 20


@pytest.mark.parametrize(("steps", "start"), [(0, 999), (101, 99), (3, 1000), (1, -1)])
def test_impossible_timesteps_are_refused(steps: int, start: int) -> None:
    with pytest.raises(InputError, match="expected"):
        quadratic_timesteps(steps, start=start)
