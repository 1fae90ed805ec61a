"""Signal equations, subjects, label volumes and scans of the digital phantom."""

from __future__ import annotations

import gzip
from dataclasses import replace

import numpy as np
import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import (
    NUM_TISSUES,
    AnatomyBank,
    PhantomSlices,
    Subject,
    Tissue,
    anatomy_from_labels,
    brain_anatomy,
    knee_anatomy,
    load_label_volume,
    measure,
    normalize,
    phantom_scan,
    signal,
    tissue_parameters,
)
from ctxrecon.phantom.protocols import common_field_strength
from ctxrecon.phantom.sequences import dess, inversion_recovery, spin_echo, spoiled_gradient_echo

T2 = ScanMetadata(contrast="T2", sequence="TurboSpinEcho", tr=5000, te=110, flip_angle=150)
T1 = ScanMetadata(contrast="T1", sequence="Flash", tr=250, te=3.4, flip_angle=70)
FLAIR = ScanMetadata(
    contrast="FLAIR", sequence="TurboSpinEcho", tr=9000, te=81, ti=2500, flip_angle=150
)
PD = ScanMetadata(contrast="PD", sequence="TurboSpinEcho", tr=2800, te=32, flip_angle=140)
PDFS = replace(PD, contrast="PDFS")


def bloch_spin_echo(t1: float, t2: float, tr: float, te: float) -> float:
    """Longitudinal and transverse magnetisation of 90°–180° repetitions, simulated."""
    mz = 1.0
    for _ in range(60):
        mxy, mz = mz, 0.0
        mz = 1 - (1 - mz) * np.exp(-te / 2 / t1)
        mz = 1 - (1 + mz) * np.exp(-(tr - te / 2) / t1)
        echo = mxy * np.exp(-te / t2)
    return echo


def bloch_dess(t1: float, t2: float, tr: float, te: float, flip: float) -> tuple[float, float]:
    """S⁺ at TE and S⁻ at TR − TE from an isochromat ensemble dephased by 2π in each TR."""
    angles = np.linspace(-np.pi, np.pi, 720, endpoint=False)
    a = np.deg2rad(flip)
    rx = np.array([[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]])
    e1, e2 = np.exp(-tr / t1), np.exp(-tr / t2)
    plus = minus = 0.0 + 0.0j
    for phi in angles:
        rz = np.array([[np.cos(phi), np.sin(phi), 0], [-np.sin(phi), np.cos(phi), 0], [0, 0, 1]])
        step = np.diag([e2, e2, e1]) @ rz
        before = np.linalg.solve(np.eye(3) - step @ rx, np.array([0, 0, 1 - e1]))
        after = rx @ before
        plus += after[0] + 1j * after[1]
        # the S⁻ pathway is in phase just before the pulse once the gradient's 2π is unwound
        minus += before[0] + 1j * before[1]
    count = len(angles)
    return abs(plus) / count * np.exp(-te / t2), abs(minus) / count * np.exp(te / t2)


def test_spin_echo_is_the_simulated_one_at_180_degrees() -> None:
    for t1, t2, tr, te in [(800, 80, 500, 15), (4000, 1800, 5000, 110), (300, 60, 2800, 32)]:
        expected = bloch_spin_echo(t1, t2, tr, te)
        actual = spin_echo(np.array([t1]), np.array([t2]), tr, te)[0]
        assert actual == pytest.approx(expected, rel=1e-6)


def test_flash_peaks_at_the_ernst_angle() -> None:
    t1, tr = np.array([800.0]), 30.0
    angles = np.linspace(1, 90, 500)
    signals = [spoiled_gradient_echo(t1, np.array([40.0]), tr, 3.0, a)[0] for a in angles]
    ernst = np.rad2deg(np.arccos(np.exp(-tr / 800.0)))
    assert angles[int(np.argmax(signals))] == pytest.approx(ernst, abs=0.3)


def test_inversion_recovery_nulls_at_t1_ln_2() -> None:
    t1 = np.array([1000.0])
    null = inversion_recovery(t1, np.array([1e9]), 1e6, 0.0, 1000.0 * np.log(2))
    assert abs(null[0]) < 1e-6
    assert inversion_recovery(t1, np.array([1e9]), 1e6, 0.0, 300.0)[0] < 0


def test_dess_is_the_steady_state_of_simulated_isochromats() -> None:
    for t1, t2, flip in [(1200.0, 38.0, 20.0), (3600.0, 700.0, 20.0), (900.0, 60.0, 45.0)]:
        expected = bloch_dess(t1, t2, 20.0, 6.0, flip)
        actual = dess(np.array([t1]), np.array([t2]), 20.0, 6.0, flip)
        assert actual[0][0] == pytest.approx(expected[0], rel=2e-3)
        assert actual[1][0] == pytest.approx(expected[1], rel=2e-3)


