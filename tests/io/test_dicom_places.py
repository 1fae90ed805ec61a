"""DICOM: series where the scanner measured them, as pydicom, dcm2niix and nibabel read them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import PLACES, SHAPE, assert_in_place, images, of_place

from ctxrecon.errors import InputError
from ctxrecon.io import DicomHeader, write_image
from ctxrecon.metadata import ScanMetadata, from_dicom

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")

METADATA = tuple(
    ScanMetadata(
        anatomy="knee",
        slice=number,
        contrast="FLAIR",
        sequence="TurboSpinEcho",
        tr=3150,
        te=33.5,
        ti=100,
        flip_angle=140,
        field_strength=2.89,
        age=48,
        sex="F",
    )
    for number in range(7, 7 + SHAPE[0])
)
HEADER = DicomHeader("CG-SENSE", 4.0, METADATA)
SINGLE = pytest.mark.parametrize("single_frames", [False, True])


def in_frames(files: tuple[Path, ...]) -> list[tuple[np.ndarray, Any, Any, Any]]:
    """Rescaled pixels, position, orientation and spacing of each frame."""
    found = []
    for file in files:
        data = pydicom.dcmread(file)
        if "PerFrameFunctionalGroupsSequence" not in data:
            values = data.pixel_array * float(data.RescaleSlope) + float(data.RescaleIntercept)
            found.append((values, data, data, data))
            continue
        shared = data.SharedFunctionalGroupsSequence[0]
        scale = shared.PixelValueTransformationSequence[0]
        for frame, stored in zip(
            data.PerFrameFunctionalGroupsSequence, data.pixel_array, strict=True
        ):
            values = stored * float(scale.RescaleSlope) + float(scale.RescaleIntercept)
            place = frame.PlanePositionSequence[0], shared.PlaneOrientationSequence[0]
            found.append((values, *place, shared.PixelMeasuresSequence[0]))
    return found


@SINGLE
@pytest.mark.parametrize("name", PLACES)
def test_pixels_lie_where_they_were_measured(tmp_path, name, single_frames):
    affine = PLACES[name]
    files = write_image(
        tmp_path / "a.dcm",
        images(affine),
        affine=affine,
        header=HEADER,
        single_frames=single_frames,
    )
    assert len(files) == (SHAPE[0] if single_frames else 1)
    rows, columns = np.indices(SHAPE[1:])
    for values, position, orientation, measures in in_frames(files):
        row, column = np.reshape(orientation.ImageOrientationPatient, (2, 3))
        down, right = (float(value) for value in measures.PixelSpacing)
        points = (
            np.array(position.ImagePositionPatient, float)
            + columns[..., None] * right * row
            + rows[..., None] * down * column
        )
        expected = of_place(points * [-1, -1, 1])  # left and back to right and front
        assert np.abs(values / 10 - expected).max() < 0.01
        assert (down, right) == (pytest.approx(1.5), pytest.approx(2))
        assert float(measures.SpacingBetweenSlices) == pytest.approx(6)


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="needs the program dcm2niix")
@SINGLE
@pytest.mark.parametrize("name", ["sagittal, from the right", "coronal", "oblique, from the head"])
def test_dcm2niix_and_nifti_agree(tmp_path, name, single_frames):
    affine = PLACES[name]
    (tmp_path / "dicom").mkdir()
    write_image(
        tmp_path / "dicom" / "a.dcm",
        images(affine),
        affine=affine,
        header=HEADER,
        single_frames=single_frames,
    )
    command = ["dcm2niix", "-z", "n", "-f", "a", "-o", str(tmp_path), str(tmp_path / "dicom")]
    subprocess.run(command, check=True, capture_output=True)
    (converted,) = tmp_path.glob("*.nii")
    loaded = nibabel.as_closest_canonical(nibabel.load(converted))
    (ours,) = write_image(tmp_path / "ours.nii.gz", images(affine), affine=affine)
    direct = nibabel.as_closest_canonical(nibabel.load(ours))
    np.testing.assert_allclose(loaded.affine, direct.affine, atol=1e-4)
    np.testing.assert_allclose(loaded.get_fdata() / 10, direct.get_fdata(), atol=0.01)
    assert_in_place(loaded.get_fdata() / 10, loaded.affine, tolerance=0.01)


@SINGLE
def test_what_is_known_of_the_scan_is_read_back(tmp_path, single_frames):
    affine = PLACES["axial"]
    files = write_image(
        tmp_path / "a.dcm",
        images(affine),
        affine=affine,
        header=HEADER,
        single_frames=single_frames,
    )
    known = [from_dicom(file) for file in files]
    if single_frames:
        assert tuple(known) == METADATA
    else:
        assert known == [replace(METADATA[0], slice=None)]
    for file in files:
        data = pydicom.dcmread(file)
        assert list(data.ImageType)[:2] == ["DERIVED", "PRIMARY"]
        assert "CG-SENSE" in data.DerivationDescription
        assert "acceleration 4" in data.DerivationDescription
        assert data.PatientName == "Anonymous"
        assert not data.PatientID
        assert data.PatientAge == "048Y"
        assert data.PixelData


@SINGLE
def test_an_inversion_is_not_made_up(tmp_path, single_frames):
    """Siemens's headers state an inversion time of every scan."""
    plain = tuple(replace(item, contrast="T2*") for item in METADATA)
    affine = PLACES["axial"]
    (file, *_) = write_image(
        tmp_path / "a.dcm",
        images(affine),
        affine=affine,
        header=DicomHeader("CG-SENSE", metadata=plain),
        single_frames=single_frames,
    )
    found = from_dicom(file)
    assert (found.contrast, found.ti, found.te) == ("T2*", None, 33.5)
    assert "Inversion" not in str(pydicom.dcmread(file))


