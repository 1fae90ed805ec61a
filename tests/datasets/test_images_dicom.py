"""``ctxrecon prepare images``: DICOM series by position, magnitudes alone, without names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from narrow import present
from test_images import BODY, SHAPE
from test_prepare import run

from ctxrecon.datasets import ImageSource, ShardSlices
from ctxrecon.datasets.dicom_series import read_series
from ctxrecon.datasets.source import Slice
from ctxrecon.errors import InputError
from ctxrecon.io import DicomHeader, write_image
from ctxrecon.io.images import Part
from ctxrecon.metadata import ScanMetadata

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("nibabel")


def write_dicom(path: Path, image: np.ndarray, **elements: object) -> Path:
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    stored = np.round(1000 * image).astype(np.int16)
    defaults = {
        **{"Modality": "MR", "PatientID": "4711", "PatientName": "Doe^Jane"},
        **{"SeriesInstanceUID": "1.2", "ImageType": ["ORIGINAL", "PRIMARY", "M"]},
        **{"SeriesDescription": "t2_tse_tra", "RepetitionTime": 3000, "EchoTime": 90},
        **{"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 0]},
        **{"PixelSpacing": [1, 1], "SliceThickness": 4, "Rows": stored.shape[0]},
        **{"Columns": stored.shape[1], "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15},
        **{"PixelRepresentation": 1, "SamplesPerPixel": 1, "RescaleSlope": "0.001"},
        **{"RescaleIntercept": "0", "PhotometricInterpretation": "MONOCHROME2"},
        "PixelData": stored.tobytes(),
    }
    for name, value in (defaults | elements).items():
        setattr(header, name, value)
    path.parent.mkdir(exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def write_axial(folder: Path, data=BODY, **elements: object) -> Path:
    """Slices of the body in a shuffled order of names, numbered from the head."""
    order = np.random.default_rng(1).permutation(data.shape[2])
    for z in range(data.shape[2]):
        # Columns to the left of the person, rows to the back.
        write_dicom(
            folder / f"{elements.get('SeriesInstanceUID', '1.2')}-{order[z]:03}.dcm",
            data[::-1, ::-1, z].T,
            ImagePositionPatient=[-9, -9, 5.0 * z],
            InstanceNumber=data.shape[2] - z,
            **elements,
        )
    return folder


def slices_of(folder: Path) -> list[Slice]:
    found = ImageSource(size=(32, 32)).slices(folder)
    return [item for item in found if isinstance(item, Slice)]


def test_series_by_position(tmp_path, capsys):
    folder = write_axial(tmp_path / "scan")
    write_dicom(folder / "phase.dcm", BODY[..., 0], ImageType=["ORIGINAL", "PRIMARY", "P"])
    (folder / "DICOMDIR").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    items = slices_of(folder)
    assert len(items) == SHAPE[2]
    for z, item in enumerate(items):
        expected = BODY[::-1, ::-1, z].T
        assert np.abs(item.image[item.image > 0] - expected.ravel()).max() < 6e-4
        assert item.metadata.slice == SHAPE[2] - z - 1
    told = items[0].metadata
    assert (told.contrast, told.tr, told.te) == ("T2", 3000, 90)
    assert len({item.subject for item in items}) == 1
    assert not {"Doe", "4711"} & set(present(items[0].subject).split("-"))

    out = tmp_path / "set"
    arguments = ("prepare", "images", folder, "--out", out, "--size", 32, 32)
    assert run(*arguments, "--workers", 1, "--anatomy", "brain", "--origin", "mine (CC0)") == 0
    assert "1 images that are not magnitudes" in capsys.readouterr().err
    data = ShardSlices(out)
    assert (data.kind, len(data), data.origins) == ("magnitude", SHAPE[2], ("mine (CC0)",))
    assert data[0]["metadata"].anatomy == "brain"
    raw = b"".join(path.read_bytes() for path in out.iterdir())
    assert b"Doe" not in raw


def test_sagittal_series(tmp_path):
    for x in range(4):
        # Columns to the back, rows to the feet; the first slice on the right.
        write_dicom(
            tmp_path / f"{x}",
            BODY[x, ::-1, ::-1].T,
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            ImagePositionPatient=[-5.0 * x, 0, 0],
            InstanceNumber=x + 1,
        )
    items = slices_of(tmp_path)
    # From the left: x runs to the right of the person.
    assert [item.metadata.slice for item in items] == [0, 1, 2, 3]
    expected = BODY[0, ::-1, ::-1].T
    assert np.abs(items[0].image[items[0].image > 0] - expected.ravel()).max() < 6e-4


def test_series_of_a_folder_are_kept_apart(tmp_path):
    write_axial(tmp_path, BODY[..., :5])
    write_axial(tmp_path, 2 * BODY[..., :6], SeriesInstanceUID="1.3", EchoTime=10)
    write_axial(tmp_path, BODY[..., :3], SeriesInstanceUID="1.4", PatientID="another")
    write_dicom(tmp_path / "1.4-again.dcm", BODY[..., 0], SeriesInstanceUID="1.4")
    series = read_series(tmp_path)
    assert sorted(len(each.files) for each in series) == [1, 3, 5, 6]
    assert len({each.subject for each in series}) == 2
    items = slices_of(tmp_path)
    assert sorted({present(item.metadata.te) for item in items}) == [10, 90]


def test_images_at_one_position_are_taken_once(tmp_path):
    write_axial(tmp_path, BODY[..., :5])
    write_dicom(tmp_path / "zz.dcm", BODY[..., 0].T, ImagePositionPatient=[-9, -9, 10.001])
    (series,) = read_series(tmp_path)
    assert len(series.files) == 5
    assert "zz.dcm" not in {path.name for path in series.files}


def test_missing_slices_are_reported(tmp_path, caplog):
    for z in (0, 1, 2, 4, 5):
        write_dicom(tmp_path / f"{z}.dcm", BODY[..., z].T, ImagePositionPatient=[-9, -9, 5.0 * z])
    read_series(tmp_path)
    assert "5 to 10 mm apart" in caplog.text


def test_images_of_the_first_time_point_are_taken(tmp_path):
    rng = np.random.default_rng(2)
    for time in (1, 2):
        for z in range(5):
            write_dicom(
                tmp_path / f"{rng.integers(10**9)}.dcm",
                time * BODY[..., z].T,
                ImagePositionPatient=[-9, -9, 5.0 * z],
                InstanceNumber=5 * (time - 1) + z + 1,
            )
    (series,) = read_series(tmp_path)
    numbers = [pydicom.dcmread(path).InstanceNumber for path in series.files]
    assert numbers == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("single_frames", [False, True])
def test_frames_of_an_enhanced_image_are_as_those_of_single_files(tmp_path, single_frames):
    # Rows to the back, columns to the left, from the head down, turned a little.
    affine = np.array([[0, -1, 0.0, 9], [-1, 0, 0, 9], [0, 0, -5, 25], [0, 0, 0, 1]])
    angle = np.deg2rad(5)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    count = BODY.shape[2]
    metadata = tuple(
        ScanMetadata(contrast="T2", slice=z, te=90.0, tr=3000.0, sequence="TurboSpinEcho")
        for z in range(count)
    )
    header = DicomHeader("network", metadata=metadata)
    parts: tuple[tuple[str, Part], ...] = (("a.dcm", "magnitude"), ("p.dcm", "phase"))
    for name, part in parts:
        write_image(
            tmp_path / name,
            BODY[::-1, ::-1, ::-1].transpose(2, 1, 0),
            affine=turn @ affine,
            header=header,
            part=part,
            single_frames=single_frames,
        )
    (series,) = read_series(tmp_path)  # phases are left out
    assert len(series.files) == count
    np.testing.assert_allclose(series.affine[:3, 2] / 5, turn[:3, 2], atol=1e-6)
    items = slices_of(tmp_path)
    assert [item.metadata.slice for item in items] == list(range(count))[::-1]
    assert {item.metadata.te for item in items} == {90}
    for z, item in enumerate(items):
        expected = BODY[::-1, ::-1, z].T * (items[0].image.max() / BODY[..., 0].max())
        assert np.abs(item.image[item.image > 0] - expected.ravel()).max() < expected.max() / 1e3


@pytest.mark.parametrize("single_frames", [False, True])
def test_maps_are_no_magnitudes(tmp_path, single_frames):
    header = DicomHeader(quantity="t2star")
    options: dict[str, Any] = {"affine": np.eye(4), "header": header}
    write_image(tmp_path / "a.dcm", BODY.T, single_frames=single_frames, **options)
    with pytest.raises(InputError, match="no MR magnitude images"):
        read_series(tmp_path)


def test_a_header_of_other_frames_than_the_pixels(tmp_path):
    write_image(tmp_path / "a.dcm", BODY.transpose(2, 1, 0), affine=np.eye(4))
    data = pydicom.dcmread(tmp_path / "a.dcm")
    data.NumberOfFrames = 2
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(InputError, match="frames"):
        slices_of(tmp_path)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "phase": ({"ImageType": ["DERIVED", "PHASE"]}, "no MR magnitude images"),
    "real": ({"ComplexImageComponent": "REAL"}, "no MR magnitude images"),
    "computed tomography": ({"Modality": "CT"}, "no MR magnitude images"),
    "frames": ({"NumberOfFrames": 3}, "several frames"),
    "map": ({"ImageType": ["DERIVED", "PRIMARY", "T2_STAR MAP"]}, "no MR magnitude images"),
    "no orientation": ({"ImageOrientationPatient": None}, "orientation"),
    "orientation": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "is invalid"),
    "spacing": ({"PixelSpacing": [0, 1]}, "is invalid"),
    "color": ({"PhotometricInterpretation": "RGB"}, "gray values"),
    "negative": ({"RescaleIntercept": "-1.5"}, "expected magnitudes"),
    "huge": ({"Rows": 65535, "Columns": 65535}, "states"),
    "short": ({"PixelData": bytes(40)}, "pixels cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_series_that_are_refused(tmp_path, name):
    elements, words = REFUSED[name]
    write_dicom(tmp_path / "a.dcm", BODY[..., 0], **elements)
    with pytest.raises(InputError, match=words) as error:
        slices_of(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("element", "damaged"),
    [
        (b"\x20\x00\x37\x00DS", b"\x20\x00\x37\x00DW"),  # orientation
        (b"\x28\x00\x00\x01US\x02\x00", b"\x28\x00\x00\x01US\x03\x00"),  # bits, of three bytes
        (b"\x28\x00\x00\x01US", b"\x28\x00\x00\x01\x55\x00"),
        (b"\x28\x00\x53\x10DS", b"\x28\x00\x53\x10XX"),  # slope
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_elements_of_no_known_type(tmp_path, element, damaged):
    write_dicom(tmp_path / "a.dcm", BODY[..., 0], RescaleSlope="2")
    content = (tmp_path / "a.dcm").read_bytes()
    assert content.count(element) == 1
    (tmp_path / "a.dcm").write_bytes(content.replace(element, damaged))
    with pytest.raises(InputError, match=r"a\.dcm"):
        slices_of(tmp_path)


def test_files_that_are_no_dicom(tmp_path):
    (tmp_path / "a.dcm").write_text("no DICOM")
    with pytest.raises(InputError, match="expected a DICOM file"):
        slices_of(tmp_path)