def test_contrasts_order_tissues_as_radiologists_know_them() -> None:
    tissues = tissue_parameters(3.0)

    def values(metadata: ScanMetadata) -> dict[Tissue, float]:
        return dict(zip(Tissue, np.abs(signal(tissues, metadata)), strict=True))

    t2, t1, flair = values(T2), values(T1), values(FLAIR)
    assert t2[Tissue.CSF] > t2[Tissue.GRAY_MATTER] > t2[Tissue.WHITE_MATTER]
    assert t1[Tissue.FAT] > t1[Tissue.WHITE_MATTER] > t1[Tissue.GRAY_MATTER] > t1[Tissue.CSF]
    assert flair[Tissue.CSF] < 0.25 * flair[Tissue.WHITE_MATTER]
    assert flair[Tissue.WHITE_MATTER_LESION] > 1.3 * flair[Tissue.WHITE_MATTER]
    pd, pdfs = values(PD), values(PDFS)
    assert pd[Tissue.MARROW] > pd[Tissue.MUSCLE]
    assert pdfs[Tissue.MARROW] < 0.5 * pdfs[Tissue.CARTILAGE]
    assert pdfs[Tissue.SYNOVIAL_FLUID] > pdfs[Tissue.CARTILAGE] > pdfs[Tissue.MENISCUS]
    pre = values(replace(T1, contrast="T1PRE"))
    post = values(replace(T1, contrast="T1POST"))
    assert post[Tissue.MASS] > 1.3 * pre[Tissue.MASS]
    assert post[Tissue.WHITE_MATTER] == pytest.approx(pre[Tissue.WHITE_MATTER], rel=0.1)


@pytest.mark.parametrize(
    ("metadata", "change"),
    [(T2, {"te": 60}), (T2, {"tr": 1500}), (T2, {"flip_angle": 110}), (T1, {"flip_angle": 20})]
    + [(FLAIR, {"ti": 1500}), (T1, {"te": 9.0}), (T1, {"contrast": "T1POST"})],
)
def test_every_parameter_changes_the_image(metadata: ScanMetadata, change: dict) -> None:
    tissues = tissue_parameters(3.0)
    before = np.abs(signal(tissues, metadata))
    after = np.abs(signal(tissues, replace(metadata, **change)))
    before, after = before / before.max(), after / after.max()
    assert np.abs(before - after).max() > 0.03


