"""Masks of another scan, turned, inverted, or of the wrong order."""

from __future__ import annotations

import pytest
import torch
from conventions import AXES, EVERYWHERE, MASK, full_scan
from gaussian import complex_noise, seeded

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks import make_mask
from ctxrecon.phantom import phantom_scan
from ctxrecon.plausibility import check_conventions


def test_zeros_that_count_as_measured_are_warned_of(warned, brain_scan):
    sentence = warned(brain_scan.kspace * MASK, EVERYWHERE)
    assert "zero in all coils at 66.3 %" in sentence
    assert "acceleration of 2.96" in sentence
    one_line = EVERYWHERE.clone()
    one_line[..., 7] = False
    assert "exactly zero" in warned(brain_scan.kspace * one_line, EVERYWHERE)


def test_the_mask_of_another_scan_is_warned_of(warned, brain_scan):
    other = make_mask("uniform1d", (96, 80), 3, 0.12, generator=seeded(9))
    sentence = warned(brain_scan.kspace * MASK, other)
    assert "another scan" in sentence
    assert "leave the mask out" in sentence


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda m: ~m, "~mask"),
        (lambda m: m.mT, r"np.swapaxes\(mask, -1, -2\)"),
        (lambda m: torch.fft.fftshift(m, dim=AXES), r"np.fft.fftshift\(mask"),
    ],
)
def test_a_mask_that_is_turned_round_is_refused(change, remedy):
    square = full_scan(shape=(64, 64))
    sampled = make_mask("variable_density2d", (64, 64), 3, 0.1, generator=seeded(0))
    sampled[..., :40, 5] = True  # not the same when turned round
    with pytest.raises(InputError, match=remedy):
        check_conventions(square.kspace * sampled, change(sampled))


def test_a_slice_without_signal_does_not_refuse_the_others(warned):
    """The mask lacks some central lines, which hold little of the energy of these slices."""
    kspace = 1e-3 * complex_noise((3, 2, 96, 80), seeded(0))
    kspace[..., 60:70] = complex_noise((3, 2, 96, 10), seeded(1))
    mask = torch.ones(1, 1, 96, 80, dtype=torch.bool)
    mask[..., 36:44] = False
    assert "use ~mask" in warned(kspace, mask)
    kspace[2] = 0
    assert "use ~mask" in warned(kspace, mask)


def test_masks_that_are_not_centered_or_inverted_are_warned_of(warned, brain_scan):
    turned = torch.fft.fftshift(MASK, dim=AXES)
    assert "np.fft.fftshift(mask" in warned(brain_scan.kspace * turned, turned)
    with pytest.raises(InputError, match=r"center.*~mask"):
        check_conventions(brain_scan.kspace, ~MASK)


def test_samples_that_a_mask_drops_are_warned_of_with_their_share(warned, brain_scan):
    sentence = warned(brain_scan.kspace, MASK)
    assert "5088 positions outside the mask (66.3 % of its samples" in sentence


def test_rounding_in_place_of_unmeasured_samples_is_warned_of(caplog, generator):
    """K-space that went through the image and back, so that what was zero is rounding now."""
    scan = phantom_scan("brain", shape=(96, 80), num_coils=4, generator=generator)
    mask = make_mask("uniform1d", (96, 80), 3, generator=generator)
    again = fft2c(ifft2c(scan.kspace * mask))
    everywhere = torch.ones_like(mask)
    check_conventions(again, everywhere)
    assert "rounding" in caplog.text
    caplog.clear()
    check_conventions(again, mask)
    clean = phantom_scan("knee", shape=(96, 80), num_coils=1, snr=None, generator=generator)
    check_conventions(clean.kspace, clean.cartesian_mask)
    assert "rounding" not in caplog.text
