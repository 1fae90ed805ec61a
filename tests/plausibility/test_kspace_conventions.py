from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from conventions import AXES, EVERYWHERE, MASK, full_scan
from gaussian import seeded
from torch.utils._python_dispatch import TorchDispatchMode

from ctxrecon.coils import estimate_coil_maps, simulate_coil_maps
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks import MASKS, make_mask, radial_trajectory
from ctxrecon.operators import NonCartesianSense
from ctxrecon.pipelines import BaselinePipeline
from ctxrecon.plausibility import check_conventions


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    ("anatomy", "shape", "coils", "snr"),
    [("brain", (96, 80), 4, 5.0), ("knee", (65, 79), 1, 25.0), ("brain", (64, 64), 16, None)],
)
def test_right_scans_are_silent(warned, name, anatomy, shape, coils, snr):
    right = full_scan(anatomy, shape, coils, seed=len(name), snr=snr)
    for acceleration in (2, 4):
        sampled = make_mask(name, shape, acceleration, 0.08, generator=seeded(acceleration))
        assert warned(right.kspace * sampled, sampled, right.coil_maps) == ""


def test_partial_fourier_shifted_echoes_and_objects_off_the_middle_are_silent(warned, brain_scan):
    partial = EVERYWHERE.clone()
    partial[..., :30] = False
    assert warned(brain_scan.kspace * partial, partial, brain_scan.coil_maps) == ""
    late = brain_scan.kspace.roll((3, -2), dims=AXES)
    assert warned(late, EVERYWHERE) == ""
    aside = fft2c(ifft2c(brain_scan.kspace).roll((20, -15), dims=AXES))
    assert warned(aside, EVERYWHERE) == ""


@pytest.mark.parametrize("size", [2, 4, 8, 33])
def test_noise_says_nothing(warned, size):
    air = torch.randn(3, 2, size, size, dtype=torch.complex64, generator=seeded(size))
    assert warned(air, torch.ones(1, 1, size, size, dtype=torch.bool)) == ""


def test_a_point_says_nothing(warned):
    point = torch.zeros(3, 1, 32, 32, dtype=torch.complex64)
    point[0, 0, 16, 16] = point[1, 0, 3, 20] = point[2, 0, 15, 17] = 1
    assert warned(fft2c(point), torch.ones(1, 1, 32, 32, dtype=torch.bool)) == ""


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e18])
def test_the_unit_does_not_matter(warned, brain_scan, scale):
    kspace = brain_scan.kspace * scale
    assert warned(kspace * MASK, MASK, brain_scan.coil_maps) == ""
    assert "centered" in warned(torch.fft.ifftshift(kspace, dim=AXES), MASK | True)


def test_two_slices_of_different_units_are_judged_alike(warned, brain_scan):
    wrong = torch.fft.ifftshift(brain_scan.kspace, dim=AXES)
    sentence = warned(torch.cat([brain_scan.kspace, 1e12 * wrong, wrong]), EVERYWHERE)
    assert sentence.startswith("slices 1, 2: ")
    assert "centered" in sentence


# Wrong ones are warned, with the remedy.


def images_of(scan):
    return ifft2c(scan.kspace)


WRONG_KSPACE = {
    "fft2 alone": (
        lambda x: torch.fft.fft2(x),
        "centered along both axes.*half the field",
    ),
    "no last shift": (
        lambda x: torch.fft.fft2(torch.fft.ifftshift(x, dim=AXES)),
        r"centered along both axes.*np.fft.fftshift\(kspace, axes=\(-2, -1\)\)",
    ),
    "not along x": (
        lambda x: torch.fft.ifftshift(fft2c(x), dim=-1),
        r"centered along x.*np.fft.fftshift\(kspace, axes=-1\)",
    ),
    "not along y": (
        lambda x: torch.fft.ifftshift(fft2c(x), dim=-2),
        r"centered along y.*np.fft.fftshift\(kspace, axes=-2\)",
    ),
    "no first shift": (
        lambda x: torch.fft.fftshift(torch.fft.fft2(x), dim=AXES),
        r"halves .*both axes.*np\.add\.outer",
    ),
    "no first shift along x": (
        lambda x: fft2c(torch.fft.fftshift(x, dim=-1)),
        r"halves .*along x.*np\.arange\(80\)",
    ),
    "no first shift along y": (
        lambda x: fft2c(torch.fft.fftshift(x, dim=-2)),
        r"halves .*along y.*np\.arange\(96\)\[:, None\]",
    ),
    "images": (lambda x: x, r"images.*np\.fft\.fft2"),
    "transformed along x": (
        lambda x: torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(x, dim=-1)), dim=-1),
        "smooth along y.*axis=-2",
    ),
    "magnitude": (lambda x: fft2c(x).abs() + 0j, "no imaginary part"),
    "real part": (lambda x: fft2c(x).real + 0j, "no imaginary part"),
}


