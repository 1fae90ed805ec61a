"""``ctxrecon prepare images``: upright slices with their metadata and people."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_prepare import contents, run

from ctxrecon.datasets import ImageSource, ShardSlices
from ctxrecon.datasets.collection import magnitude
from ctxrecon.datasets.source import LeftOut, Slice
from ctxrecon.datasets.volumes import Frame, sample_anew
from ctxrecon.metadata import ScanMetadata

nibabel = pytest.importorskip("nibabel")
SHAPE = (22, 26, 24)
# To the right, front and head: no plane, row or column is like another.
BODY = 1 + np.random.default_rng(0).random(SHAPE, np.float32)


def write_nifti(path: Path, data=BODY, spacing=(1.0, 1.0, 1.0), *, tilt=0.0, order=(1, 2, 3)):
    """A volume of the body; ``order`` numbers its axes from 1, minus those that run backwards."""
    axes = [abs(number) - 1 for number in order]
    turned = np.flip(data.transpose(axes), tuple(i for i, number in enumerate(order) if number < 0))
    affine = np.eye(4)
    affine[:3, :3] = 0
    for stored, number in enumerate(order):
        affine[axes[stored], stored] = np.sign(number) * spacing[axes[stored]]
    cosine, sine = np.cos(tilt), np.sin(tilt)
    rotation = np.eye(3)
    for first, second in ((0, 1), (1, 2), (0, 2)):
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = cosine
        turn[first, second], turn[second, first] = -sine, sine
        rotation = turn @ rotation
    affine[:3, :3] = rotation @ affine[:3, :3]
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(turned), affine), path)
    return path


def write_collection(folder: Path, images: np.ndarray, notes: object) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / "slices.npz", images=images)
    (folder / "slices.json").write_text(json.dumps(notes))
    return folder


def made(source: ImageSource, path: Path) -> list[Slice]:
    return [item for item in source.slices(path) if isinstance(item, Slice)]


@pytest.mark.parametrize("order", [(1, 2, 3), (-1, -2, 3), (2, 3, 1), (-3, 1, -2), (2, -1, -3)])
@pytest.mark.parametrize("tilt", [0.0, 0.3])
def test_three_planes_are_upright_whatever_the_affine(tmp_path, order, tilt):
    path = write_nifti(tmp_path / "a.nii.gz", order=order, tilt=tilt)
    # The body lies in the middle of the zeros around it.
    items = made(ImageSource(size=(32, 32), max_slices=1000), path)
    assert len(items) == sum(SHAPE)
    right_left, front_back, head_feet = (slice(None, None, -1),) * 3
    axial = [BODY[right_left, front_back, z].T for z in range(SHAPE[2])]
    sagittal = [BODY[x, front_back, head_feet].T for x in range(SHAPE[0])]
    coronal = [BODY[right_left, y, head_feet].T for y in range(SHAPE[1])]
    for item, expected in zip(items, itertools.chain(axial, sagittal, coronal), strict=True):
        (ny, nx), image = expected.shape, item.image
        top, left = 16 - ny // 2, 16 - nx // 2
        np.testing.assert_array_equal(image[top : top + ny, left : left + nx], expected)
        assert np.count_nonzero(image) == ny * nx
        assert item.metadata.slice is None


@pytest.mark.parametrize(("axis", "flipped"), [(0, False), (1, True), (2, False)])
def test_thick_slices_are_taken_as_they_were_measured(tmp_path, axis, flipped):
    spacing = [0.8, 0.8, 0.8]
    spacing[axis] = 4.0
    order = [1, 2, 3]
    order[axis] *= -1 if flipped else 1
    path = write_nifti(tmp_path / "a.nii", spacing=spacing, order=tuple(order), tilt=0.1)
    items = made(ImageSource(size=(32, 32)), path)
    assert [item.metadata.slice for item in items] == list(range(SHAPE[axis]))
    plane = np.moveaxis(BODY, axis, 0)[5, ::-1, ::-1].T
    np.testing.assert_array_equal(items[5].image[items[5].image > 0], plane.ravel())


def test_slices_with_little_content_are_left_out_and_the_others_spread(tmp_path):
    data = BODY.repeat(2, 2)
    data[..., :4] = data[..., -4:] = 0
    data[2:, 2:, 4:8] = 0  # only an edge of the body
    path = write_nifti(tmp_path / "a.nii", data, spacing=(1, 1, 3))
    items = list(ImageSource(size=(32, 32), max_slices=4).slices(path))
    assert items.count(None) == 12
    numbers = [item.metadata.slice for item in items if isinstance(item, Slice)]
    assert numbers == [12, 21, 30, 39]
    # Of an isotropic volume a third comes from each plane.
    cube = write_nifti(tmp_path / "b.nii")
    assert len(made(ImageSource(size=(32, 32), max_slices=7), cube)) == 7


def test_pixels_become_square(tmp_path):
    y, x = np.mgrid[:40, :40] - 20
    disc = 1 / (1 + np.exp(np.hypot(2 * y, x) - 14))  # rows of 2 mm
    data = np.repeat(disc.T[..., None], 3, 2).astype(np.float32)
    path = write_nifti(tmp_path / "a.nii", data, spacing=(1, 2, 9))
    image = made(ImageSource(size=(64, 64)), path)[0].image
    inside = image > 0.5
    assert abs(np.ptp(np.nonzero(inside)[0]) - np.ptp(np.nonzero(inside)[1])) <= 1
    assert image[30:34, 30:34].mean() == pytest.approx(1, abs=0.03)


def test_frames():
    content = np.zeros((100, 60))
    content[70:90, 20:40] = 1
    image = np.arange(6000, dtype=np.float32).reshape(100, 60)
    # Cropped around the content, inside the image; zeros where it ends.
    frame = Frame.around(content, (50, 64))
    np.testing.assert_array_equal(frame.apply(image)[:, 2:62], image[50:])
    assert not frame.apply(image)[:, :2].any()
    # A size of its own leaves it as it is.
    np.testing.assert_array_equal(Frame.around(content, (100, 60)).apply(image), image)
    # Content that does not fit is made smaller until it does.
    content[10:90, 10:50] = 1
    small = Frame.around(content, (40, 40))
    assert small.sampled == (50, 30)
    assert small.apply(np.ones((100, 60)))[:, 5:35] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("shape", [(48, 36), (25, 33), (32, 20)])
def test_sampled_anew_by_k_space(shape):
    def wave(ny, nx):
        y, x = np.mgrid[:ny, :nx]
        angles = (y - ny // 2) / ny, (x - nx // 2) / nx
        return (2 + np.cos(2 * np.pi * (angles[0] + 3 * angles[1]))).astype(np.float32)

    np.testing.assert_allclose(sample_anew(wave(32, 24), shape), wave(*shape), atol=1e-5)


def test_square_root_with_dither():
    stored = np.arange(256, dtype=np.uint8).repeat(400).reshape(320, 320)
    image = magnitude(stored, 3)
    np.testing.assert_array_equal(image, magnitude(stored, 3))
    assert not np.array_equal(image, magnitude(stored, 4))
    levels = 255 * np.sqrt(image)
    assert np.abs(levels - stored).max() < 0.5001
    left = (levels - stored)[stored > 0]
    assert abs(left.mean()) < 0.005
    assert left.std() == pytest.approx(1 / np.sqrt(12), rel=0.02)
    assert (image[stored == 0] == 0).mean() == pytest.approx(0.5, abs=0.1)  # clipped, not folded


def test_metadata_of_bids(tmp_path, capsys):
    root = tmp_path / "atlas"
    path = write_nifti(root / "sub-07" / "anat" / "sub-07_ce-gd_T1w.nii.gz", spacing=(1, 1, 4))
    write_nifti(root / "sub-07" / "anat" / "sub-07_FLAIR.nii.gz", spacing=(1, 1, 4))
    for other in ("sub-07_desc-brain_mask", "sub-07_bold", "sub-07_part-phase_T2w", "sub-07_dseg"):
        path.with_name(f"{other}.nii.gz").write_bytes(b"not read")
    notes = {
        **{"RepetitionTime": 2.3, "EchoTime": 0.00298, "InversionTime": 0.9, "FlipAngle": 9},
        **{"MagneticFieldStrength": 3, "ScanningSequence": "GR\\IR", "BodyPartExamined": "HEAD"},
    }
    path.with_name("sub-07_ce-gd_T1w.json").write_text(json.dumps(notes))
    description = {"Name": "An atlas", "License": "CC0", "DatasetDOI": "10.1/2"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    out = tmp_path / "set"
    arguments = ("prepare", "images", root, "--out", out, "--size", 32, 32, "--workers", 1)
    assert run(*arguments, "--anatomy", "knee", "--contrast", "PD") == 0
    assert "people: 1 in the set" in capsys.readouterr().out
    data = ShardSlices(out)
    assert {path.stem for path in data.files} == {
        "atlas-sub-07-anat-sub-07_ce-gd_T1w",
        "atlas-sub-07-anat-sub-07_FLAIR",
    }
    assert set(data.subjects) == {"atlas_sub-07"}
    assert data.origins == ("An atlas, 10.1/2 (CC0)",)
    flair, t1 = data[0]["metadata"], data[SHAPE[2]]["metadata"]
    assert flair == ScanMetadata(anatomy="knee", slice=0, contrast="FLAIR")
    assert t1 == ScanMetadata(
        *("brain", 0, "T1POST", (), "MPRAGE", 2300, 2.98, 900, 9),
        field_strength=3,
    )


@pytest.mark.parametrize(
    ("notes", "sequence"),
    [
        ({"ScanningSequence": ["GR"], "SequenceVariant": "SK_SP"}, "Flash"),
        ({"ScanningSequence": "GR"}, "GRE"),
        ({"ScanningSequence": "SE", "EchoTrainLength": 12}, "TurboSpinEcho"),
        ({"ScanningSequence": "SE"}, "SpinEcho"),
        ({"ScanningSequence": ["EP", "SE"]}, "EPI"),
        ({"PulseSequenceType": "MP RAGE", "ScanningSequence": "SE"}, "MPRAGE"),
        ({"ScanningSequence": 3}, None),
    ],
)
def test_sequence_of_a_sidecar(tmp_path, notes, sequence):
    path = write_nifti(tmp_path / "sub-1_T2w.nii")
    path.with_suffix(".json").write_text(json.dumps(notes))
    assert made(ImageSource(), path)[0].metadata.sequence == sequence


@pytest.mark.parametrize(
    ("name", "person", "contrast"),
    [
        ("IXI012-HH-1211-T1", "IXI012_HH_1211", "T1"),
        ("p3/FLAIR", "p3", "FLAIR"),
        ("sub-3_ses-1_T2w", "sub-3", "T2"),
        ("ds/sub-3/ses-1/anat/sub-3_ses-1_PDw", "ds_sub-3", "PD"),
        ("sub-3_T1w_brain", "sub-3", "T1"),
        ("ds/sub-3/T1", "ds_sub-3", "T1"),
        ("brain_07", "brain_07", None),
    ],
)
def test_person_and_contrast_of_a_name(tmp_path, name, person, contrast):
    path = write_nifti(tmp_path / f"{name}.nii.gz", spacing=(1, 1, 4))
    item = made(ImageSource(), path)[0]
    assert (item.subject, item.metadata.contrast) == (person, contrast)


def discs(count: int) -> np.ndarray:
    """Stored square roots, ``(count, 40, 40)``, a brighter disc each."""
    y, x = np.mgrid[:40, :40] - 20
    levels = 100 + 10 * np.arange(count)
    return (levels[:, None, None] * (np.hypot(y, x) < 15)).astype(np.uint8)


def notes_of(*people: str) -> list[dict]:
    return [
        {
            **{"subject": person, "source": f"archive of {person} (CC BY 4.0)", "place": [0, 1]},
            "metadata": {"anatomy": "brain", "contrast": "T1", "tr": 500.0 + number},
            **({"weight": 0.35} if number == 0 else {}),
        }
        for number, person in enumerate(people)
    ]


def test_collections_and_their_people(tmp_path, capsys):
    one = write_collection(tmp_path / "one", discs(4), notes_of("ann", "bob", "ann", "eve"))
    two = write_collection(tmp_path / "two", discs(2), notes_of("ann", "ann"))
    held = tmp_path / "held.txt"
    held.write_text("ann\n\nnobody \n")
    arguments = ("prepare", "images", one, two, "--size", 32, 32, "--workers", 1)
    assert run(*arguments, "--out", tmp_path / "train", "--leave-out", held) == 0
    told = capsys.readouterr()
    assert "1 volume with 2 slices" in told.out
    assert "people: 2 in the set, 1 others" in told.out
    assert "1 name in the lists that match no volume: nobody" in told.err
    assert run(*arguments, "--out", tmp_path / "test", "--only", held) == 0
    capsys.readouterr()

    train, test = ShardSlices(tmp_path / "train"), ShardSlices(tmp_path / "test")
    assert train.subjects == ("bob", "eve")
    assert test.subjects == ("ann",) * 4
    assert test.weights == (0.35, 1, 0.35, 1)
    assert train.origins == ("archive of bob (CC BY 4.0)", "archive of eve (CC BY 4.0)")
    item = train[1]
    assert item["metadata"] == ScanMetadata("brain", contrast="T1", tr=503)
    assert item["image"].shape == (1, 32, 32)
    inside = item["image"][0, 8:24, 8:24]
    assert inside.mean() == pytest.approx(1, abs=0.02)  # the 99 % quantile is 1
    assert item["image"][0, :1].max() < 1e-3  # outside the disc, which fits

    # Again: nothing changes, and the names are reported as before.
    before = contents(tmp_path / "train")
    assert run(*arguments, "--out", tmp_path / "train", "--leave-out", held) == 0
    told = capsys.readouterr()
    assert contents(tmp_path / "train") == before
    assert "already done: 1" in told.out
    assert "match no volume: nobody" in told.err
    # With other people, or other notes, it is another set.
    held.write_text("bob\n")
    assert run(*arguments, "--out", tmp_path / "train", "--leave-out", held) == 2
    assert "made with leave_out" in capsys.readouterr().err
    held.write_text("ann\nnobody\n")
    notes = notes_of("ann", "bob", "ann", "another name")
    (one / "slices.json").write_text(json.dumps(notes))
    assert run(*arguments, "--out", tmp_path / "train", "--leave-out", held) == 1
    assert "was made from another file" in capsys.readouterr().err


def test_people_who_are_left_out_are_not_read(tmp_path):
    path = tmp_path / "sub-01_T1w.nii.gz"
    path.write_bytes(b"no volume")
    out = tmp_path / "set"
    held = tmp_path / "held.txt"
    held.write_text("sub-01\n")
    assert run("prepare", "images", path, "--out", out, "--leave-out", held) == 0
    assert not contents(out)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["left_out"], summary["failed"], summary["volumes"]) == (["sub-01"], {}, 0)
    assert ImageSource(people=None).settings()["only"] is None
    assert LeftOut("sub-01").subject == "sub-01"


def test_workers_make_the_same(tmp_path):
    inputs = [write_nifti(tmp_path / f"sub-{n}_T1w.nii", BODY * n, (1, 1, 4)) for n in (1, 2)]
    folder = write_collection(tmp_path / "c", discs(2), notes_of("ann", "bob"))
    arguments = ("prepare", "images", *inputs, folder, "--size", 32, 32)
    for workers in (1, 2):
        assert run(*arguments, "--out", tmp_path / str(workers), "--workers", workers) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    # Stopped after the first and gone on with.
    os.remove(tmp_path / "2" / "c.safetensors")
    assert run(*arguments, "--out", tmp_path / "2") == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    data = ShardSlices(tmp_path / "1")
    assert len(data) == 2 * SHAPE[2] + 2
    assert torch.allclose(data[2]["image"], data[2 + SHAPE[2]]["image"], atol=2e-3)  # one scale
