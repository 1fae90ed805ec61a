"""DICOM series: magnitude images of a folder as volumes."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctxrecon.datasets.volumes import Volume, upright
from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.metadata import ScanMetadata, from_dicom
from ctxrecon.metadata.dicom import DicomFile, functional_group, pydicom_for

logger = logging.getLogger(__name__)

_SUFFIXES = (".dcm", ".ima")
_NO_MAGNITUDE = {"P", "PHASE", "R", "REAL", "I", "IMAGINARY", "VELOCITY", "STD_DEVIATION"}
# Fourth values of ImageType in Enhanced MR images of quantities (PS3.3, C.8.13.3.1.1).
_MAPS = {"ADC", "RHO", "SNR_MAP", "T1", "T2", "T2_STAR", "TEMPERATURE"}
# GE's private image type: 0 magnitude, 1 phase, 2 real part, 3 imaginary part.
_GE_IMAGE_TYPE = (0x0043, 0x102F)
# Positions closer than this, in mm, are identical.
_SAME_POSITION = 0.01
# Deviation of the distance between slices from its median, relative to it, that is reported.
_UNEVEN = 0.1
# Decimals to which cosines of the orientation are compared.
_DECIMALS = 3


@dataclass(frozen=True)
class Series:
    """Images of a series that form one stack.

    Attributes:
        subject: Identifier of the person, a hash of the PatientID.
        files: File of each image, ordered by position along the normal of the images.
        frames: Frame of each image in its file; ``None`` for single-frame files.
        positions: Position of each image along the normal, in mm.
        affine: Affine ``(4, 4)`` from (column, row, slice) to mm to the right, front and head.
    """

    subject: str
    files: tuple[Path, ...]
    frames: tuple[int | None, ...]
    positions: tuple[float, ...]
    affine: NDArray[np.float64]


@dataclass(frozen=True)
class _Image:
    path: Path
    frame: int | None
    key: tuple[Any, ...]
    acquired: tuple[int, int]
    subject: str
    orientation: NDArray[np.float64]
    position: NDArray[np.float64]
    spacing: tuple[float, float]
    thickness: float

    @property
    def order(self) -> tuple[int, int, str, int]:
        """Sort key of images at the same position, by their order of acquisition."""
        return *self.acquired, self.path.name, self.frame or 0

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.orientation[:3], self.orientation[3:])


def is_dicom(path: Path) -> bool:
    """Return whether a file has a DICOM suffix or the marker behind the preamble."""
    if path.suffix.lower() in _SUFFIXES:
        return True
    if path.suffix and not path.suffix[1:].isdecimal():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder by name, without subfolders."""
    found = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    return sorted(path for path in found if path.name != "DICOMDIR" and is_dicom(path))


def read_series(folder: Path) -> list[Series]:
    """Read the series of magnitude images in a folder, in the order of their first files.

    Images of one series that differ in orientation, echo or matrix size are split into several.
    Phase images, and all but the first acquired of several images at one position, such as later
    time points, are skipped with a warning.

    Raises:
        InputError: If pydicom is missing, a file is damaged, or no image is left.
    """
    groups: dict[tuple[Any, ...], list[_Image]] = {}
    skipped = 0
    for path in dicom_files(folder):
        for image in _read_images(path):
            if image is None:
                skipped += 1
            else:
                groups.setdefault(image.key, []).append(image)
    if skipped:
        logger.warning("%s: skipped %d images that are not magnitudes", folder, skipped)
    if not groups:
        raise InputError(f"{folder} contains no MR magnitude images: expected DICOM series of them")
    return [_stacked(folder, images) for images in groups.values()]