def test_t1_grows_with_the_field_and_spread_is_seeded() -> None:
    low, high = tissue_parameters(1.5), tissue_parameters(3.0)
    water = [t for t in Tissue if t is not Tissue.AIR]
    assert (high.t1[water] > low.t1[water]).all()
    assert (tissue_parameters(3.0).t2_star <= tissue_parameters(3.0).t2 + 1e-9).all()
    one = tissue_parameters(3.0, np.random.default_rng(1))
    two = tissue_parameters(3.0, np.random.default_rng(1))
    np.testing.assert_array_equal(one.t1, two.t1)
    assert one.t1.shape == (NUM_TISSUES,)
    assert not np.allclose(one.t1, high.t1)


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        (replace(T2, tr=None), "needs TR and TE"),
        (replace(T2, sequence="Qdess", te=6000.0), "TE below TR"),
        (replace(FLAIR, ti=None), "needs TI"),
        (replace(T1, flip_angle=None), "needs a flip angle"),
        (replace(T2, sequence="EPI"), "no signal equation"),
    ],
)
def test_a_protocol_that_no_sequence_has_is_refused(metadata: ScanMetadata, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        signal(tissue_parameters(3.0), metadata)


def test_a_subject_is_the_same_in_every_contrast(generator: torch.Generator) -> None:
    rng = np.random.default_rng(0)
    subject = Subject.draw(brain_anatomy(generator), 3.0, rng)
    t2 = np.abs(subject.image(T2, (128, 128), np.random.default_rng(1)))
    echo = np.abs(subject.image(replace(T2, te=80.0), (128, 128), np.random.default_rng(1)))
    other = np.abs(subject.image(T1, (128, 128), np.random.default_rng(1)))
    assert np.corrcoef(t2.ravel(), echo.ravel())[0, 1] > 0.98
    assert np.corrcoef(t2.ravel(), other.ravel())[0, 1] < 0.9
    assert echo.sum() > t2.sum()
    assert t2.dtype == np.float32


def test_matrix_size_keeps_the_field_of_view(generator: torch.Generator) -> None:
    subject = Subject.draw(knee_anatomy(generator), 1.5, np.random.default_rng(0))
    large = subject.image(PD, (200, 160), np.random.default_rng(1), phase=0.0)
    small = subject.image(PD, (100, 80), np.random.default_rng(1), phase=0.0)
    assert large.shape == (200, 160)
    pooled = np.abs(large.reshape(100, 2, 80, 2).mean((1, 3)))
    assert np.corrcoef(pooled.ravel(), np.abs(small).ravel())[0, 1] > 0.97
    with pytest.raises(InputError, match="matrix size"):
        subject.image(PD, (512, 128), np.random.default_rng(1))


def test_measure_is_the_forward_model(generator: torch.Generator) -> None:
    scan = phantom_scan("brain", shape=(64, 48), num_coils=4, snr=None, generator=generator)
    assert scan.kspace.shape == (1, 4, 64, 48)
    assert scan.target is not None
    assert scan.coil_maps is not None
    expected = fft2c(scan.coil_maps * scan.target[:, None])
    torch.testing.assert_close(scan.kspace, expected)
    power = scan.coil_maps.abs().square().sum(1)
    torch.testing.assert_close(power, torch.ones_like(power))
    assert torch.quantile(scan.target.abs(), 0.99) == pytest.approx(1.0, abs=0.02)


def test_noise_has_the_stated_level(generator: torch.Generator) -> None:
    images = torch.zeros(2, 64, 64, dtype=torch.complex64)
    maps = torch.ones(1, 3, 64, 64, dtype=torch.complex64)
    scan = measure(images, maps, None, snr=20.0, generator=generator)
    assert scan.noise_std == pytest.approx(0.05)
    power = scan.kspace.abs().square().mean().sqrt()
    assert power.item() == pytest.approx(0.05, rel=0.02)
    assert scan.kspace.real.std().item() == pytest.approx(0.05 / np.sqrt(2), rel=0.03)
    with pytest.raises(InputError, match="positive SNR"):
        measure(images, maps, None, snr=0.0)


def test_a_scan_is_deterministic_and_carries_its_truth() -> None:
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    mask[..., ::2] = True
    one, two = (
        phantom_scan(
            "knee",
            protocols=[PD, PDFS],
            shape=(64, 64),
            mask=mask,
            generator=torch.Generator().manual_seed(7),
        )
        for _ in range(2)
    )
    torch.testing.assert_close(one.kspace, two.kspace, rtol=0, atol=0)
    assert (one.kspace[..., 1::2] == 0).all()
    assert [m.contrast for m in one.metadata] == ["PD", "PDFS"]
    assert {m.anatomy for m in one.metadata} == {"knee"}
    assert all(m.slice is not None for m in one.metadata)
    with pytest.raises(InputError, match="no phantom of"):
        phantom_scan("elbow")
    with pytest.raises(InputError, match="at least one protocol"):
        phantom_scan("knee", protocols=[])
    with pytest.raises(InputError, match=r"contrast.*protocols"):
        phantom_scan("knee", protocols=[PD], contrast="PDFS")


def test_protocols_of_one_scan_have_one_field_strength() -> None:
    low, high = replace(PD, field_strength=1.5), replace(PDFS, field_strength=3.0)
    with pytest.raises(InputError, match=r"1.5 T and 3 T"):
        phantom_scan("knee", protocols=[low, high], shape=(32, 32))
    # A protocol that states none runs in the scanner of the others.
    unknown = replace(PDFS, field_strength=None)
    assert common_field_strength([unknown, low]) == 1.5
    assert common_field_strength([unknown]) == 3.0


def test_training_items_follow_from_their_number(generator: torch.Generator) -> None:
    bank = AnatomyBank.build([brain_anatomy(generator), knee_anatomy(generator)])
    data = PhantomSlices(bank, resolution=64, length=10, seed=3)
    first, again, other = data[4], data[4], data[5]
    assert torch.equal(first["image"], again["image"])
    assert first["metadata"] == again["metadata"]
    assert not torch.equal(first["image"], other["image"])
    assert first["image"].shape == (2, 64, 64)
    quantile = torch.quantile(first["image"].square().sum(0).sqrt(), 0.99)
    assert quantile.item() == pytest.approx(1.0, abs=0.08)
    with pytest.raises(IndexError):
        data[10]


def test_a_bank_round_trips_and_refuses_what_is_none(tmp_path, generator: torch.Generator) -> None:
    bank = AnatomyBank.build([knee_anatomy(generator) for _ in range(3)])
    bank.save(tmp_path / "bank.npz")
    again = AnatomyBank.load(tmp_path / "bank.npz")
    assert len(again) == 3
    for index in range(3):
        np.testing.assert_array_equal(again[index].labels, bank[index].labels)
        assert again[index].pathologies == bank[index].pathologies
    assert [path.name for path in tmp_path.iterdir()] == ["bank.npz"]
    (tmp_path / "bad.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match="not an anatomy bank"):
        AnatomyBank.load(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="no anatomy bank"):
        AnatomyBank.load(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="at least one anatomy"):
        AnatomyBank.build([])
    mixed = [knee_anatomy(generator, size=64), knee_anatomy(generator, size=96)]
    with pytest.raises(InputError, match="one size"):
        AnatomyBank.build(mixed)


def test_normalize_refuses_an_empty_image() -> None:
    with pytest.raises(InputError, match="no scale"):
        normalize(np.zeros((32, 32), np.complex64))


def head_volume() -> np.ndarray:
    """A ball of white matter in grey matter in CSF in bone in skin, at 2 mm steps of radius."""
    z, y, x = np.mgrid[-40:40, -40:40, -40:40]
    radius = np.sqrt(x**2 + y**2 + z**2)
    volume = np.zeros(radius.shape, np.int16)
    for label, limit in [(511, 38), (515, 33), (24, 30), (3, 28), (2, 22), (25, 6)]:
        volume[radius < limit] = label
    return volume


def test_label_volumes_become_anatomies() -> None:
    anatomy = anatomy_from_labels(head_volume(), 0.5, np.random.default_rng(0), size=96)
    present = set(np.unique(anatomy.labels))
    for tissue in (Tissue.WHITE_MATTER, Tissue.GRAY_MATTER, Tissue.CSF, Tissue.CORTICAL_BONE):
        assert int(tissue) in present
    assert {int(Tissue.SKIN), int(Tissue.FAT)} <= present
    assert anatomy.pathologies == ("Nonspecific white matter lesion",)
    edge = anatomy_from_labels(head_volume(), 1.0, np.random.default_rng(0), size=96)
    assert edge.pathologies == ()
    again = anatomy_from_labels(head_volume(), 0.5, np.random.default_rng(0), size=96)
    np.testing.assert_array_equal(anatomy.labels, again.labels)


def test_a_series_of_one_label_volume_is_read(tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel")
    labels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    for name, volume in (("one", labels), ("series", labels[..., None]), ("two", labels[..., :2])):
        data = np.stack([volume, volume], -1) if name == "two" else volume
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii")
    one, series = (load_label_volume(tmp_path / f"{name}.nii") for name in ("one", "series"))
    np.testing.assert_array_equal(series, one)
    with pytest.raises(InputError, match=r"3-D label volume, two.nii has shape \(2, 3, 2, 2\)"):
        load_label_volume(tmp_path / "two.nii")


def test_bad_label_volumes_are_refused(tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel")
    with pytest.raises(InputError, match="no label volume"):
        load_label_volume(tmp_path / "none.nii.gz")
    (tmp_path / "text.nii.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match="not a readable NIfTI"):
        load_label_volume(tmp_path / "text.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4), np.int16), np.eye(4)), tmp_path / "2d.nii")
    with pytest.raises(InputError, match="3-D label volume"):
        load_label_volume(tmp_path / "2d.nii")
    big = np.full((4, 4, 4), 5000, np.int16)
    nibabel.save(nibabel.Nifti1Image(big, np.eye(4)), tmp_path / "big.nii")
    with pytest.raises(InputError, match="invalid labels"):
        load_label_volume(tmp_path / "big.nii")
    image = np.linspace(0, 60, 64, dtype=np.float32).reshape(4, 4, 4)
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "image.nii")
    with pytest.raises(InputError, match="whole numbers"):
        load_label_volume(tmp_path / "image.nii")
    with pytest.raises(InputError, match="contains no brain"):
        anatomy_from_labels(np.zeros((8, 8, 8), np.int16), 0.5, np.random.default_rng(0))


def test_a_real_label_volume_reads_upright(shared_data) -> None:
    pytest.importorskip("nibabel")
    volume = load_label_volume(shared_data / "brain_label_maps" / "training_seg_13.nii.gz")
    assert volume.ndim == 3
    eyes = np.argwhere(volume == 506)
    brain = np.argwhere(np.isin(volume, (2, 41)))
    assert eyes[:, 1].mean() < brain[:, 1].mean()  # anterior is up
    assert eyes[:, 0].mean() > brain[:, 0].mean()  # the vertex comes first


def test_damaged_label_volumes_are_refused_in_one_line(tmp_path) -> None:
    nibabel = pytest.importorskip("nibabel")
    labels = np.random.default_rng(0).integers(0, 99, (12, 12, 12)).astype(np.int16)
    whole = gzip.compress(nibabel.Nifti1Image(labels, np.eye(4)).to_bytes())
    path = tmp_path / "x.nii.gz"
    plain = bytearray(gzip.decompress(whole))
    no_type, no_axis, shorter = plain.copy(), plain.copy(), plain[:-8]
    no_type[70:72] = b"\x77\x77"
    no_axis[280:296] = bytes(16)  # the first row of the affine
    far = bytearray(whole)
    far[400:440] = b"\xff" * 40
    for damaged in (far, *map(gzip.compress, (no_type, no_axis, shorter))):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"x\.nii\.gz") as caught:
            load_label_volume(path)
        assert "\n" not in str(caught.value)
