from __future__ import annotations

import math

import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.masks.trajectories import (
    nyquist_undersampling,
    radial_trajectory,
    spiral_trajectory,
)

GOLDEN_ANGLE = math.radians(111.24611797498108)


def test_radial_spokes_are_turned_cartesian_lines():
    for samples, golden in ((16, True), (15, True), (16, False)):
        spokes = radial_trajectory(21, samples, golden_angle=golden).reshape(21, samples, 2)
        assert float(spokes.norm(dim=-1).max()) <= math.pi * (1 + 1e-12)
        assert bool((spokes[:, samples // 2] == 0).all())
        spacing = spokes.diff(dim=1).norm(dim=-1)
        torch.testing.assert_close(spacing, torch.full_like(spacing, 2 * math.pi / samples))
        angles = torch.atan2(spokes[:, -1, 0], spokes[:, -1, 1])
        increment = (angles.diff() + 1e-9) % math.pi
        expected = GOLDEN_ANGLE if golden else math.pi / 21
        torch.testing.assert_close(increment, torch.full_like(increment, expected))
    # The first spoke is a Cartesian readout along x.
    line = 2 * math.pi * (torch.arange(16, dtype=torch.float64) - 8) / 16
    torch.testing.assert_close(spokes[0], torch.stack([torch.zeros(16).double(), line], dim=1))


def test_golden_angle_spokes_do_not_depend_on_their_number():
    torch.testing.assert_close(radial_trajectory(5, 8), radial_trajectory(9, 8)[: 5 * 8])


def test_undersampling_is_the_nyquist_criterion_of_the_textbook():
    for spokes, n in ((16, 64), (50, 64)):
        trajectory = radial_trajectory(spokes, 2 * n).reshape(spokes, 2 * n, 2)
        expected = math.pi * n / (2 * spokes)
        assert nyquist_undersampling(trajectory, (n, n)) == pytest.approx(expected, rel=0.03)
    spirals = spiral_trajectory(8, 2000, 3.0).reshape(8, 2000, 2)
    assert nyquist_undersampling(spirals, (64, 64)) == pytest.approx(64 / 2 / 24, rel=0.07)
    half = nyquist_undersampling(spirals, (64, 32))
    assert half < nyquist_undersampling(spirals, (64, 64))


def test_variable_density_spirals_are_denser_at_the_center():
    even, dense = (spiral_trajectory(2, 400, 4.0, alpha=a).norm(dim=1) for a in (1.0, 2.0))
    assert int((dense < 0.5).sum()) > 2 * int((even < 0.5).sum())
    # The radius grows with the square of the angle, 4 turns in all.
    arm = torch.view_as_complex(spiral_trajectory(2, 400, 4.0, alpha=2.0)[:400].flip(-1))
    unwound = arm * torch.exp(-2j * torch.pi * 4.0 * (arm.abs() / torch.pi).sqrt())
    torch.testing.assert_close(unwound.imag, torch.zeros(400).double(), rtol=0, atol=1e-9)


def test_spirals_run_from_the_middle_to_the_edge_at_constant_speed():
    interleaves, samples, turns = 3, 4000, 5.0
    arms = spiral_trajectory(interleaves, samples, turns).reshape(interleaves, samples, 2)
    radius = arms.norm(dim=-1)
    assert float(radius.max()) == pytest.approx(math.pi)
    assert bool((radius[:, 0] == 0).all())
    assert bool((radius.diff(dim=1) > 0).all())
    # T turns: the angle grows by 2πT in proportion to the radius.
    spin = torch.view_as_complex(arms[0].flip(-1).contiguous())
    unwound = spin * torch.exp(-1j * 2 * turns * radius[0])
    torch.testing.assert_close(unwound.imag, torch.zeros(samples).double(), rtol=0, atol=1e-9)
    speed = arms.diff(dim=1).norm(dim=-1)[:, samples // 4 :]
    assert float(speed.max() / speed.min()) < 1.02
    # The next arm is the first one turned by a third of a circle.
    other = torch.view_as_complex(arms[1].flip(-1).contiguous())
    torch.testing.assert_close(other, spin * complex(-0.5, math.sqrt(3) / 2))


@pytest.mark.parametrize(
    ("make", "arguments", "sentence"),
    [
        (radial_trajectory, (0, 8), "num_spokes.* 0"),
        (radial_trajectory, (3, 2.5), "num_samples"),
        (spiral_trajectory, (-1, 8, 2), "num_interleaves"),
        (spiral_trajectory, (3, 1, 2), "num_samples.* 2"),
        (spiral_trajectory, (3, 8, 0), "positive num_turns"),
        (lambda *given: spiral_trajectory(*given, alpha=0), (3, 8, 1), "positive alpha"),
        (spiral_trajectory, (3, 8, math.nan), "positive num_turns"),
    ],
)
def test_trajectories_that_make_no_sense(make, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        make(*arguments)
