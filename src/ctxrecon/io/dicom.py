"""DICOM series of reconstructed images, through pydicom (PS3.3, MR and Enhanced MR Image).

Values are 16-bit integers with one rescale slope and intercept per series, which viewers and
dcm2niix support. Signal has an arbitrary scale and is multiplied by a power of ten, because the
standard has no windows narrower than 1, and viewers handle small ones poorly. A real-world value
mapping additionally states the original values, and the units of maps.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

import ctxrecon
from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.io._dicom_metadata import (
    anatomic_region,
    classic_timing,
    functional_groups,
    patient_and_protocol,
)
from ctxrecon.io._dicom_values import Scaling, decimal, fill, items, put_pixels, signal_exponent
from ctxrecon.io._writing import check_single_precision
from ctxrecon.metadata import ScanMetadata

Quantity: TypeAlias = Literal["magnitude", "phase", "std", "t2star"]
"""Quantity that the pixels of a series represent."""

_CLASSIC = "1.2.840.10008.5.1.4.1.1.4"
_ENHANCED = "1.2.840.10008.5.1.4.1.1.4.1"
# Largest cosine between rows and columns for which pixels count as rectangular.
_RIGHT_ANGLE = 1e-3


class _Kind(NamedTuple):
    """DICOM attributes of a quantity.

    Attributes:
        title: Part of the series description.
        classic: Third value of ImageType in an MR Image.
        contrast: Fourth value of ImageType in an Enhanced MR Image.
        unit: UCUM code of the unit.
        is_signal: Whether the scale is arbitrary.
    """

    title: str
    classic: str
    contrast: str
    unit: str
    is_signal: bool = False

    def real_world(self, scaling: Scaling) -> dict[str, Any]:
        """Return the mapping from stored values to the quantity."""
        return scaling.real_world(self.title or "magnitude", self.unit)


_KINDS: dict[Quantity, _Kind] = {
    "magnitude": _Kind("", "OTHER", "NONE", "1", True),
    "phase": _Kind("phase", "PHASE MAP", "NONE", "rad"),
    "std": _Kind("standard deviation", "STD_DEVIATION", "STD_DEVIATION", "1", True),
    "t2star": _Kind("T2star map in ms", "T2_STAR MAP", "T2_STAR", "ms"),
}


def new_uid() -> str:
    """Return a unique identifier derived from a random UUID (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid4().int}"


@dataclass(frozen=True)
class DicomHeader:
    """Attributes of a DICOM series other than its pixels and their position.

    Attributes:
        method: Reconstruction method, such as ``"CG-SENSE"``; empty if unknown.
        acceleration: Acceleration factor of the k-space, ``None`` if unknown.
        metadata: Metadata, one per slice, or empty.
        quantity: Quantity of the pixels; the unit of a T2* map is ms.
        exponent: Signal and its standard deviation are multiplied by ten to this power. By default
            it is computed from the series; for a map that belongs to an image, give the exponent
            of the image, see :func:`signal_exponent`.
        number: Number of the series in its study.
        study: Identifier of the study, shared by the series of one scan.
        frame_of_reference: Identifier of the patient coordinate system, shared by the series of
            one scan.

    Example:
        >>> from ctxrecon.io import DicomHeader
        >>> header = DicomHeader("CG-SENSE", acceleration=4.0)
        >>> header.quantity
        'magnitude'
    """

    method: str = ""
    acceleration: float | None = None
    metadata: tuple[ScanMetadata, ...] = ()
    quantity: Quantity = "magnitude"
    exponent: int | None = None
    number: int = 1
    study: str = field(default_factory=new_uid)
    frame_of_reference: str = field(default_factory=new_uid)


def write_images(
    path: Path,
    images: np.ndarray,
    affine: np.ndarray,
    header: DicomHeader,
    *,
    single_frames: bool = False,
) -> tuple[Path, ...]:
    """Write real images of shape ``(batch, ny, nx)`` as one Enhanced MR file or one file per slice.

    The patient is anonymous. The slice distance is written as the slice thickness, because a scan
    does not state the latter.

    Args:
        path: ``.dcm`` file; several single frames become ``name_000.dcm``, ``name_001.dcm``, ….
        images: Magnitudes, phases in radians, or maps.
        affine: Affine of shape ``(4, 4)`` from (y, x, slice) indices to mm in RAS+.
        header: Attributes of the series.
        single_frames: Whether to write classic MR images instead of one Enhanced MR image.

    Returns:
        The files written.

    Raises:
        InputError: If pydicom is missing, values exceed single precision, pixels are not
            rectangular, or the number of metadata differs from the number of slices.
    """
    try:
        import pydicom  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"cannot write {path}: DICOM needs pydicom, install it with pip install pydicom"
        ) from error
    check_single_precision(path, images)
    if len(header.metadata) not in {0, len(images)}:
        raise InputError(
            f"cannot write {path}: expected metadata for each of the {len(images)} slices or none, "
            f"got {len(header.metadata)}"
        )
    place = _Place.of(path, affine)
    images = images.astype(np.float64)
    exponent = 0
    if _KINDS[header.quantity].is_signal:
        exponent = signal_exponent(images) if header.exponent is None else header.exponent
    scaling = Scaling.of(images, exponent)
    series = new_uid()
    if not single_frames:
        _save(path, _enhanced(images, place, header, scaling, series))
        return (path,)
    paths = [path]
    if len(images) > 1:
        paths = [path.with_stem(f"{path.stem}_{index:03d}") for index in range(len(images))]
    for index, target in enumerate(paths):
        _save(target, _classic(images[index], index, place, header, scaling, series))
    return tuple(paths)


