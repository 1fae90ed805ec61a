"""Bjøntegaard's distances of curves, and the quality of maps with and without background."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian import seeded

from ctxrecon.errors import InputError
from ctxrecon.metrics import (
    bd_psnr,
    bd_rate,
    foreground_psnr,
    foreground_ssim,
    map_metrics,
    psnr,
    ssim,
)

RATES = np.array([0.0625, 0.125, 0.1875, 0.25])
PSNRS = np.array([24.1, 27.9, 29.3, 31.0])


def test_a_curve_shifted_in_quality() -> None:
    assert bd_psnr(RATES, PSNRS + 1.7, RATES, PSNRS) == pytest.approx(1.7)
    assert bd_psnr(RATES, PSNRS - 0.3, RATES, PSNRS) == pytest.approx(-0.3)
    assert bd_psnr(RATES, PSNRS, RATES, PSNRS) == pytest.approx(0.0)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.3])
def test_a_curve_shifted_in_rate(factor: float) -> None:
    """It needs ``factor`` times the rate for every quality."""
    change = bd_rate(factor * RATES, PSNRS, RATES, PSNRS)
    assert change == pytest.approx(100 * (factor - 1))


def test_straight_lines_of_different_slopes() -> None:
    """``P = 40 + 10 r`` against ``P = 38 + 8 r``, ``r = log₁₀ rate``.

    From r = −1 to r = −½, where both lie, the mean of ``2 + 2 r`` is ½. From P = 30 to P = 34,
    which both reach, the mean of ``(P − 40)/10 − (P − 38)/8`` at P = 32 is −0.8 + 0.75 = −0.05.
    """
    wide, narrow = np.array([-1.3, -1.1, -0.9, -0.5]), np.array([-1.0, -0.7, -0.6, -0.4])
    gain = bd_psnr(10**wide, 40 + 10 * wide, 10**narrow, 38 + 8 * narrow)
    assert gain == pytest.approx(0.5)
    wide, narrow = np.array([-1.0, -0.8, -0.6]), np.array([-1.2, -0.9, -0.5])
    change = bd_rate(10**wide, 40 + 10 * wide, 10**narrow, 38 + 8 * narrow)
    assert change == pytest.approx(100 * (10**-0.05 - 1))


def test_two_points_are_a_line() -> None:
    assert bd_psnr([0.1, 1.0], [20, 30], [0.1, 1.0], [20, 26]) == pytest.approx(2.0)


def test_exchanging_the_curves() -> None:
    other = PSNRS + np.array([0.5, 0.1, -0.2, 0.9])
    there, back = bd_psnr(RATES, other, RATES, PSNRS), bd_psnr(RATES, PSNRS, RATES, other)
    assert there == pytest.approx(-back)
    there, back = bd_rate(RATES, other, RATES, PSNRS), bd_rate(RATES, PSNRS, RATES, other)
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1)
    # Better is more decibels and less rate.
    assert bd_psnr(RATES, other, RATES, PSNRS) > 0 > there


def test_the_order_of_the_points_does_not_count() -> None:
    shuffled = [2, 0, 3, 1]
    value = bd_psnr(RATES[shuffled], PSNRS[shuffled] + 1, RATES, PSNRS)
    assert value == pytest.approx(1)


def test_nothing_overshoots() -> None:
    """One cubic polynomial through these would leave the plateau by more than half a decibel."""
    step, flat = np.array([20.0, 20.0, 30.0, 30.0]), np.array([20.0, 20.0])
    value = bd_psnr([1, 10, 100, 1000], step, [1, 10], flat)
    assert value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("rates", "psnrs", "words"),
    [
        ([0.1], [20.0], "two or more"),
        ([0.1, 0.2], [20.0], "as many"),
        ([0.0, 0.2], [20.0, 21.0], "positive rates"),
        ([0.1, 0.2], [20.0, math.nan], "finite PSNRs"),
        ([0.1, 0.1], [20.0, 21.0], "twice"),
        ([0.3, 0.9], [20.0, 31.0], "in common"),
    ],
)
def test_curves_that_cannot_be_compared(rates: list, psnrs: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        bd_psnr(rates, psnrs, RATES, PSNRS)


def test_quality_that_falls_has_no_rate() -> None:
    with pytest.raises(InputError, match="anchor"):
        bd_rate(RATES, PSNRS, RATES, PSNRS[::-1])
    with pytest.raises(InputError, match="in common"):
        bd_rate(RATES, PSNRS + 20, RATES, PSNRS)
    assert bd_psnr(RATES, PSNRS[::-1] + 2, RATES, PSNRS[::-1]) == pytest.approx(2)


def maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two maps, wrong by 3 ms inside a square and by 100 outside it, and the square."""
    reference = 60 * torch.rand(2, 24, 20, generator=seeded(0))
    reference[0, 8, 8], reference[1, 8, 8] = 60.0, 120.0
    foreground = torch.zeros(2, 24, 20, dtype=torch.bool)
    foreground[:, 6:18, 5:15] = True
    prediction = reference + torch.where(foreground, 3.0, 100.0)
    return prediction, reference, foreground


