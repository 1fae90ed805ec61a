"""``ctxrecon simulate`` of a NIfTI volume, and ``reconstruct`` with another one as a reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refused, run
from narrow import present

from ctxrecon.commands.inputs import read_other_contrast
from ctxrecon.commands.volume import Volume
from ctxrecon.io import read_scan
from ctxrecon.pipelines import CrossModalPipeline
from ctxrecon.reconstructors import CrossModal

nibabel = pytest.importorskip("nibabel")

MARKER = np.array([9.0, -14.0, 21.0])
"""In mm to the right, front and head: on no axis of symmetry."""
# Axes of the volumes in columns: axial slices of T2, 4 mm thick and tilted; sagittal ones of T1.
TILT = np.deg2rad(10)
TILTED = np.array(
    [[-1, 0, 0], [0, np.cos(TILT), -np.sin(TILT)], [0, np.sin(TILT), np.cos(TILT)]]
) * np.array([2.0, 2.5, 4.0])
SAGITTAL = np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]]) * np.array([1.5, 1.5, 2.0])
T2, T1 = ((44, 40, 13), TILTED), ((52, 60, 40), SAGITTAL)


def affine_of(shape: tuple[int, int, int], axes: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = 5 - axes @ ((np.array(shape) - 1) / 2)
    return affine


def write(path: Path, shape: tuple[int, int, int], axes: np.ndarray, brightness: float) -> Path:
    """A head with a bright marker, seen by a scan of these axes."""
    affine = affine_of(shape, axes)
    at = np.einsum("ai,i...->a...", affine[:3, :3], np.indices(shape).astype(float))
    at = at + affine[:3, 3].reshape(3, 1, 1, 1)
    head = brightness / (1 + np.exp(np.hypot(np.hypot(at[0], at[1]), at[2]) - 35))
    marker = np.exp(-((at - MARKER.reshape(3, 1, 1, 1)) ** 2).sum(axis=0) / (2 * 4.0**2))
    volume = (100 * head + 300 * marker).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
    return path


def brightest(images: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the marker's position: centroid in mm of the bright voxels ``(slices, ny, nx)``."""
    weight = np.where(images > 0.7 * images.max(), images, 0)
    slices, rows, columns = np.indices(images.shape)
    index = [float((weight * axis).sum() / weight.sum()) for axis in (rows, columns, slices)]
    return (affine @ [*index, 1])[:3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both volumes, an undersampled scan of the T2, and a network."""
    folder = tmp_path_factory.mktemp("pair")
    write(folder / "T2.nii.gz", *T2, brightness=0.6)
    write(folder / "T1.nii.gz", *T1, brightness=1.0)
    command = ("simulate", folder / "T2.nii.gz", "--out", folder / "scan.npz", "--coils", 1)
    assert run(*command, "--undersample", "random1d", "--acceleration", 2, "--snr", 100) == 0
    torch.manual_seed(0)
    small = {"width": 2, "depth": 1, "cascades": 1, "synthesis_cascades": 1, "align_width": 2}
    CrossModalPipeline(CrossModal(**small, align_depth=1)).save_pretrained(folder / "cross")
    return folder


def test_a_volume_is_measured_upright_and_in_its_place(folder):
    scan = read_scan(folder / "scan.npz")
    assert scan.kspace.shape == (13, 1, 40, 44)
    assert 0.4 < scan.cartesian_mask.float().mean() < 0.6
    assert scan.metadata[0].contrast == "T2"
    assert scan.voxel_size == pytest.approx((2.5, 2.0, 4.0))
    rows, columns, slices = (present(scan.affine)[:3, axis].numpy() for axis in range(3))
    assert rows[1] < 0 < slices[2]  # the front is up, slices go to the head
    assert columns[0] < 0  # the right is on the left
    found = brightest(present(scan.target).abs().numpy(), present(scan.affine).numpy())
    np.testing.assert_allclose(found[:2], MARKER[:2], atol=1.5)
    assert (folder / "scan_target.png").is_file()


def test_the_reference_lands_where_it_should(folder):
    volume = Volume(folder / "scan.npz")
    found = read_other_contrast(folder / "T1.nii.gz", volume)
    assert found.shape == (13, 40, 44)
    scan = read_scan(folder / "scan.npz")
    affine = present(scan.affine).numpy()
    place = brightest(present(scan.target).abs().numpy(), affine)
    np.testing.assert_allclose(brightest(found.numpy(), affine), place, atol=0.7)
    some = read_other_contrast(folder / "T1.nii.gz", Volume(folder / "scan.npz", "4:9"))
    torch.testing.assert_close(some, found[4:9])


def test_the_command_runs_on_two_volumes(folder, tmp_path):
    pair = (folder / "scan.npz", "--reference", folder / "T1.nii.gz")
    command = ("reconstruct", *pair, "--model", folder / "cross")
    assert run(*command, "--out", tmp_path / "t2.npy") == 0
    images = np.load(tmp_path / "t2.npy")
    assert images.shape == (13, 40, 44)
    # The network is new, and takes steps towards the data alone.
    target = present(read_scan(folder / "scan.npz").target).numpy()
    assert np.abs(images - target).mean() < 0.3 * np.abs(target).mean()
    assert run(*command, "--out", tmp_path / "one.nii.gz", "--slices", "7:9") == 0
    written = nibabel.load(tmp_path / "one.nii.gz")
    volume = written.get_fdata().transpose(2, 1, 0)
    np.testing.assert_allclose(volume, np.abs(images[7:9]), rtol=1e-4, atol=1e-5)
    rows, columns, slices, origin = present(read_scan(folder / "scan.npz").affine).numpy().T
    place = np.stack([columns, rows, slices, origin + 7 * slices], axis=1)
    np.testing.assert_allclose(written.affine, place, atol=1e-3)


def test_references_that_are_refused(folder, tmp_path, prior, capsys):
    model = ("--model", folder / "cross", "--out", tmp_path / "x.npy")
    scan, reference = folder / "scan.npz", ("--reference", folder / "T1.nii.gz")
    assert "--reference" in refused(capsys, "reconstruct", scan, *model)
    other = ("--model", prior, "--out", tmp_path / "x.npy")
    assert "train_cross_modal" in refused(capsys, "reconstruct", scan, *reference, *other)
    alone = ("--out", tmp_path / "x.npy")
    assert "--model too" in refused(capsys, "reconstruct", scan, *reference, *alone)
    content = dict(np.load(scan))
    del content["affine"]
    np.savez(tmp_path / "nowhere.npz", **content)
    said = refused(capsys, "reconstruct", tmp_path / "nowhere.npz", *reference, *model)
    assert "position of its slices" in said
    unplaced = nibabel.load(folder / "T1.nii.gz")
    unplaced.set_sform(None)
    unplaced.set_qform(None)
    nibabel.save(unplaced, tmp_path / "unplaced.nii.gz")
    elsewhere = nibabel.Nifti1Image(unplaced.get_fdata(), np.eye(4))
    elsewhere.affine[0, 3] = 900
    nibabel.save(elsewhere, tmp_path / "elsewhere.nii.gz")
    for name, said in (("unplaced", "codes are 0"), ("elsewhere", "overlap")):
        given = ("--reference", tmp_path / f"{name}.nii.gz")
        assert said in refused(capsys, "reconstruct", scan, *given, *model)
    (tmp_path / "text.nii.gz").write_bytes(b"no volume")
    given = ("--reference", tmp_path / "text.nii.gz")
    assert "not a readable NIfTI" in refused(capsys, "reconstruct", scan, *given, *model)


def test_volumes_that_cannot_be_measured(folder, tmp_path, capsys):
    out = ("--out", tmp_path / "x.npz")
    assert "--shape" in refused(capsys, "simulate", folder / "T2.nii.gz", "--shape", 32, 32, *out)
    assert ".nii" in refused(capsys, "simulate", folder / "scan.npz", *out)
    for name, values in (("empty", 0.0), ("signed", -1.0)):
        data = np.full((8, 8, 4), values)
        data[2:] += 0.5 if name == "signed" else 0
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), tmp_path / f"{name}.nii.gz")
        assert "expected magnitudes" in refused(
            capsys, "simulate", tmp_path / f"{name}.nii.gz", *out
        )
