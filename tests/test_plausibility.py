from __future__ import annotations

import logging
import math
import re

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctxrecon.coils import estimate_coil_maps, simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks import MASKS, make_mask, radial_trajectory
from ctxrecon.operators import NonCartesianSense
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import BaselinePipeline, prepare_measurement
from ctxrecon.plausibility import check_coil_axis, check_conventions

AXES = (-2, -1)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def full_scan(anatomy="brain", shape=(96, 80), coils=4, seed=0, snr=25.0):
    return phantom_scan(anatomy, shape=shape, num_coils=coils, snr=snr, generator=seeded(seed))


@pytest.fixture(scope="module")
def scan():
    return full_scan()


@pytest.fixture(scope="module")
def mask():
    return make_mask("uniform1d", (96, 80), 3, 0.12, generator=seeded(1))


@pytest.fixture(scope="module")
def everywhere():
    return torch.ones(1, 1, 96, 80, dtype=torch.bool)


@pytest.fixture
def told(caplog):
    """What a measurement is told, in one string."""

    def call(*measurement):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            check_conventions(*measurement)
        return "\n".join(record.getMessage() for record in caplog.records)

    return call


# Right scans are silent.


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    ("anatomy", "shape", "coils", "snr"),
    [("brain", (96, 80), 4, 5.0), ("knee", (65, 79), 1, 25.0), ("brain", (64, 64), 16, None)],
)
def test_right_scans_are_silent(told, name, anatomy, shape, coils, snr):
    right = full_scan(anatomy, shape, coils, seed=len(name), snr=snr)
    for acceleration in (2, 4):
        sampled = make_mask(name, shape, acceleration, 0.08, generator=seeded(acceleration))
        assert told(right.kspace * sampled, sampled, right.coil_maps) == ""


def test_partial_fourier_shifted_echoes_and_objects_off_the_middle_are_silent(
    told, scan, everywhere
):
    partial = everywhere.clone()
    partial[..., :30] = False
    assert told(scan.kspace * partial, partial, scan.coil_maps) == ""
    late = scan.kspace.roll((3, -2), dims=AXES)
    assert told(late, everywhere) == ""
    aside = fft2c(ifft2c(scan.kspace).roll((20, -15), dims=AXES))
    assert told(aside, everywhere) == ""


@pytest.mark.parametrize("size", [2, 4, 8, 33])
def test_noise_says_nothing(told, size):
    air = torch.randn(3, 2, size, size, dtype=torch.complex64, generator=seeded(size))
    assert told(air, torch.ones(1, 1, size, size, dtype=torch.bool)) == ""


def test_a_point_says_nothing(told):
    point = torch.zeros(3, 1, 32, 32, dtype=torch.complex64)
    point[0, 0, 16, 16] = point[1, 0, 3, 20] = point[2, 0, 15, 17] = 1
    assert told(fft2c(point), torch.ones(1, 1, 32, 32, dtype=torch.bool)) == ""


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e18])
def test_the_unit_does_not_matter(told, scan, mask, scale):
    kspace = scan.kspace * scale
    assert told(kspace * mask, mask, scan.coil_maps) == ""
    assert "centred" in told(torch.fft.ifftshift(kspace, dim=AXES), mask | True)


def test_two_slices_of_different_units_are_judged_alike(told, scan, everywhere):
    wrong = torch.fft.ifftshift(scan.kspace, dim=AXES)
    sentence = told(torch.cat([scan.kspace, 1e12 * wrong, wrong]), everywhere)
    assert sentence.startswith("slices 1, 2: ")
    assert "centred" in sentence


# Wrong ones are told, with the remedy.


def images_of(scan):
    return ifft2c(scan.kspace)