def _stacked(folder: Path, images: Sequence[_Image]) -> Series:
    """Stack images to a series by their position."""
    first = images[0]
    normal = first.normal
    along = sorted(images, key=lambda image: (float(image.position @ normal), *image.order))
    kept: list[_Image] = []
    for image in along:
        if kept and (image.position - kept[-1].position) @ normal < _SAME_POSITION:
            continue
        kept.append(image)
    if len(kept) < len(along):
        logger.warning(
            "%s: skipped %d images at duplicate positions", folder, len(along) - len(kept)
        )
    positions = [float(image.position @ normal) for image in kept]
    gaps = np.diff(positions)
    gap = float(np.median(gaps)) if len(kept) > 1 else first.thickness
    if len(kept) > 2 and np.abs(gaps - gap).max() > _UNEVEN * gap:
        logger.warning(
            "%s: the slices are %.3g to %.3g mm apart, so that some may be missing; they are taken "
            "to be evenly spaced",
            folder,
            gaps.min(),
            gaps.max(),
        )
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = normal * gap
    affine[:3, 3] = kept[0].position
    affine[:2] *= -1  # DICOM axes point to the left and the back
    files, frames = zip(*((image.path, image.frame) for image in kept), strict=True)
    return Series(first.subject, files, frames, tuple(positions), affine)


def load_series(series: Series) -> tuple[Volume, tuple[ScanMetadata, ...]]:
    """Load the volume of a series and the metadata of its stored images.

    Raises:
        InputError: If the pixels cannot be read, or are not magnitudes.
    """
    places = list(zip(series.files, series.frames, strict=True))
    stored = {path: _stored(path) for path in dict.fromkeys(series.files)}
    pixels = np.stack([_values(path, *stored[path], frame).T for path, frame in places], axis=-1)
    metadata = tuple(from_dicom(path, frame) for path, frame in places)
    return upright(series.files[0], pixels, series.affine), metadata


def _read_images(path: Path) -> list[_Image | None]:
    """Read the image descriptions of a header, with ``None`` for images that are no magnitudes."""
    with pydicom_for(path) as pydicom:
        header = _read(pydicom, path, stop_before_pixels=True)
        if str(header.get("Modality", "")) != "MR":
            return [None]
        groups = header.get("PerFrameFunctionalGroupsSequence")
        count = int(header.get("NumberOfFrames") or 1)
        if groups is None and count > 1:
            raise InputError(
                f"{path} contains several frames without their positions: convert it to NIfTI "
                "and prepare that"
            )
        if groups is not None and len(groups) != count:
            raise InputError(f"{path}: its header describes {len(groups)} of {count} frames")
        frames = [None] if groups is None else range(count)
        return [_read_image(path, header, frame) for frame in frames]


def _read_image(path: Path, header: Any, frame: int | None) -> _Image | None:
    """Read the description of one image; ``None`` if it is no magnitude."""

    def group(name: str) -> Any:
        """Return the element that contains a functional group."""
        return header if frame is None else functional_group(header, name, frame) or {}

    if _no_magnitude(header) or _no_magnitude(group("MRImageFrameTypeSequence")):
        return None
    plane, place = group("PlaneOrientationSequence"), group("PlanePositionSequence")
    measures = group("PixelMeasuresSequence")
    try:
        orientation = np.array([float(v) for v in plane.ImageOrientationPatient])
        position = np.array([float(v) for v in place.ImagePositionPatient])
        rows, columns = (float(v) for v in measures.PixelSpacing)
        thickness = float(measures.get("SliceThickness") or max(rows, columns))
        shape = (int(header.Rows), int(header.Columns))
        echoes = group("MREchoSequence")
        echo = str(echoes.get("EchoTime" if frame is None else "EffectiveEchoTime", ""))
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: expected the image's orientation, position and pixel spacing in its header "
            f"({' '.join(str(error).split()):.100})"
        ) from error
    lengths = np.linalg.norm(orientation.reshape(-1, 3), axis=1)
    if (
        (orientation.shape, position.shape) != ((6,), (3,))
        or not np.allclose(lengths, 1, atol=0.01)
        or abs(orientation[:3] @ orientation[3:]) > 0.01
        or not np.isfinite(position).all()
        or not 0 < min(rows, columns, thickness) < np.inf
    ):
        raise InputError(f"{path}: the image orientation or spacing in its header is invalid")
    series = str(header.get("SeriesInstanceUID", ""))
    key = (series, tuple(np.round(orientation, _DECIMALS) + 0.0), shape, echo)
    acquired = _whole(header, "AcquisitionNumber"), _whole(header, "InstanceNumber")
    subject, spacing = _person(header), (rows, columns)
    return _Image(path, frame, key, acquired, subject, orientation, position, spacing, thickness)


