"""Fuzzed formats: a small file of each and a function that reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fuzz.twix_file import write_twix
from ctxrecon.io import read_scan, scan_info
from ctxrecon.metadata import ScanMetadata, from_prompt
from ctxrecon.scan import Scan

COILS, NY, NX = 2, 12, 8
_XML = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>12</x><y>8</y><z>1</z></matrixSize>
<fieldOfView_mm><x>240</x><y>160</y><z>5</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>6</x><y>8</y><z>1</z></matrixSize>
<fieldOfView_mm><x>120</x><y>160</y><z>5</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>7</maximum><center>4</center>
</kspace_encoding_step_1></encodingLimits><trajectory>cartesian</trajectory></encoding>
<sequenceParameters><TR>3150</TR><TE>33</TE></sequenceParameters></ismrmrdHeader>"""
PROMPT = "knee, Slice 12, PDFS, Meniscus Tear, TurboSpinEcho, TR: 3150, TE: 33, Flip angle: 140"


@dataclass(frozen=True)
class Subject:
    """One file format.

    Attributes:
        name: Name of the format.
        files: Names of its files; the first one is read.
        write: Function that writes the files into a folder.
        read: Function that reads the first file into an object comparable by its ``repr``.
        blocks: Bytes of the samples in the files, whose changes cannot be detected.
    """

    name: str
    files: tuple[str, ...]
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]
    blocks: tuple[bytes, ...] = ()


def kspace(*shape: int) -> np.ndarray:
    """Return deterministic samples of a smooth object in this shape."""
    generator = np.random.default_rng(7)
    values = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    return values.astype(np.complex64)


def fingerprint(scan: Scan) -> tuple[Any, ...]:
    """Return a short summary of everything in a scan."""
    return tuple(_short(getattr(scan, item.name)) for item in fields(scan))


def _short(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        raw = value.contiguous().numpy().tobytes()
        return (tuple(value.shape), hashlib.blake2b(raw, digest_size=12).hexdigest())
    if isinstance(value, tuple) and value and isinstance(value[0], ScanMetadata):
        return tuple(astuple(item) for item in value)
    return value


def _read(path: Path) -> Any:
    info = scan_info(path)
    return fingerprint(read_scan(path)), info["slices"], info["prompt"]


def _fastmri(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "f.h5", "w") as file:
        file["kspace"] = kspace(2, COILS, NY, NX)
        file["ismrmrd_header"] = _XML
        file["mask"] = np.arange(NX) % 2 == 0
        file.attrs["acquisition"] = "CORPDFS_FBK"


_INDEX = ("kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast") + (
    "phase",
    "repetition",
    "set",
    "segment",
)
_HEAD = np.dtype(
    [("flags", "<u8")]
    + [
        (name, "<u2")
        for name in ("number_of_samples", "active_channels", "center_sample", "discard_pre")
        + ("discard_post", "encoding_space_ref", "trajectory_dimensions")
    ]
    + [("sample_time_us", "<f4"), ("idx", [(name, "<u2") for name in _INDEX])]
)


def _ismrmrd(folder: Path) -> None:
    import h5py

    sequence = h5py.vlen_dtype(np.float32)
    table = np.zeros(NX, np.dtype([("head", _HEAD), ("traj", sequence), ("data", sequence)]))
    lines = kspace(COILS, NY, NX)
    for line, row in enumerate(table):
        head = row["head"]
        head["number_of_samples"], head["active_channels"] = NY, COILS
        head["center_sample"], head["sample_time_us"] = NY // 2, 5
        head["idx"]["kspace_encode_step_1"] = line
        row["traj"] = np.zeros(0, np.float32)
        row["data"] = np.ascontiguousarray(lines[..., line]).view(np.float32).ravel()
    with h5py.File(folder / "f.h5", "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("data", data=table, dtype=table.dtype)
        group["xml"] = np.array([_XML], dtype=object)


def _twix(vd: bool) -> Callable[[Path], Any]:
    lines = kspace(COILS, NY, NX)
    place = {"position": (3, -7, 6), "center": (NY // 2, NX // 2, 0)}
    readouts = [{"data": lines[..., n], "line": n, **place} for n in range(NX)]
    readouts.append({"data": lines[..., 0], "flags": ("SYNCDATA",)})
    return lambda folder: write_twix(folder / "f.dat", readouts, vd=vd)


def _npz(folder: Path) -> None:
    np.savez(
        folder / "f.npz",
        kspace=kspace(2, COILS, NY, NX),
        mask=np.ones(NX, bool),
        prompts=[PROMPT, PROMPT],
        voxel_size=np.array([0.5, 0.5, 3.0]),
    )


def _cfl(folder: Path) -> None:
    dims = [NY, NX, 1, COILS] + [1] * 9 + [2, 1, 1]
    (folder / "f.hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n# Command\n")
    (folder / "f.cfl").write_bytes(kspace(2, COILS, NX, NY).tobytes())


def _matlab(version: str, *, compressed: bool = False) -> Callable[[Path], Any]:
    array = kspace(NY, NX, COILS, 2)

    def write(folder: Path) -> None:
        if version == "7.3":
            import h5py

            with h5py.File(folder / "f.mat", "w", userblock_size=512) as file:
                pairs = np.zeros(array.T.shape, [("real", "<f4"), ("imag", "<f4")])
                pairs["real"], pairs["imag"] = array.T.real, array.T.imag
                file["kspace"] = pairs
            with (folder / "f.mat").open("r+b") as file:
                file.write(b"MATLAB 7.3 MAT-file")
            return
        from scipy.io import savemat

        savemat(folder / "f.mat", {"kspace": array, "tr": 3150.0}, do_compression=compressed)

    return write


def _nifti(name: str) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        import nibabel

        volume = np.abs(kspace(NX, NY, 3)).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-1.0, 1, 5, 1])), folder / name)

    return write


