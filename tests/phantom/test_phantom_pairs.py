"""Two scans of one subject with a known motion between."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.phantom import (
    Anatomy,
    AnatomyBank,
    Misalignment,
    PhantomPairs,
    Subject,
    anatomy_from_labels,
    brain_anatomy,
    image_pair,
    pair_scan,
    t1_t2_pair,
)
from ctxrecon.phantom.pairs import ImagePair, inverse_displacement
from ctxrecon.reconstructors.warp import jacobian_determinant, warp

STILL = Misalignment(rotation=0, translation=0, elastic=0)


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return brain_anatomy(torch.Generator().manual_seed(1), size=128)


def pair_of(anatomy: Anatomy, misalignment: Misalignment, *, alike: bool = False) -> ImagePair:
    """A pair of 64²; of one contrast, if alike."""
    rng = np.random.default_rng(2)
    protocols = t1_t2_pair(torch.Generator().manual_seed(3))
    if alike:
        protocols = (protocols[0], protocols[0])
    subject = Subject.draw(anatomy, 3.0, rng, bias=0.0)
    return image_pair(subject, protocols, (64, 64), misalignment, rng, magnitude=True)


def warped(image: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    return warp(torch.from_numpy(image)[None], torch.from_numpy(displacement)[None])[0].numpy()


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_protocols_of_one_scanner():
    for seed in range(20):
        t1, t2 = t1_t2_pair(torch.Generator().manual_seed(seed))
        assert (t1.contrast, t2.contrast) == ("T1", "T2")
        assert t1.field_strength == t2.field_strength


def test_the_displacement_brings_the_reference_to_the_image(anatomy):
    pair = pair_of(anatomy, Misalignment(rotation=3, translation=3, elastic=2), alike=True)
    before, after = (
        distance(one, pair.image)
        for one in (pair.reference, warped(pair.reference, pair.displacement))
    )
    assert before > 0.25
    assert after < 0.4 * before
    back = warped(pair.image, pair.inverse)
    assert distance(back, pair.reference) < 0.4 * before


def test_nobody_moves(anatomy):
    pair = pair_of(anatomy, STILL, alike=True)
    assert not pair.displacement.any()
    assert not pair.inverse.any()
    np.testing.assert_array_equal(pair.labels, pair.reference_labels)
    assert distance(pair.reference, pair.image) < 0.1  # filters differ


def test_labels_move_along(anatomy):
    pair = pair_of(anatomy, Misalignment(rotation=0, translation=5, elastic=0))
    dy, dx = np.rint(pair.displacement[:, 0, 0]).astype(int)
    assert max(abs(dy), abs(dx)) > 1
    moved = np.roll(pair.reference_labels, (-dy, -dx), axis=(0, 1))
    before, after = ((labels == pair.labels).mean() for labels in (pair.reference_labels, moved))
    assert after > 0.8
    assert after > before + 0.1


def test_the_inverse_undoes():
    rng = np.random.default_rng(0)
    v = Misalignment(rotation=4, translation=3, elastic=4).draw((64, 64), (64, 64), rng)
    u = inverse_displacement(v)
    there = torch.from_numpy(u)[None]
    along = warp(torch.from_numpy(v)[None], there)[0].numpy()
    np.testing.assert_allclose((along + u)[:, 16:-16, 16:-16], 0, atol=1e-3)


@pytest.mark.parametrize("amplitude", [0, 1, 2, 4])
def test_no_level_folds_at_64(amplitude):
    for seed in range(5):
        motion = Misalignment(elastic=amplitude).draw(
            (64, 64), (64, 64), np.random.default_rng(seed)
        )
        assert jacobian_determinant(torch.from_numpy(motion)[None]).min() > 0.2
        assert np.abs(motion[:, 32, 32]).max() <= 3 + amplitude + 1e-6


def test_the_fraction_of_the_motion_is_uniform():
    whole, part = Misalignment(0, 4, 0), Misalignment(0, 4, 0, least=0.25)
    rng = np.random.default_rng(0)
    mean = {
        motion: np.mean([np.abs(motion.draw((4, 4), (4, 4), rng)[:, 0, 0]) for _ in range(4000)])
        for motion in (whole, part)
    }
    # |U(−4, 4)| has a mean of 2, U(1/4, 1) one of 5/8.
    assert mean[whole] == pytest.approx(2, abs=0.1)
    assert mean[part] == pytest.approx(2 * 5 / 8, abs=0.1)


def test_a_fraction_scales_all_of_the_motion():
    class Half(np.random.Generator):
        """Draws the fraction 1/2 first."""

        first = True

        def uniform(self, *args, **kwargs):
            if self.first:
                self.first = False
                return 0.5
            return super().uniform(*args, **kwargs)

    whole = Misalignment(1e-3, 4, 2).draw((16, 16), (16, 16), np.random.default_rng(0))
    half = Misalignment(1e-3, 4, 2, least=0).draw((16, 16), (16, 16), Half(np.random.PCG64(0)))
    np.testing.assert_allclose(half, whole / 2, atol=1e-6)


def test_a_rotation_is_rigid_about_the_middle():
    motion = Misalignment(3, 0, 0).draw((40, 48), (40, 48), np.random.default_rng(0))
    np.testing.assert_allclose(motion[:, 20, 24], 0, atol=1e-9)
    determinant = jacobian_determinant(torch.from_numpy(motion)[None])
    torch.testing.assert_close(determinant, torch.ones_like(determinant))
    assert np.abs(motion).max() > 0.1


def test_pixels_of_the_displacement_are_those_of_the_image(anatomy):
    """The same motion has twice as many pixels at twice the matrix."""
    subject = Subject.draw(anatomy, 3.0, np.random.default_rng(0))
    protocols = t1_t2_pair(torch.Generator().manual_seed(3))
    fields = []
    for n, factor in ((32, 1), (64, 2)):
        moving = Misalignment(2, 2 * factor, factor)
        fields.append(
            image_pair(subject, protocols, (n, n), moving, np.random.default_rng(5)).displacement
        )
    np.testing.assert_allclose(fields[1][:, ::2, ::2] / 2, fields[0], atol=0.02)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32)])
def test_shifts_are_in_pixels_of_each_axis(shape):
    rng = np.random.default_rng(0)
    moving = Misalignment(rotation=0, translation=3, elastic=0)
    factors = 128 / np.array(shape)[:, None, None]
    shifts = [np.abs(moving.draw((128, 128), shape, rng) / factors).max((1, 2)) for _ in range(64)]
    assert (np.max(shifts, axis=0) <= 3).all()
    assert (np.max(shifts, axis=0) > 2.7).all()


def test_scans_of_a_pair(anatomy):
    generator = torch.Generator().manual_seed(0)
    scan = pair_scan(anatomy, shape=(64, 64), magnitude=True, generator=generator)
    assert scan.coil_maps is None
    torch.testing.assert_close(scan.kspace[:, 0], fft2c(scan.target))
    assert not scan.target.imag.any()
    torch.testing.assert_close(
        scan.reference[0], torch.from_numpy(scan.pair.reference), atol=1e-5, rtol=0
    )
    assert (scan.metadata[0].contrast, scan.metadata[1].contrast) == ("T2", "T1")
    several = pair_scan(anatomy, shape=(64, 48), num_coils=4, snr=50.0, generator=generator)
    assert several.kspace.shape == (1, 4, 64, 48)
    assert several.coil_maps is not None
    found = (several.coil_maps.conj() * ifft2c(several.kspace)).sum(dim=1)
    assert distance(found.numpy(), several.target.numpy()) < 0.2
    assert several.target.imag.abs().max() > 0.1
    assert several.noise_std == pytest.approx(0.02)


def test_a_set_of_pairs_is_always_the_same(anatomy):
    bank = AnatomyBank.build([anatomy])
    pairs = PhantomPairs(bank, resolution=32, seed=4)
    one, again, other = pairs[3], pairs[3], pairs[4]
    assert torch.equal(one["images"], again["images"])
    assert torch.equal(one["displacement"], again["displacement"])
    assert not torch.equal(one["images"], other["images"])
    assert one["images"].shape == (2, 32, 32)
    assert one["inside"].float().mean() > 0.2
    assert [each.contrast for each in one["metadata"]] == ["T2", "T1"]
    assert one["metadata"][0].field_strength == one["metadata"][1].field_strength
    scale = one["images"].abs().flatten(1).quantile(0.99, dim=1)
    torch.testing.assert_close(scale, torch.ones(2), atol=0.05, rtol=0)


def test_label_volumes_move_too():
    volume = np.zeros((24, 40, 40), np.int16)
    volume[2:22, 4:36, 6:34] = 511
    volume[4:20, 8:32, 9:31] = 3
    volume[6:18, 12:28, 13:27] = 2
    anatomy = anatomy_from_labels(volume, 0.5, np.random.default_rng(0), size=64, voxel_mm=0.7)
    scan = pair_scan(anatomy, shape=(32, 32), generator=torch.Generator().manual_seed(0))
    assert scan.pair.displacement.any()
    assert scan.target.abs().max() > 0.5


def test_what_makes_no_pair(anatomy):
    with pytest.raises(InputError, match="elastic"):
        Misalignment(elastic=-1)
    with pytest.raises(InputError, match="least"):
        Misalignment(least=1.5)
    with pytest.raises(InputError, match="got 1"):
        pair_scan(anatomy, t1_t2_pair(torch.Generator())[:1])
    with pytest.raises(InputError, match="matrix size"):
        pair_scan(anatomy, shape=(256, 256))
    first, second = t1_t2_pair(torch.Generator())
    with pytest.raises(InputError, match="field strength"):
        pair_scan(anatomy, (first, replace(second, field_strength=7.0)))
