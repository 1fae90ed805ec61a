"""Several contrasts of one subject of the phantom: decay, phase, truth, determinism."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian import seeded
from narrow import present
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import (
    ECHO_TIMES,
    Anatomy,
    AnatomyBank,
    PhantomContrasts,
    Subject,
    Tissue,
    brain_anatomy,
    contrast_images,
    contrast_scan,
    knee_anatomy,
    multi_echo,
    pd_pair,
    true_t2_star,
)
from ctxrecon.phantom.echoes import _box

ECHOES = multi_echo(seeded(0))


def anatomy_of(labels: NDArray) -> Anatomy:
    labels = labels.astype(np.uint8)
    return Anatomy("brain", labels, voxel_mm=1.0, slice=3, pathologies=(), structures=labels)


def person(anatomy: Anatomy, field_strength: float = 3.0) -> Subject:
    return Subject.draw(anatomy, field_strength, np.random.default_rng(0))


@pytest.fixture(scope="module")
def brains() -> AnatomyBank:
    return AnatomyBank.build([brain_anatomy(seeded(7), size=128)])


@pytest.fixture(scope="module")
def knees() -> AnatomyBank:
    return AnatomyBank.build([knee_anatomy(seeded(7), size=128)])


@pytest.mark.parametrize("tissue", [Tissue.WHITE_MATTER, Tissue.CSF, Tissue.LIGAMENT])
def test_one_tissue_decays_by_its_t2_star(tissue: Tissue) -> None:
    subject = person(anatomy_of(np.full((40, 48), tissue)))
    images = contrast_images(subject, ECHOES, (24, 20), np.random.default_rng(1))
    expected = np.exp(-np.diff(ECHO_TIMES) / subject.parameters.t2_star[tissue])
    ratios = np.abs(images[1:]) / np.abs(images[:-1])
    np.testing.assert_allclose(
        ratios, np.broadcast_to(expected[:, None, None], ratios.shape), rtol=1e-4
    )
    found = true_t2_star(subject, ECHOES[0], (24, 20))
    np.testing.assert_allclose(found, subject.parameters.t2_star[tissue], rtol=1e-5)


def test_marrow_decays_as_one_exponential() -> None:
    """Water and fat are in phase at every echo, up to the rounding of the echo times."""
    subject = person(anatomy_of(np.full((32, 32), Tissue.MARROW)))
    images = contrast_images(subject, ECHOES, (16, 16), np.random.default_rng(1))
    expected = np.exp(-9.2 / subject.parameters.t2_star[Tissue.MARROW])
    np.testing.assert_allclose(np.abs(images[4]) / np.abs(images[3]), expected, rtol=5e-3)


def test_pixels_of_one_tissue_within_a_brain_decay_by_the_map(brains: AnatomyBank) -> None:
    """Truncation lets a pixel's neighbours ring into it, so only pixels away from edges count."""
    subject = person(brains[0])
    shape = brains[0].labels.shape
    images = np.abs(contrast_images(subject, ECHOES, shape, np.random.default_rng(1)))
    truth = true_t2_star(subject, ECHOES[0], shape)
    inside = binary_erosion(brains[0].labels == Tissue.WHITE_MATTER, iterations=4)
    assert inside.sum() > 50
    ratios = images[1:, inside] / images[:-1, inside]
    expected = np.exp(-9.2 / truth[inside])
    np.testing.assert_allclose(ratios, np.broadcast_to(expected, ratios.shape), rtol=0.02)


def test_echoes_share_phase_but_for_the_off_resonance() -> None:
    """``angle(x_{e+1}/x_e) = 2π Δf ΔTE``: the same for each pair, smooth, and of at most 20 Hz."""
    subject = person(anatomy_of(np.full((64, 64), Tissue.WHITE_MATTER)))
    images = contrast_images(subject, ECHOES, (32, 32), np.random.default_rng(1))
    steps = np.angle(images[1:] / images[:-1])
    np.testing.assert_allclose(steps, np.broadcast_to(steps[:1], steps.shape), atol=1e-4)
    frequency = steps[0] / (2 * np.pi * 9.2e-3)
    assert 1 < np.abs(frequency).max() <= 20
    assert np.abs(np.diff(frequency, axis=0)).max() < 4
    # No echo is without phase of its own.
    assert np.abs(np.angle(images[0])).max() > 0.1


