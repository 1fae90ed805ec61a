"""Scan metadata as DICOM elements."""

from __future__ import annotations

import re
from typing import Any

from ctxrecon.io._dicom_values import decimal
from ctxrecon.metadata import ScanMetadata

# Sequence -> values of ScanningSequence and SequenceVariant (PS3.3, C.8.3.1).
_SEQUENCES = {
    "TurboSpinEcho": ("SE", "SK"),
    "SpinEcho": ("SE", "NONE"),
    "SPACE": ("SE", "SK"),
    "HASTE": ("SE", "SK"),
    "Flash": ("GR", "SP"),
    "GRE": ("GR", "NONE"),
    "MPRAGE": ("GR", "MP"),
    "EPI": ("EP", "NONE"),
    "bSSFP": ("GR", "SS"),
    "Qdess": ("GR", "SS"),
}

# SNOMED CT codes (PS3.16, CID 4031).
_REGIONS = {
    "knee": ("72696002", "Knee"),
    "brain": ("12738006", "Brain"),
    "breast": ("76752008", "Breast"),
    "prostate": ("41216001", "Prostate"),
    "spine": ("421060004", "Spine"),
    "heart": ("80891009", "Heart"),
    "abdomen": ("818983003", "Abdomen"),
}
_ANY_REGION = ("123037004", "Body structure")


def patient_and_protocol(metadata: ScanMetadata) -> dict[str, Any]:
    """Return the elements that MR and Enhanced MR images share."""
    body = (metadata.anatomy or "").upper()
    return {
        "PatientSex": metadata.sex or "",
        **_known("PatientAge", None if metadata.age is None else _age(metadata.age)),
        **_known("BodyPartExamined", body if re.fullmatch(r"[A-Z0-9 _]{1,16}", body) else None),
        **_known("MagneticFieldStrength", _decimal(metadata.field_strength)),
    }


def anatomic_region(metadata: ScanMetadata) -> dict[str, Any]:
    """Return the code of the anatomy, or of an unspecified body structure if it is unknown."""
    code, meaning = _REGIONS.get(metadata.anatomy or "", _ANY_REGION)
    return {"CodeValue": code, "CodingSchemeDesignator": "SCT", "CodeMeaning": meaning}


def classic_timing(metadata: ScanMetadata) -> dict[str, Any]:
    """Return timing and sequence of an MR Image; "research mode" if the sequence is unknown."""
    scanning, variant = _SEQUENCES.get(metadata.sequence or "", ("RM", "NONE"))
    return {
        "ScanningSequence": [scanning, "IR"] if _inverts(metadata) else scanning,
        "SequenceVariant": variant,
        "ScanOptions": "",
        "MRAcquisitionType": "",
        "EchoTrainLength": "",
        "RepetitionTime": _decimal(metadata.tr) or "",
        "EchoTime": _decimal(metadata.te) or "",
        **_known("SequenceName", metadata.sequence and metadata.sequence[:16]),
        **_known("InversionTime", _decimal(metadata.ti if _inverts(metadata) else None)),
        **_known("FlipAngle", _decimal(metadata.flip_angle)),
    }


def functional_groups(metadata: ScanMetadata) -> dict[str, dict[str, Any]]:
    """Return the known timing of a frame of an Enhanced MR image."""
    timing = {
        **_known("RepetitionTime", _decimal(metadata.tr)),
        **_known("FlipAngle", _decimal(metadata.flip_angle)),
    }
    inversion = {"InversionRecovery": "YES", "InversionTimes": metadata.ti}
    groups = {
        "MRTimingAndRelatedParametersSequence": timing,
        "MREchoSequence": _known("EffectiveEchoTime", metadata.te),
        "MRModifierSequence": inversion if _inverts(metadata) and metadata.ti is not None else {},
    }
    return {name: values for name, values in groups.items() if values}


def _inverts(metadata: ScanMetadata) -> bool:
    """Return whether the scan uses inversion; headers also state TI for scans without it."""
    return metadata.contrast == "FLAIR" or metadata.sequence == "MPRAGE"


def _known(name: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {name: value}


def _decimal(value: float | None) -> str | None:
    return None if value is None else decimal(value)


def _age(years: float) -> str:
    """Format an age in years, or for children in months or days (PS3.5, AS)."""
    for unit, per_year in (("Y", 1), ("M", 12), ("D", 365)):
        count = int(years * per_year + 1e-6)
        if count >= 2 or unit == "D":
            return f"{count:03d}{unit}"
    raise AssertionError(years)