def _whole(header: Any, name: str) -> int:
    """Return a whole number of a header, 0 if it is absent or unreadable."""
    try:
        return int(header.get(name) or 0)
    except (TypeError, ValueError):
        return 0


def _no_magnitude(header: Any) -> bool:
    """Return whether a header describes phase, real or imaginary parts, or a map."""
    types: list[Any] = [header.get(name) or () for name in ("ImageType", "FrameType")]
    lists: list[Sequence[Any]] = [[each] if isinstance(each, str) else each for each in types]
    words = {str(word).upper() for each in lists for word in each}
    if any(len(each) > 3 and str(each[3]).upper() in _MAPS for each in lists):
        return True
    part = str(header.get("ComplexImageComponent", "")).upper()
    if words & _NO_MAGNITUDE or part in _NO_MAGNITUDE or any(w.endswith(" MAP") for w in words):
        return True
    vendor = header.get(_GE_IMAGE_TYPE)
    return vendor is not None and str(vendor.value) in {"1", "2", "3"}


def _person(header: Any) -> str:
    """Return a pseudonym of the person: a hash of the PatientID, or of the study without one.

    It distinguishes people, but does not protect IDs that can be guessed.
    """
    known = str(header.get("PatientID") or "").strip()
    text = known or str(header.get("StudyInstanceUID") or header.get("SeriesInstanceUID") or "")
    return f"dicom-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _stored(path: Path) -> tuple[Any, NDArray[Any]]:
    """Return the header of a file and its stored pixels ``(frames, rows, columns)``."""
    with pydicom_for(path) as pydicom:
        header = _read(pydicom, path)
        try:
            single = int(header.SamplesPerPixel) == 1
            bits = int(header.BitsAllocated)
            frames = int(header.get("NumberOfFrames") or 1)
            shape = (frames, int(header.Rows), int(header.Columns))
            interpretation = str(header.PhotometricInterpretation)
            num_bytes = max(bits // 8, 1) * math.prod(shape)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"{path}: its header does not describe its pixels ({error!s:.100})"
            ) from error
        if not single or interpretation != "MONOCHROME2":
            raise InputError(
                f"{path}: expected gray values with bright pixels large (MONOCHROME2), got "
                f"{interpretation:.40}"
            )
        check_expansion(path, num_bytes, path.stat().st_size, "the image")
        with pydicom_for(path, "its pixels"):
            stored = np.asarray(header.pixel_array)
        stored = stored[None] if frames == 1 and stored.ndim == 2 else stored
        if stored.shape != shape:
            raise InputError(f"{path}: expected pixels of shape {shape}, got {stored.shape}")
        return header, stored


def _values(
    path: Path, header: Any, stored: NDArray[Any], frame: int | None
) -> NDArray[np.float32]:
    """Return an image ``(rows, columns)`` in the units of its header."""
    with pydicom_for(path):
        scale = header
        if frame is not None:
            scale = functional_group(header, "PixelValueTransformationSequence", frame) or {}
        slope = float(scale.get("RescaleSlope", 1) or 1)
        intercept = float(scale.get("RescaleIntercept", 0) or 0)
    return stored[frame or 0].astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _read(pydicom: Any, path: Path, *, stop_before_pixels: bool = False) -> Any:
    """Read a DICOM data set, limiting its memory to the size of the file."""
    with DicomFile(path) as file:
        return pydicom.dcmread(file, stop_before_pixels=stop_before_pixels)