class _Place(NamedTuple):
    """Position of the images in DICOM's axes left, posterior, superior (LPS)."""

    affine: np.ndarray
    orientation: list[str]
    spacing: list[str]
    distance: str

    @classmethod
    def of(cls, path: Path, affine: np.ndarray) -> _Place:
        patient = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        edges = np.linalg.norm(patient[:3, :2], axis=0)
        column, row = (patient[:3, :2] / edges).T
        if abs(column @ row) > _RIGHT_ANGLE:
            raise InputError(
                f"cannot write {path}: DICOM pixels are rectangular, but rows and columns of this "
                "affine are not at right angles: write NIfTI"
            )
        distance = abs(float(np.cross(row, column) @ patient[:3, 2]))
        return cls(
            patient,
            [decimal(value) for value in (*row, *column)],
            [decimal(edge) for edge in edges],
            decimal(distance),
        )

    def position(self, index: int) -> list[str]:
        """Return the position of the first pixel of a slice."""
        return [decimal(value) for value in (self.affine @ [0, 0, index, 1])[:3]]


def _classic(
    image: np.ndarray,
    index: int,
    place: _Place,
    header: DicomHeader,
    scaling: Scaling,
    series: str,
) -> Any:
    """Build an MR Image of one slice."""
    kind = _KINDS[header.quantity]
    metadata = header.metadata[index] if header.metadata else ScanMetadata()
    data = _common(_CLASSIC, header, scaling, series, metadata)
    data.Laterality = ""
    data.ImageType = ["DERIVED", "PRIMARY", kind.classic]
    data.InstanceNumber = _numbers(header.metadata)[index] if header.metadata else index + 1
    fill(data, classic_timing(metadata))
    data.ImagePositionPatient = place.position(index)
    data.ImageOrientationPatient = place.orientation
    data.PixelSpacing = place.spacing
    data.SliceThickness = data.SpacingBetweenSlices = place.distance
    fill(data, scaling.rescale())
    fill(data, scaling.shown())
    data.RealWorldValueMappingSequence = items(kind.real_world(scaling))
    put_pixels(data, image[None], scaling)
    return data