WRONG_KSPACE = {
    "fft2 alone": (
        lambda x: torch.fft.fft2(x),
        "along both axes.*fftshift.*half the field",
    ),
    "no last shift": (
        lambda x: torch.fft.fft2(torch.fft.ifftshift(x, dim=AXES)),
        r"centred along both axes.*np.fft.fftshift\(kspace, axes=\(-2, -1\)\)",
    ),
    "not along x": (
        lambda x: torch.fft.ifftshift(fft2c(x), dim=-1),
        r"centred along x.*np.fft.fftshift\(kspace, axes=-1\)",
    ),
    "not along y": (
        lambda x: torch.fft.ifftshift(fft2c(x), dim=-2),
        r"centred along y.*np.fft.fftshift\(kspace, axes=-2\)",
    ),
    "no first shift": (
        lambda x: torch.fft.fftshift(torch.fft.fft2(x), dim=AXES),
        r"halves at opposite borders along both axes.*\(-1.0\) \*\* np.add.outer",
    ),
    "no first shift along x": (
        lambda x: fft2c(torch.fft.fftshift(x, dim=-1)),
        r"halves at opposite borders along x.*\(-1.0\) \*\* np.arange\(80\)",
    ),
    "no first shift along y": (
        lambda x: fft2c(torch.fft.fftshift(x, dim=-2)),
        r"halves at opposite borders along y.*\(-1.0\) \*\* np.arange\(96\)\[:, None\]",
    ),
    "images": (lambda x: x, "looks like images.*np.fft.fft2"),
    "transformed along x": (
        lambda x: torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(x, dim=-1)), dim=-1),
        "smooth along y like an image.*axis=-2",
    ),
    "magnitude": (lambda x: fft2c(x).abs() + 0j, "no imaginary part"),
    "real part": (lambda x: fft2c(x).real + 0j, "no imaginary part"),
}


@pytest.mark.parametrize("kind", WRONG_KSPACE)
@pytest.mark.parametrize("undersampled", [False, True])
def test_kspace_of_another_convention_is_told(told, scan, mask, everywhere, kind, undersampled):
    change, sentence = WRONG_KSPACE[kind]
    kspace = change(images_of(scan))
    sampled = mask if undersampled else everywhere
    if undersampled and "centred" in sentence:
        sampled = torch.fft.ifftshift(mask, dim=AXES)  # sampled in the same order as k-space
    assert re.search(sentence, told(kspace * sampled, sampled))


def test_a_shift_that_is_missing_along_one_axis_is_told_in_most_scans(told, everywhere):
    found = {-2: 0, -1: 0}
    for seed in range(12):
        x = images_of(full_scan(["brain", "knee"][seed % 2], seed=seed))
        aside = x.roll((12, -10), dims=AXES)
        assert told(fft2c(x), everywhere) == told(fft2c(aside), everywhere) == ""
        for axis in found:
            found[axis] += "halves" in told(fft2c(torch.fft.fftshift(x, dim=axis)), everywhere)
    assert found[-2] >= 6
    assert found[-1] >= 10


def test_two_legs_are_no_image_in_halves(told, everywhere):
    y, x = torch.meshgrid(torch.arange(96) - 48.0, torch.arange(80) - 40.0, indexing="ij")
    noise = torch.randn(96, 80, dtype=torch.complex64, generator=seeded(0))
    legs = (torch.hypot(y, x.abs() - 20) < 13) + 0.02 * noise
    assert told(fft2c(legs)[None, None], everywhere) == ""


def test_the_remedies_give_the_right_kspace(scan):
    x = images_of(scan).numpy()
    right = scan.kspace.numpy()
    ny, nx = right.shape[-2:]
    unshifted = np.fft.fftshift(np.fft.fft2(x, norm="ortho"), axes=AXES)
    signs = (-1.0) ** np.add.outer(np.arange(ny), np.arange(nx))
    np.testing.assert_allclose(unshifted * signs, right, atol=1e-4)
    given = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(x, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
    )
    np.testing.assert_allclose(given, right, atol=1e-4)


def test_spokes_are_no_cartesian_lines(told, scan):
    coil_maps = scan.coil_maps[:, :1] * 0 + 1
    spokes = NonCartesianSense(radial_trajectory(64, 96), coil_maps)
    samples = spokes.forward(scan.target).reshape(1, 1, 64, 96)
    assert "radial" in told(samples, torch.ones(1, 1, 64, 96, dtype=torch.bool))


@pytest.mark.parametrize("layout", ["slice", "batch"])
def test_coils_last_are_refused(scan, layout):
    last = scan.kspace.movedim(1, -1)
    with pytest.raises(InputError, match=r"np.moveaxis\(kspace, -1, -3\)"):
        prepare_measurement(last[0] if layout == "slice" else last)


