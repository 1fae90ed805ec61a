"""Coil maps of another scan, turned, or of another norm."""

from __future__ import annotations

import re

import pytest
import torch
from conventions import AXES, EVERYWHERE, MASK, full_scan
from gaussian import seeded
from narrow import present

from ctxrecon.coils import estimate_coil_maps, simulate_coil_maps
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks import make_mask


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: 1000 * s, r"1e\+06"),
        (lambda s: s / 30, "sum of squares"),
        (lambda s: fft2c(s), "sum of squares"),
        (lambda s: s.conj().resolve_conj(), r"use coil_maps.conj\(\)"),
        (lambda s: torch.fft.fftshift(s, dim=AXES), r"np.fft.fftshift\(coil_maps, axes"),
        (lambda s: s[:, [2, 0, 3, 1]], "another scan"),
        (lambda s: simulate_coil_maps(4, (96, 80), generator=seeded(8)), "another scan"),
    ],
)
def test_maps_that_do_not_fit_are_warned_of(warned, brain_scan, change, sentence):
    assert re.search(sentence, warned(brain_scan.kspace * MASK, MASK, change(brain_scan.coil_maps)))


TURNED = {
    "swapaxes(coil_maps, -1, -2)": lambda s: s.mT,
    "flip(coil_maps, -1)": lambda s: s.flip(-1),
    "flip(coil_maps, -2)": lambda s: s.flip(-2),
    "rot90(coil_maps, -1, (-2, -1))": lambda s: s.rot90(1, AXES),
    "coil_maps.conj()": lambda s: s.conj().resolve_conj(),
}


@pytest.mark.parametrize("remedy", TURNED)
@pytest.mark.parametrize("coils", [4, 6, 16])
def test_turned_maps_of_a_square_matrix_are_warned_of_with_the_remedy(warned, coils, remedy):
    for seed in range(4):
        square = full_scan(shape=(80, 80), coils=coils, seed=seed)
        sampled = make_mask("uniform1d", (80, 80), 3, 0.15, generator=seeded(seed))
        kspace = square.kspace * sampled
        assert warned(kspace, sampled, square.coil_maps) == ""
        assert remedy in warned(kspace, sampled, TURNED[remedy](square.coil_maps))


def test_maps_of_a_wrapped_or_an_empty_slice_and_of_one_coil_are_silent(warned, brain_scan):
    aside = ifft2c(brain_scan.kspace).roll(-20, dims=-1)
    wrapped = fft2c(aside.unflatten(-1, (2, 40)).sum(dim=-2))
    maps = brain_scan.coil_maps[..., 20:60]
    assert warned(wrapped, EVERYWHERE[..., :40], maps) == ""
    silence = torch.cat([brain_scan.kspace, 0 * brain_scan.kspace])
    assert warned(silence, EVERYWHERE, brain_scan.coil_maps) == ""
    one = full_scan(shape=(64, 64), coils=1)
    every = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    assert warned(one.kspace, every, present(one.coil_maps).mT) == ""


def test_shared_maps_are_those_of_all_slices(warned, brain_scan):
    kspace = brain_scan.kspace[:1].expand(3, -1, -1, -1)
    sentence = warned(kspace, EVERYWHERE, 3 * brain_scan.coil_maps[:1])
    assert "sum of squares" in sentence
    assert "slice 0" not in sentence


def test_estimated_maps_fit(warned, brain_scan):
    kspace = brain_scan.kspace * MASK
    assert warned(kspace, MASK, estimate_coil_maps(kspace, MASK)) == ""


def test_maps_of_a_noisy_scan_fit(warned):
    noisy = full_scan(coils=32, shape=(64, 64), snr=3.0)
    assert warned(noisy.kspace, torch.ones(1, 1, 64, 64, dtype=torch.bool), noisy.coil_maps) == ""