def _enhanced(
    images: np.ndarray, place: _Place, header: DicomHeader, scaling: Scaling, series: str
) -> Any:
    """Build an Enhanced MR Image with one frame per slice."""
    kind = _KINDS[header.quantity]
    first = header.metadata[0] if header.metadata else ScanMetadata()
    data = _common(_ENHANCED, header, scaling, series, first)
    data.ImageType = ["DERIVED", "PRIMARY", "VOLUME", kind.contrast]
    data.InstanceNumber = 1
    if first.sequence is not None:
        data.PulseSequenceName = first.sequence[:16]
    described = [functional_groups(item) for item in header.metadata] or [functional_groups(first)]
    alike = all(groups == described[0] for groups in described)
    kinds = {
        "FrameType": data.ImageType,
        "PixelPresentation": "MONOCHROME",
        "VolumetricProperties": "VOLUME",
        "VolumeBasedCalculationTechnique": "NONE",
        "ComplexImageComponent": "PHASE" if header.quantity == "phase" else "MAGNITUDE",
        "AcquisitionContrast": _ACQUISITION_CONTRASTS.get(first.contrast or "", "UNKNOWN"),
    }
    fill(data, {name: value for name, value in kinds.items() if name != "FrameType"})
    data.ContentQualification = "RESEARCH"
    data.AcquisitionContextSequence = []
    shared: dict[str, dict[str, Any]] = {
        "MRImageFrameTypeSequence": kinds,
        "PixelMeasuresSequence": {
            "PixelSpacing": place.spacing,
            "SliceThickness": place.distance,
            "SpacingBetweenSlices": place.distance,
        },
        "PlaneOrientationSequence": {"ImageOrientationPatient": place.orientation},
        "PixelValueTransformationSequence": scaling.rescale(),
        "FrameVOILUTSequence": scaling.shown(),
        "FrameAnatomySequence": {
            "FrameLaterality": "U",
            "AnatomicRegionSequence": items(anatomic_region(first)),
        },
        **(described[0] if alike else {}),
    }
    data.SharedFunctionalGroupsSequence = items(
        {name: items(values) for name, values in shared.items()}
        | {"RealWorldValueMappingSequence": items(kind.real_world(scaling))}
    )
    frames = []
    for index in range(len(images)):
        groups: dict[str, dict[str, Any]] = {
            "FrameContentSequence": {
                "StackID": "1",
                "InStackPositionNumber": index + 1,
                "DimensionIndexValues": [1, index + 1],
            },
            "PlanePositionSequence": {"ImagePositionPatient": place.position(index)},
            **({} if alike else described[index]),
        }
        frames.append({name: items(values) for name, values in groups.items()})
    data.PerFrameFunctionalGroupsSequence = items(*frames)
    organization = new_uid()
    data.DimensionOrganizationSequence = items({"DimensionOrganizationUID": organization})
    data.DimensionIndexSequence = items(
        *(
            {
                "DimensionOrganizationUID": organization,
                "DimensionIndexPointer": pointer,
                "FunctionalGroupPointer": 0x00209111,  # FrameContentSequence
            }
            for pointer in (0x00209056, 0x00209057)  # StackID, InStackPositionNumber
        )
    )
    data.NumberOfFrames = len(images)
    put_pixels(data, images, scaling)
    return data


_ACQUISITION_CONTRASTS = {
    **{"T1": "T1", "T1PRE": "T1", "T1POST": "T1", "T2": "T2", "T2*": "T2_STAR"},
    **{"FLAIR": "FLUID_ATTENUATED", "PD": "PROTON_DENSITY", "PDFS": "PROTON_DENSITY"},
}


def _common(
    sop_class: str, header: DicomHeader, scaling: Scaling, series: str, metadata: ScanMetadata
) -> Any:
    """Build the elements for patient, study, series, equipment and derivation."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    now = datetime.now()
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = UID(new_uid())
    data.PatientName = "Anonymous"
    kind = _KINDS[header.quantity]
    how = f"acceleration {header.acceleration:.3g}" if header.acceleration else ""
    contrast = (metadata.contrast or "").replace("*", "star")  # "*" is a wildcard in DICOM
    description = ", ".join(filter(None, (contrast, kind.title, header.method, how)))
    derivation = f"{kind.title or 'image'} reconstructed from k-space"
    derivation += f" by {header.method}" if header.method else ""
    version = f"ctxrecon {ctxrecon.__version__}"
    scale = f"values times 1e{scaling.exponent}" if scaling.exponent else ""
    unknown = (
        *("PatientID", "PatientBirthDate", "StudyDate", "StudyTime", "StudyID"),
        *("AccessionNumber", "ReferringPhysicianName", "PatientPosition"),
        "PositionReferenceIndicator",
    )
    fill(data, dict.fromkeys(unknown, ""))
    fill(
        data,
        {
            "Modality": "MR",
            "StudyInstanceUID": header.study,
            "SeriesInstanceUID": series,
            "SeriesNumber": header.number,
            "SeriesDescription": (description or "reconstruction")[:64],
            "FrameOfReferenceUID": header.frame_of_reference,
            "Manufacturer": "ctxrecon",
            "ManufacturerModelName": "ctxrecon",
            "DeviceSerialNumber": "0",
            "SoftwareVersions": ctxrecon.__version__,
            "DerivationDescription": ", ".join(filter(None, (derivation, how, scale, version))),
            "ContentDate": now.strftime("%Y%m%d"),
            "ContentTime": now.strftime("%H%M%S"),
            "BurnedInAnnotation": "NO",
            "LossyImageCompression": "00",
            "PresentationLUTShape": "IDENTITY",
        },
    )
    fill(data, patient_and_protocol(metadata))
    return data


def _numbers(metadata: tuple[ScanMetadata, ...]) -> list[int]:
    """Return instance numbers: the slice numbers if they are known and distinct, else in order."""
    known = [item.slice for item in metadata if item.slice is not None]
    count = len(metadata)
    numbers = known if len(set(known)) == count else list(range(count))
    return [number + 1 for number in numbers]


def _save(path: Path, data: Any) -> None:
    with written_beside(path) as temporary:
        data.save_as(temporary, enforce_file_format=True)