def test_coils_last_that_are_as_many_as_pixels_are_told(caplog):
    right = full_scan(shape=(32, 32), coils=32)
    check_coil_axis(right.kspace)
    assert caplog.text == ""
    check_coil_axis(right.kspace.movedim(1, -1))
    assert "np.moveaxis(kspace, -1, -3)" in caplog.text


def test_slices_in_place_of_coils_are_refused():
    slices = torch.randn(130, 32, 32, dtype=torch.complex64, generator=seeded(0))
    with pytest.raises(InputError, match=r"slices of one coil"):
        prepare_measurement(slices)


def test_more_coils_than_pixels_are_told(caplog):
    kspace = torch.randn(1, 24, 16, 16, dtype=torch.complex64, generator=seeded(0))
    prepare_measurement(kspace, None, simulate_coil_maps(24, (16, 16), generator=seeded(1)))
    assert "24 coils of 16x16 pixels" in caplog.text


# Masks.


def test_zeros_that_count_as_measured_are_told(told, scan, mask, everywhere):
    sentence = told(scan.kspace * mask, everywhere)
    assert "zero in all coils at 66.3 %" in sentence
    assert "acceleration of 2.96" in sentence
    one_line = everywhere.clone()
    one_line[..., 7] = False
    assert "exactly zero" in told(scan.kspace * one_line, everywhere)


def test_the_mask_of_another_scan_is_told(told, scan, mask):
    other = make_mask("uniform1d", (96, 80), 3, 0.12, generator=seeded(9))
    sentence = told(scan.kspace * mask, other)
    assert "of another scan" in sentence
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


def test_masks_that_are_not_centered_or_inverted_are_told(told, scan, mask):
    turned = torch.fft.fftshift(mask, dim=AXES)
    assert "np.fft.fftshift(mask" in told(scan.kspace * turned, turned)
    with pytest.raises(InputError, match=r"centre.*~mask"):
        check_conventions(scan.kspace, ~mask)


def test_samples_that_a_mask_drops_are_told_with_their_share(told, scan, mask):
    sentence = told(scan.kspace, mask)
    assert "5088 positions outside the mask (66.3 % of its samples" in sentence


# Coil maps.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: 1000 * s, r"1e\+06"),
        (lambda s: s / 30, "sum of squares"),
        (lambda s: fft2c(s), "sum of squares"),
        (lambda s: s.conj().resolve_conj(), r"coil_maps.conj\(\) fits"),
        (lambda s: torch.fft.fftshift(s, dim=AXES), r"np.fft.fftshift\(coil_maps, axes"),
        (lambda s: s[:, [2, 0, 3, 1]], "another scan"),
        (lambda s: simulate_coil_maps(4, (96, 80), generator=seeded(8)), "of another scan"),
    ],
)
def test_maps_that_do_not_fit_are_told(told, scan, mask, change, sentence):
    assert re.search(sentence, told(scan.kspace * mask, mask, change(scan.coil_maps)))


TURNED = {
    "swapaxes(coil_maps, -1, -2)": lambda s: s.mT,
    "flip(coil_maps, -1)": lambda s: s.flip(-1),
    "flip(coil_maps, -2)": lambda s: s.flip(-2),
    "rot90(coil_maps, -1, (-2, -1))": lambda s: s.rot90(1, AXES),
    "coil_maps.conj()": lambda s: s.conj().resolve_conj(),
}


@pytest.mark.parametrize("remedy", TURNED)
@pytest.mark.parametrize("coils", [4, 6, 16])
def test_turned_maps_of_a_square_matrix_are_told_with_the_remedy(told, coils, remedy):
    for seed in range(4):
        square = full_scan(shape=(80, 80), coils=coils, seed=seed)
        sampled = make_mask("uniform1d", (80, 80), 3, 0.15, generator=seeded(seed))
        kspace = square.kspace * sampled
        assert told(kspace, sampled, square.coil_maps) == ""
        assert remedy in told(kspace, sampled, TURNED[remedy](square.coil_maps))