def test_the_background_does_not_count() -> None:
    prediction, reference, foreground = maps()
    found = foreground_psnr(prediction, reference, foreground)
    expected = 20 * torch.log10(torch.tensor([60.0, 120.0]) / 3)
    torch.testing.assert_close(found, expected)
    cleaned = torch.where(foreground, prediction, 7.0)
    torch.testing.assert_close(
        foreground_ssim(cleaned, reference, foreground),
        foreground_ssim(prediction, reference, foreground),
    )
    assert (foreground_ssim(prediction, reference, foreground) > 0.9).all()


def test_everything_as_foreground_is_the_whole_map() -> None:
    prediction, reference, foreground = maps()
    whole = torch.ones_like(foreground)
    values = map_metrics(prediction, reference, whole)
    torch.testing.assert_close(values["psnr_nbg"], values["psnr_bg"])
    torch.testing.assert_close(values["ssim_nbg"], values["ssim_bg"])
    torch.testing.assert_close(values["psnr_bg"], psnr(prediction, reference))
    torch.testing.assert_close(values["ssim_bg"], ssim(prediction, reference))


def test_slices_of_a_batch_are_judged_alone() -> None:
    prediction, reference, foreground = maps()
    foreground[1, :, :10] = False
    both = map_metrics(prediction.numpy(), reference.numpy(), foreground.numpy())
    for number in range(2):
        part = slice(number, number + 1)
        alone = map_metrics(prediction[part], reference[part], foreground[part])
        for name, value in alone.items():
            torch.testing.assert_close(both[name][part], value)


def test_a_map_that_agrees_is_perfect() -> None:
    _, reference, foreground = maps()
    values = map_metrics(reference, reference, foreground)
    assert torch.isinf(values["psnr_nbg"]).all()
    torch.testing.assert_close(values["ssim_nbg"], torch.ones(2))


def test_foregrounds_that_make_no_sense() -> None:
    prediction, reference, foreground = maps()
    with pytest.raises(InputError, match="boolean foreground"):
        foreground_psnr(prediction, reference, foreground.float())
    with pytest.raises(InputError, match="boolean foreground"):
        foreground_ssim(prediction, reference, foreground[:1])
    foreground[1] = False
    with pytest.raises(InputError, match="slice 1 is zero"):
        foreground_psnr(prediction, reference, foreground)
    foreground[1, :2] = True
    with pytest.raises(InputError, match="slice 1 lies within 3 pixels"):
        foreground_ssim(prediction, reference, foreground)
    with pytest.raises(InputError, match="at least 7 pixels"):
        foreground_ssim(prediction[:, :6], reference[:, :6], foreground[:, :6] | True)