def _read_nifti(path: Path) -> Any:
    from ctxrecon.datasets.nifti import load_volume

    volume = load_volume(path)
    return _short(torch.from_numpy(np.asarray(volume.data))), volume.spacing, volume.stored


def _dicom(folder: Path) -> None:
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    header = pydicom.Dataset()
    header.Modality, header.BodyPartExamined, header.ProtocolName = "MR", "KNEE", "PD_FS"
    header.RepetitionTime, header.EchoTime, header.FlipAngle = "3150", "33", "140"
    header.MagneticFieldStrength, header.InstanceNumber = "3", "5"
    header.PatientAge, header.PatientSex, header.PatientID = "048Y", "F", "1"
    header.Rows, header.Columns, header.BitsAllocated, header.BitsStored = NY, NX, 16, 16
    header.HighBit, header.PixelRepresentation, header.SamplesPerPixel = 15, 0, 1
    header.PhotometricInterpretation, header.PixelSpacing = "MONOCHROME2", [0.5, 0.5]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ImagePositionPatient = [0, 0, 0]
    header.SOPClassUID, header.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", generate_uid("1.2.")
    header.PixelData = _PIXELS.tobytes()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(folder / "f.dcm", enforce_file_format=True)


_PIXELS = np.arange(NY * NX, dtype=np.uint16)


def _read_dicom(path: Path) -> Any:
    from ctxrecon.datasets.dicom_series import load_series, read_series
    from ctxrecon.metadata import from_dicom

    header = from_dicom(path)
    return header, [load_series(one)[1] for one in read_series(path.parent)]


def _read_prompt(path: Path) -> Any:
    metadata = from_prompt(path.read_bytes().decode("utf-8", "replace"))
    return metadata, metadata.to_prompt()


def _lines(array: np.ndarray) -> tuple[bytes, ...]:
    """Return the samples of each coil and line as stored in raw data."""
    return tuple(array[coil, :, n].tobytes() for n in range(NX) for coil in range(COILS))


def _parts(array: np.ndarray) -> tuple[bytes, ...]:
    return array.real.tobytes(order="F"), array.imag.tobytes(order="F")


_SLICES = kspace(2, COILS, NY, NX).tobytes()
_LINES = kspace(COILS, NY, NX)
_READOUTS = tuple(np.ascontiguousarray(_LINES[..., n]).tobytes() for n in range(NX))
_VOLUME = np.abs(kspace(NX, NY, 3)).astype(np.float32).tobytes(order="F")
_MAT = kspace(NY, NX, COILS, 2)
SUBJECTS: tuple[Subject, ...] = (
    Subject("fastMRI", ("f.h5",), _fastmri, _read, (_SLICES,)),
    Subject("ISMRMRD", ("f.h5",), _ismrmrd, _read, _READOUTS),
    Subject("twix VD", ("f.dat",), _twix(True), _read, _lines(_LINES)),
    Subject("twix VB", ("f.dat",), _twix(False), _read, _lines(_LINES)),
    Subject(
        "npy",
        ("f.npy",),
        lambda folder: np.save(folder / "f.npy", kspace(2, COILS, NY, NX)),
        _read,
        (_SLICES,),
    ),
    Subject("npz", ("f.npz",), _npz, _read, (_SLICES,)),
    Subject("cfl", ("f.cfl", "f.hdr"), _cfl, _read, (kspace(2, COILS, NX, NY).tobytes(),)),
    Subject("mat v5", ("f.mat",), _matlab("5"), _read, _parts(_MAT)),
    Subject("mat v7", ("f.mat",), _matlab("5", compressed=True), _read),
    Subject("mat v7.3", ("f.mat",), _matlab("7.3"), _read, (_MAT.tobytes(order="F"),)),
    Subject("NIfTI", ("f.nii",), _nifti("f.nii"), _read_nifti, (_VOLUME,)),
    Subject("NIfTI gz", ("f.nii.gz",), _nifti("f.nii.gz"), _read_nifti),
    Subject("DICOM", ("f.dcm",), _dicom, _read_dicom, (_PIXELS.tobytes(),)),
    Subject(
        "prompt",
        ("f.txt",),
        lambda folder: (folder / "f.txt").write_text(PROMPT),
        _read_prompt,
    ),
)


def subjects(names: Sequence[str] | None) -> tuple[Subject, ...]:
    """Return the formats with these names, or all."""
    return tuple(one for one in SUBJECTS if not names or one.name in names)