def test_maps_of_a_wrapped_or_an_empty_slice_and_of_one_coil_are_silent(told, scan, everywhere):
    aside = ifft2c(scan.kspace).roll(-20, dims=-1)
    wrapped = fft2c(aside.unflatten(-1, (2, 40)).sum(dim=-2))
    maps = scan.coil_maps[..., 20:60]
    assert told(wrapped, everywhere[..., :40], maps) == ""
    silence = torch.cat([scan.kspace, 0 * scan.kspace])
    assert told(silence, everywhere, scan.coil_maps) == ""
    one = full_scan(shape=(64, 64), coils=1)
    every = torch.ones(1, 1, 64, 64, dtype=torch.bool)
    assert told(one.kspace, every, one.coil_maps.mT) == ""


def test_estimated_maps_fit(told, scan, mask):
    kspace = scan.kspace * mask
    assert told(kspace, mask, estimate_coil_maps(kspace, mask)) == ""


def test_maps_of_a_noisy_scan_fit(told):
    noisy = full_scan(coils=32, shape=(64, 64), snr=3.0)
    assert told(noisy.kspace, torch.ones(1, 1, 64, 64, dtype=torch.bool), noisy.coil_maps) == ""


# Where they are told, and what it costs.


def test_every_pipeline_tells(scan, caplog):
    wrong = torch.fft.ifftshift(scan.kspace, dim=AXES)
    BaselinePipeline("zero_filled")(wrong, coil_maps=scan.coil_maps)
    assert "centred" in caplog.text


class Work(TorchDispatchMode):
    """Counts the operations, and the samples that they write in units of k-space."""

    def __init__(self, unit):
        super().__init__()
        self.unit, self.calls, self.written, self.transformed = unit, 0, 0.0, 0.0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls += 1
        if isinstance(result, torch.Tensor) and result.numel():
            owns = result.untyped_storage().data_ptr() not in {
                value.untyped_storage().data_ptr()
                for value in args
                if isinstance(value, torch.Tensor)
            }
            self.written += owns * result.numel() / self.unit
            self.transformed += ("fft" in str(function)) * result.numel() / self.unit
        return result


def test_the_cost_is_a_few_passes_over_kspace_however_many_slices():
    kspace = torch.randn(1, 8, 256, 256, dtype=torch.complex64, generator=seeded(0))
    maps = simulate_coil_maps(8, (256, 256), generator=seeded(1))
    sampled = make_mask("uniform1d", (256, 256), 4, generator=seeded(2))
    counts = []
    for batch in (1, 4):
        several = (kspace * sampled).repeat(batch, 1, 1, 1)
        with Work(several.numel()) as work:
            check_conventions(several, sampled, maps)
        counts.append(work.calls)
        assert work.written < 10
        assert work.transformed < 0.05
    assert counts[0] == counts[1]


# Real scans.


def test_real_scans_are_silent_until_something_is_wrong(told, shared_data):
    images = np.load(shared_data / "brain_t2_4ch" / "coil_images.npy")
    x = torch.from_numpy(images).to(torch.complex64)[None]
    kspace = fft2c(x)
    sampled = make_mask("uniform1d", (256, 256), 4, 0.08, generator=seeded(0))
    maps = estimate_coil_maps(kspace * sampled, sampled)
    assert told(kspace * sampled, sampled, maps) == ""
    assert "swapaxes(coil_maps" in told(kspace * sampled, sampled, maps.mT)
    assert "centred" in told(torch.fft.fft2(x), sampled | True)
    assert "images" in told(x, sampled | True)
    measured = np.load(shared_data / "brain_t1_8ch_undersampled" / "cartesian_ksp.npy")
    y = torch.from_numpy(measured).to(torch.complex64)[None]
    where = (y != 0).any(dim=1, keepdim=True)
    assert told(y, where, estimate_coil_maps(y, where)) == ""
    assert "exactly zero" in told(y, where | True)
    assert math.isclose(1 / float(where.float().mean()), 8.06, rel_tol=0.01)


def test_rounding_in_place_of_unmeasured_samples_is_told(caplog, generator):
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
    check_conventions(clean.kspace, clean.mask)
    assert "rounding" not in caplog.text