@pytest.mark.parametrize("kind", WRONG_KSPACE)
@pytest.mark.parametrize("undersampled", [False, True])
def test_kspace_of_another_convention_is_warned_of(warned, brain_scan, kind, undersampled):
    change, sentence = WRONG_KSPACE[kind]
    kspace = change(images_of(brain_scan))
    sampled = MASK if undersampled else EVERYWHERE
    if undersampled and "centered" in sentence:
        sampled = torch.fft.ifftshift(MASK, dim=AXES)  # sampled in the same order as k-space
    assert re.search(sentence, warned(kspace * sampled, sampled))


def test_a_shift_that_is_missing_along_one_axis_is_warned_of_in_most_scans(warned):
    found = {-2: 0, -1: 0}
    for seed in range(12):
        x = images_of(full_scan(["brain", "knee"][seed % 2], seed=seed))
        aside = x.roll((12, -10), dims=AXES)
        assert warned(fft2c(x), EVERYWHERE) == warned(fft2c(aside), EVERYWHERE) == ""
        for axis in found:
            found[axis] += "halves" in warned(fft2c(torch.fft.fftshift(x, dim=axis)), EVERYWHERE)
    assert found[-2] >= 6
    assert found[-1] >= 10


def test_masks_without_a_fully_sampled_center_tell_no_halves(warned):
    """As trained samplers make them."""
    for seed in range(8):
        kspace = full_scan(["brain", "knee"][seed % 2], coils=1, seed=seed).kspace
        for acceleration in (2, 8):
            drawn = torch.rand(kspace.shape[-2:], generator=seeded(10 * seed + acceleration))
            for sampled in (drawn < 1 / acceleration, drawn[:, :1].expand(-1, 80) < 0.5):
                mask = sampled[None, None]
                assert "halves" not in warned(kspace * mask, mask)


def test_two_legs_are_no_image_in_halves(warned):
    y, x = torch.meshgrid(torch.arange(96) - 48.0, torch.arange(80) - 40.0, indexing="ij")
    noise = torch.randn(96, 80, dtype=torch.complex64, generator=seeded(0))
    legs = (torch.hypot(y, x.abs() - 20) < 13) + 0.02 * noise
    assert warned(fft2c(legs)[None, None], EVERYWHERE) == ""


def test_the_remedies_give_the_right_kspace(brain_scan):
    x = images_of(brain_scan).numpy()
    right = brain_scan.kspace.numpy()
    ny, nx = right.shape[-2:]
    unshifted = np.fft.fftshift(np.fft.fft2(x, norm="ortho"), axes=AXES)
    signs = (-1.0) ** np.add.outer(np.arange(ny), np.arange(nx))
    np.testing.assert_allclose(unshifted * signs, right, atol=1e-4)
    given = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(x, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)
    )
    np.testing.assert_allclose(given, right, atol=1e-4)


def test_spokes_are_no_cartesian_lines(warned, brain_scan):
    coil_maps = brain_scan.coil_maps[:, :1] * 0 + 1
    spokes = NonCartesianSense(radial_trajectory(64, 96), coil_maps)
    samples = spokes.forward(brain_scan.target).reshape(1, 1, 64, 96)
    assert "radial" in warned(samples, torch.ones(1, 1, 64, 96, dtype=torch.bool))


# Where they are warned, and what it costs.


def test_every_pipeline_warns(brain_scan, caplog):
    wrong = torch.fft.ifftshift(brain_scan.kspace, dim=AXES)
    BaselinePipeline("zero_filled")(wrong, coil_maps=brain_scan.coil_maps)
    assert "centered" in caplog.text


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


def test_real_scans_are_silent_until_something_is_wrong(warned, shared_data):
    images = np.load(shared_data / "brain_t2_4ch" / "coil_images.npy")
    x = torch.from_numpy(images).to(torch.complex64)[None]
    kspace = fft2c(x)
    sampled = make_mask("uniform1d", (256, 256), 4, 0.08, generator=seeded(0))
    maps = estimate_coil_maps(kspace * sampled, sampled)
    assert warned(kspace * sampled, sampled, maps) == ""
    assert "swapaxes(coil_maps" in warned(kspace * sampled, sampled, maps.mT)
    assert "centered" in warned(torch.fft.fft2(x), sampled | True)
    assert "images" in warned(x, sampled | True)
    measured = np.load(shared_data / "brain_t1_8ch_undersampled" / "cartesian_ksp.npy")
    y = torch.from_numpy(measured).to(torch.complex64)[None]
    where = (y != 0).any(dim=1, keepdim=True)
    assert warned(y, where, estimate_coil_maps(y, where)) == ""
    assert "exactly zero" in warned(y, where | True)
    assert math.isclose(1 / float(where.float().mean()), 8.06, rel_tol=0.01)