def test_the_series_has_one_scale_and_each_other_scan_its_own(knees: AnatomyBank) -> None:
    subject = person(knees[0])
    rng = np.random.default_rng(1)
    echoes = np.abs(contrast_images(subject, ECHOES, (64, 64), rng))
    assert np.quantile(echoes, 0.99) == pytest.approx(1, rel=0.02)
    assert (np.diff(np.quantile(echoes, 0.99, axis=(1, 2))) < 0).all()
    pair = contrast_images(subject, pd_pair(seeded(0)), (64, 64), rng)
    np.testing.assert_allclose(np.quantile(np.abs(pair), 0.99, axis=(1, 2)), 1, rtol=0.02)
    # Two scans, two phases: their difference is not that of one constant.
    bright = (np.abs(pair) > 0.3).all(axis=0)
    between = (pair[0] / pair[1])[bright]
    assert np.abs((between / np.abs(between)).mean()) < 0.99


def test_a_pair_shows_one_knee_with_and_without_fat(knees: AnatomyBank) -> None:
    pd, pdfs = pd_pair(seeded(0))
    assert (pd.contrast, pdfs.contrast) == ("PD", "PDFS")
    assert pd.field_strength == pdfs.field_strength
    images = np.abs(
        contrast_images(person(knees[0]), (pd, pdfs), (128, 128), np.random.default_rng(1))
    )
    labels = knees[0].labels
    fat, muscle = labels == Tissue.MARROW, labels == Tissue.MUSCLE
    ratio = [image[fat].mean() / image[muscle].mean() for image in images]
    assert ratio[1] < 0.5 * ratio[0]


def test_mixed_pixels_have_the_signals_mean_rate() -> None:
    """Half white matter, half CSF, and a border with air that belongs to the larger part."""
    labels = np.full((64, 64), Tissue.WHITE_MATTER)
    labels[:, 1::2] = Tissue.CSF
    labels[:21] = Tissue.AIR
    subject = person(anatomy_of(labels))
    found = true_t2_star(subject, ECHOES[0], (32, 32))
    parameters = subject.parameters
    kinds = [Tissue.WHITE_MATTER, Tissue.CSF]
    weights = np.array([_signal_at_first_echo(subject, kind) for kind in kinds])
    rates = 1 / parameters.t2_star[kinds]
    np.testing.assert_allclose(found[12:31], weights.sum() / (weights @ rates), rtol=1e-5)
    # Pixel 10 is centred on row 20, so a quarter of it is tissue; pixel 11 is all tissue.
    assert not found[:11].any()
    assert found[11:].all()


def _signal_at_first_echo(subject: Subject, tissue: Tissue) -> float:
    parameters = subject.parameters
    e1 = np.exp(-present(ECHOES[0].tr) / parameters.t1[tissue])
    angle = np.deg2rad(present(ECHOES[0].flip_angle))
    steady = np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle))
    decay = np.exp(-ECHO_TIMES[0] / parameters.t2_star[tissue])
    return float(parameters.proton_density[tissue] * steady * decay)


@pytest.mark.parametrize(("fine", "n"), [(256, 96), (128, 128), (100, 33), (17, 16)])
def test_the_mean_over_a_pixel(fine: int, n: int) -> None:
    weights = _box(fine, n)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights.sum(axis=0), n / fine)
    # Pixel k is centred on small pixel k · fine/n: both grids mirror each other about pixel 0, and
    # what a small pixel holds beyond a border moves the mean by less than an eighth of it.
    mirrored = np.roll(weights[::-1, ::-1], (1, 1), axis=(0, 1))
    np.testing.assert_allclose(mirrored, weights, atol=1e-9)
    centers = weights[1:-1] @ np.arange(fine)
    assert np.abs(centers - np.arange(1, n - 1) * fine / n).max() <= n / fine / 8
    if fine == n:
        np.testing.assert_array_equal(weights, np.eye(n))