def test_identifiers_belong_together(tmp_path):
    affine = PLACES["axial"]
    first = write_image(
        tmp_path / "a.dcm", images(affine), affine=affine, header=HEADER, single_frames=True
    )
    second = write_image(
        tmp_path / "b.dcm", images(affine), affine=affine, header=replace(HEADER, number=2)
    )
    data = [pydicom.dcmread(file) for file in (*first, *second)]
    for name, different in (
        ("SOPInstanceUID", SHAPE[0] + 1),
        ("SeriesInstanceUID", 2),
        ("StudyInstanceUID", 1),
        ("FrameOfReferenceUID", 1),
    ):
        identifiers = {getattr(item, name) for item in data}
        assert len(identifiers) == different
        assert all(identifier.is_valid for identifier in identifiers)
    assert [item.InstanceNumber for item in data[:2]] == [8, 9]


@SINGLE
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e7])
def test_signal_of_any_scale_has_a_window_to_look_through(tmp_path, single_frames, scale):
    affine = PLACES["axial"]
    values = images(affine) * scale
    header = replace(HEADER, exponent=None)
    (file, *_) = write_image(
        tmp_path / "a.dcm", values, affine=affine, header=header, single_frames=single_frames
    )
    data = pydicom.dcmread(file)
    groups = data if single_frames else data.SharedFunctionalGroupsSequence[0]
    window = groups if single_frames else groups.FrameVOILUTSequence[0]
    assert 1000 < window.WindowWidth < 10000
    real = groups.RealWorldValueMappingSequence[0]
    stored = data.pixel_array if single_frames else data.pixel_array[0]
    mapped = stored * real.RealWorldValueSlope + real.RealWorldValueIntercept
    np.testing.assert_allclose(mapped, values[0], rtol=1e-4)


@SINGLE
def test_maps_and_phases_keep_their_units(tmp_path, single_frames):
    affine = PLACES["axial"]
    maps = images(affine) / 10
    phases = np.linspace(-3, 3, maps.size).reshape(maps.shape)
    cases: dict[str, tuple[np.ndarray, DicomHeader, Any, str, str]] = {
        "t": (maps, replace(HEADER, quantity="t2star"), "magnitude", "ms", "T2_STAR"),
        "s": (maps, replace(HEADER, quantity="std", exponent=0), "magnitude", "1", "STD_DEV"),
        "p": (np.exp(1j * phases), HEADER, "phase", "rad", "PHASE"),
    }
    for name, (values, header, part, unit, kind) in cases.items():
        files = write_image(
            tmp_path / f"{name}.dcm",
            values,
            affine=affine,
            header=header,
            part=part,
            single_frames=single_frames,
        )
        expected = phases if part == "phase" else maps
        for frame, plane in zip(in_frames(files), expected, strict=True):
            np.testing.assert_allclose(frame[0], plane, atol=np.abs(expected).max() / 2**15)
        data = pydicom.dcmread(files[0])
        groups = data if single_frames else data.SharedFunctionalGroupsSequence[0]
        real = groups.RealWorldValueMappingSequence[0]
        assert real.MeasurementUnitsCodeSequence[0].CodeValue == unit
        said = [*data.ImageType, data.get("ComplexImageComponent", "")]
        assert any(kind in word for word in said)


def test_one_slice_of_an_unknown_scan_and_images_of_zeros(tmp_path):
    affine = PLACES["oblique"]
    values = np.zeros((1, 4, 6))
    for single_frames in (False, True):
        (file,) = write_image(
            tmp_path / "a.dcm", values, affine=affine, single_frames=single_frames
        )
        assert not pydicom.dcmread(file).pixel_array.any()
        assert from_dicom(file).tr is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"affine": None}, "position of the image"),
        ({"part": "complex"}, "magnitude and phase"),
        ({"affine": np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])}, "angle"),
        ({"header": replace(HEADER, metadata=METADATA[:2])}, "metadata"),
    ],
)
def test_series_that_cannot_be_written(tmp_path, change, words):
    options: dict[str, Any] = {"affine": PLACES["axial"], "header": HEADER} | change
    with pytest.raises(InputError, match=words):
        write_image(tmp_path / "a.dcm", images(PLACES["axial"]), **options)
    assert not list(tmp_path.iterdir())


@SINGLE
def test_a_header_of_phases_stores_radians(tmp_path, single_frames):
    affine = PLACES["axial"]
    phases = np.linspace(-3, 3, images(affine).size).reshape(images(affine).shape)
    header = replace(HEADER, quantity="phase")
    for name, values in (("complex", 2 * np.exp(1j * phases)), ("real", phases)):
        files = write_image(
            tmp_path / f"{name}.dcm",
            values,
            affine=affine,
            header=header,
            single_frames=single_frames,
        )
        for frame, plane in zip(in_frames(files), phases, strict=True):
            np.testing.assert_allclose(frame[0], plane, atol=1e-3)


@SINGLE
def test_decimal_strings_have_at_most_16_characters(tmp_path, single_frames):
    affine = PLACES["axial"]
    metadata = [replace(one, te=1e3 * 0.00291, tr=1e4 / 3, flip_angle=20 / 3) for one in METADATA]
    header = replace(HEADER, metadata=tuple(metadata))
    (path, *_) = write_image(
        tmp_path / "a.dcm",
        images(affine),
        affine=affine,
        header=header,
        single_frames=single_frames,
    )
    found = [one for one in pydicom.dcmread(path).iterall() if one.VR == "DS" and one.value]
    assert found
    for element in found:
        values = element.value if element.VM > 1 else [element.value]
        assert all(len(str(value)) <= 16 for value in values), element
