"""Images written by the command line keep their position, complex parts and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import refused, run
from places import PLACES, SHAPE, assert_in_place, images

from ctxrecon.commands.images import ImageWriter
from ctxrecon.commands.paths import image_outputs
from ctxrecon.commands.volume import Volume
from ctxrecon.fourier import fft2c
from ctxrecon.io import write_scan
from ctxrecon.metadata import ScanMetadata
from ctxrecon.scan import Scan

nibabel = pytest.importorskip("nibabel")
pydicom = pytest.importorskip("pydicom")

PLAIN = ("--method", "zero-filled")


def write(path: Path, **fields) -> Path:
    """A fully sampled single-coil scan whose pixel values encode their position."""
    affine = PLACES["oblique, from the head"]
    image = torch.tensor(images(affine), dtype=torch.complex64) * torch.exp(torch.tensor(0.5j))
    metadata = tuple(ScanMetadata(contrast="T1", slice=number, tr=500) for number in range(5))
    options: dict[str, Any] = {"affine": torch.tensor(affine), "metadata": metadata} | fields
    mask = torch.ones(1, 1, *SHAPE[1:], dtype=torch.bool)
    return write_scan(path, Scan(fft2c(image)[:, None], mask, **options))


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("slices", [(), ("--slices", "1:4"), ("--slices", "3")])
def test_nifti_has_the_place_of_the_scan(tmp_path, suffix, slices):
    scan = write(tmp_path / f"scan{suffix}")
    out = tmp_path / "out.nii.gz"
    assert run("reconstruct", scan, "--out", out, *PLAIN, *slices) == 0
    loaded = nibabel.load(out)
    assert "".join(nibabel.aff2axcodes(loaded.affine)) == "LPI"
    assert_in_place(loaded.get_fdata(), loaded.affine, tolerance=0.01)


def test_nifti_has_the_voxel_size_where_no_more_is_known(tmp_path):
    scan = write(tmp_path / "scan.npz", affine=None, voxel_size=(1.5, 2.0, 6.0))
    assert run("reconstruct", scan, "--out", tmp_path / "out.nii", *PLAIN) == 0
    header = nibabel.load(tmp_path / "out.nii").header
    assert header.get_zooms() == (2, 1.5, 6)
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 0)


@pytest.mark.parametrize(
    ("name", "beside"),
    [("a.nii.gz", "a_phase.nii.gz"), ("a_part-mag_T1w.nii", "a_part-phase_T1w.nii")],
)
def test_the_phase_lies_beside(tmp_path, name, beside):
    scan = write(tmp_path / "scan.npz")
    assert run("reconstruct", scan, "--out", tmp_path / name, *PLAIN, "--phase") == 0
    phase = nibabel.load(tmp_path / beside)
    np.testing.assert_allclose(phase.get_fdata(), 0.5, atol=1e-3)
    np.testing.assert_array_equal(phase.affine, nibabel.load(tmp_path / name).affine)


@pytest.mark.parametrize("single_frames", [False, True])
def test_dicom_series_of_one_study(tmp_path, single_frames):
    scan = write(tmp_path / "scan.npz")
    command = ("reconstruct", scan, "--out", tmp_path / "a.dcm", *PLAIN, "--phase", "--slices", 1)
    assert run(*command, *(["--single-frames"] if single_frames else [])) == 0
    image, phase = (pydicom.dcmread(tmp_path / name) for name in ("a.dcm", "a_phase.dcm"))
    assert image.StudyInstanceUID == phase.StudyInstanceUID
    assert image.FrameOfReferenceUID == phase.FrameOfReferenceUID
    assert image.SeriesInstanceUID != phase.SeriesInstanceUID
    assert (image.SeriesNumber, phase.SeriesNumber) == (1, 2)
    assert "zero-filled, acceleration 1" in image.SeriesDescription
    assert "phase, zero-filled" in phase.SeriesDescription
    assert len(image.get("PerFrameFunctionalGroupsSequence", [])) == (not single_frames)


def test_dicom_of_a_volume_is_one_file_or_one_a_slice(tmp_path):
    scan = write(tmp_path / "scan.npz")
    assert run("reconstruct", scan, "--out", tmp_path / "a.dcm", *PLAIN) == 0
    assert pydicom.dcmread(tmp_path / "a.dcm").NumberOfFrames == SHAPE[0]
    command = ("reconstruct", scan, "--out", tmp_path / "b.dcm", *PLAIN, "--single-frames")
    assert run(*command) == 0
    assert sorted(path.name for path in tmp_path.glob("b*.dcm")) == [
        f"b_{number:03d}.dcm" for number in range(SHAPE[0])
    ]
    assert run(*command) == 2  # nothing is replaced


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("a.npy", "--phase"), "--phase applies to NIfTI and DICOM"),
        (("a.png", "--phase"), "--phase applies to"),
        (("a.nii", "--single-frames"), "--single-frames applies to DICOM"),
        (("a.npy", "--batch-size", 2), "--batch-size applies to networks"),
        (("a.npy", "--repetition", 1), "have no"),
        (("a.npy", "--contrast", 1), "have no"),
        (("a.npy", "--cardiac-phase", 1), "have no"),
        (("a.npy", "--set", 1), "have no"),
        (("a.npy", "--average", 1), "have no"),
        (("a.npy", "--group", "scan"), "have no"),
        (("a.npy", "--crop-readout"), "readout oversampling"),
        (("a.npy", "--repetition", -1), "repetition"),
        (("a.npy", "--batch-size", 0), "batch-size"),
    ],
)
def test_options_that_do_not_belong_to_the_scan_or_the_file(tmp_path, capsys, arguments, words):
    scan = write(tmp_path / "scan.npz")
    name, *options = arguments
    assert words in refused(capsys, "reconstruct", scan, "--out", tmp_path / name, *PLAIN, *options)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_dicom_needs_a_place(tmp_path, capsys):
    scan = write(tmp_path / "scan.npz", affine=None)
    command = ("reconstruct", scan, "--out", tmp_path / "a.dcm", *PLAIN)
    assert "position of the image" in refused(capsys, *command)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_slices_at_once_give_the_same_images(tmp_path):
    scan = write(tmp_path / "scan.npz")
    command = ("reconstruct", scan, "--method", "network", "--slices", "0:2")
    for size in (1, 2):
        assert run(*command, "--out", tmp_path / f"{size}.npy", "--batch-size", size) == 0
    one, two = (np.load(tmp_path / f"{size}.npy") for size in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-3 * np.abs(one).max())


@pytest.mark.parametrize("suffix", [".nii.gz", ".dcm", ".npy"])
def test_maps_of_a_joint_model_lie_beside_in_a_format_that_keeps_their_place(tmp_path, suffix):
    volume = Volume(write(tmp_path / "scan.npz"))
    writer = ImageWriter(image_outputs(tmp_path / f"a{suffix}"), volume, 4.0)
    signal = torch.full(SHAPE, 2e-4)
    writer.write(writer.outputs.image, signal, "joint model")
    writer.write(writer.outputs.std, signal / 10, "joint model", "std")
    t2star = torch.full((1, *SHAPE[1:]), 30.0)
    (path,) = writer.write(writer.outputs.t2star, t2star, "joint model", "t2star", metadata=False)
    assert path.name == f"a_t2star{suffix}"
    if suffix != ".dcm":
        found = np.load(path) if suffix == ".npy" else nibabel.load(path).get_fdata()
        assert (found == 30).all()
        return
    image, std, map_ = (pydicom.dcmread(path) for path in writer.written)
    assert [item.SeriesNumber for item in (image, std, map_)] == [1, 2, 3]
    assert map_.ImageType[3] == "T2_STAR"
    scales = [
        item.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleSlope
        for item in (image, std, map_)
    ]
    peaks = [float(scale) * 65535 for scale in scales]
    np.testing.assert_allclose(peaks, [2000, 200, 30], rtol=1e-6)  # std in the scale of its image