def test_samples_follow_from_their_number(brains: AnatomyBank) -> None:
    source = PhantomContrasts(brains, multi_echo, resolution=32, seed=5)
    first, again = source[3], PhantomContrasts(brains, multi_echo, resolution=32, seed=5)[3]
    assert torch.equal(first["images"], again["images"])
    assert torch.equal(first["t2_star"], again["t2_star"])
    assert first["metadata"] == again["metadata"]
    assert not torch.equal(first["images"], source[4]["images"])
    other = PhantomContrasts(brains, multi_echo, resolution=32, seed=6)
    assert not torch.equal(first["images"], other[3]["images"])
    assert source.draw(3, 48)["images"].shape == (5, 48, 48)
    with pytest.raises(IndexError):
        PhantomContrasts(brains, multi_echo, length=2)[2]


def test_what_a_sample_holds(brains: AnatomyBank) -> None:
    item = PhantomContrasts(brains, multi_echo, resolution=32)[0]
    assert item["images"].shape == (5, 32, 32)
    assert item["images"].dtype == torch.complex64
    assert item["t2_star"].shape == (32, 32)
    assert item["t2_star"].dtype == torch.float32
    metadata = item["metadata"]
    assert [one.te for one in metadata] == list(ECHO_TIMES)
    assert {replace(one, te=None) for one in metadata} == {replace(metadata[0], te=None)}
    assert {one.slice for one in metadata} == {brains[0].slice}
    air = item["t2_star"] == 0
    assert 0.2 < air.float().mean() < 0.8
    assert item["images"][0][~air].abs().mean() > 5 * item["images"][0][air].abs().mean()


def test_a_scan_is_the_images_with_noise(brains: AnatomyBank) -> None:
    scan = contrast_scan(
        brains[0], ECHOES, shape=(48, 40), num_coils=4, snr=50, generator=seeded(1)
    )
    assert scan.kspace.shape == (1, 5, 4, 48, 40)
    assert scan.coil_maps.shape == (1, 4, 48, 40)
    assert scan.images.shape == (1, 5, 48, 40)
    assert scan.t2_star.shape == (1, 48, 40)
    assert scan.noise_std == pytest.approx(0.02)
    combined = (scan.coil_maps[:, None].conj() * ifft2c(scan.kspace)).sum(dim=2)
    # Maps of unit norm keep the noise's standard deviation, which is that of a complex sample.
    error = (combined - scan.images).abs().square().mean().sqrt()
    assert float(error) == pytest.approx(0.02, rel=0.03)
    assert [one.te for one in scan.metadata] == list(ECHO_TIMES)


def test_scans_follow_from_the_generator(brains: AnatomyBank) -> None:
    first, again, other = (
        contrast_scan(brains[0], ECHOES, shape=(32, 32), snr=None, generator=seeded(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first.kspace, again.kspace)
    assert not torch.equal(first.kspace, other.kspace)
    assert first.noise_std == 0
    combined = (first.coil_maps[:, None].conj() * ifft2c(first.kspace)).sum(dim=2)
    torch.testing.assert_close(combined, first.images, rtol=1e-4, atol=1e-5)


def test_protocols_that_cannot_be_imaged(brains: AnatomyBank) -> None:
    with pytest.raises(InputError, match="at least one protocol"):
        contrast_scan(brains[0], [])
    with pytest.raises(InputError, match="at least one protocol"):
        contrast_images(person(brains[0]), [], (32, 32), np.random.default_rng(0))
    with pytest.raises(InputError, match="needs TR and TE"):
        contrast_scan(brains[0], [ScanMetadata(sequence="Flash", tr=50, flip_angle=20)])
    with pytest.raises(InputError, match="matrix size"):
        contrast_scan(brains[0], ECHOES, shape=(32, 256))
    with pytest.raises(InputError, match="field strength"):
        contrast_scan(brains[0], [*ECHOES, replace(ECHOES[0], field_strength=7.0)])
