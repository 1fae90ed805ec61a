"""What the protocol of Siemens raw data says of the scan: metadata and geometry."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.io._twix import Measurement
from ctxrecon.metadata import ScanMetadata, plausible_metadata
from ctxrecon.metadata.headers import named_anatomy
from ctxrecon.metadata.vocabulary import CONTRASTS
from ctxrecon.scan import Scan, check_affine

logger = logging.getLogger(__name__)

_SEQUENCES = {1: "Flash", 2: "SSFP", 4: "EPI", 8: "TurboSpinEcho"}
_SEXES = {1: "F", 2: "M"}  # 3 is other, or not known
_CARTESIAN = 1
_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def check_supported(path: Path, scan: Measurement) -> None:
    """Refuse what does not lie on a grid.

    Raises:
        InputError: a trajectory that is not Cartesian, or samples on gradient ramps.
    """
    trajectory = scan.number("sKSpace.ucTrajectory", "ucTrajectory")
    if trajectory not in {None, 0, _CARTESIAN}:
        raise InputError(
            f"{path}: expected a Cartesian trajectory, got number {trajectory:g} of the protocol: "
            "convert it with siemens_to_ismrmrd, with the trajectory, and read the ISMRMRD file"
        )
    if (scan.number("alRegridMode") or 1) > 1:
        raise InputError(
            f"{path}: its samples on gradient ramps (an echo planar scan) do not lie on a grid: "
            "convert it with siemens_to_ismrmrd and grid the readouts first"
        )


def is_pulseq(scan: Measurement) -> bool:
    """Whether the sequence is a Pulseq file, of which the protocol knows no times and angles."""
    return "pulseq" in scan.protocol.get("tSequenceFileName", "").lower()


def metadata_of(
    path: Path, scan: Measurement, contrast: int, numbers: Sequence[int]
) -> tuple[ScanMetadata, ...]:
    """Metadata of the slices of these numbers; impossible values are left out with a warning."""
    name = scan.protocol.get("tProtocolName", "")
    sequence = scan.number("ucSequenceType")
    sex = scan.number("lPatientSex", "PatientSex")
    values = {
        "anatomy": named_anatomy(scan.protocol.get("tBodyPartExamined"), name),
        "contrast": CONTRASTS.canonical(name),
        "field_strength": scan.number("flMagneticFieldStrength"),
        "age": scan.number("flPatientAge"),
        "sex": None if sex is None else _SEXES.get(int(sex)),
    }
    if is_pulseq(scan):
        logger.info("%s: the protocol does not know TR, TE and angle of its Pulseq sequence", path)
    else:
        echoes = scan.number("lContrasts") or 1
        values |= {
            "sequence": None if sequence is None else _SEQUENCES.get(int(sequence)),
            "tr": _milliseconds(scan.number("alTR[0]")),
            "te": _milliseconds(scan.number(f"alTE[{contrast}]")) if contrast < echoes else None,
            "ti": _milliseconds(scan.number("alTI[0]")),
            "flip_angle": scan.number("adFlipAngleDegree[0]"),
        }
    return tuple(
        plausible_metadata(str(path), **values, slice=number) for number in map(int, numbers)
    )


def _milliseconds(microseconds: float | None) -> float | None:
    return microseconds / 1000 if microseconds else None


def voxel_size_of(scan: Measurement, ny: int, nx: int) -> tuple[float, float, float] | None:
    """(ny, nx, slice) in mm of the image that ``ny`` (all) by ``nx`` samples make."""
    slab = "sSliceArray.asSlice[0]."
    edges = [scan.number(slab + name) for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")]
    readout, phase, thickness = edges
    if readout is None or phase is None or thickness is None or min(readout, phase, thickness) <= 0:
        return None
    more = 1 + (scan.number("sKSpace.dPhaseOversamplingForDialog") or 0)
    oversampling = max(scan.number("flReadoutOSFactor") or 1.0, 1.0)
    return (readout * oversampling / ny, phase * more / nx, thickness)


def rotation(quaternion: np.ndarray) -> np.ndarray:
    """Columns (phase, readout, slice) in (left, posterior, superior), of a unit quaternion."""
    length = float(np.linalg.norm(quaternion))
    if not (np.isfinite(length) and length > 0.5):
        return np.eye(3)
    w, x, y, z = quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def slice_affine(
    path: Path, scan: Measurement, places: tuple[np.ndarray, np.ndarray], images: Scan
) -> Tensor | None:
    """From (y, x, slice) to right, anterior, superior in mm, of parallel equidistant slices.

    Images grow against the directions of readout and phase encoding.

    Args:
        path: the file, for messages.
        scan: with the protocol.
        places: positions ``(slices, 3)`` and quaternions ``(slices, 4)`` of the readouts.
        images: with their shape and voxel size.
    """
    positions, quaternions = places
    if images.voxel_size is None or not np.isfinite(positions).all():
        return None
    turned = rotation(quaternions[0])
    if any(np.abs(rotation(other) - turned).max() > 1e-3 for other in quaternions):
        logger.info("%s: the slices are not parallel, no affine", path)
        return None
    step = images.voxel_size[2] * turned[:, 2]
    if len(positions) > 1:
        step = (positions[-1] - positions[0]) / (len(positions) - 1)
        line = positions[0] + np.arange(len(positions))[:, None] * step
        if np.abs(positions - line).max() > 0.05 or not np.linalg.norm(step) > 0:
            logger.info("%s: the slices are not equally spaced, no affine", path)
            return None
    ny, nx = images.image_shape
    affine = np.eye(4)
    affine[:3, 0] = -turned[:, 1] * images.voxel_size[0]
    affine[:3, 1] = -turned[:, 0] * images.voxel_size[1]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0] - affine[:3, 0] * (ny // 2) - affine[:3, 1] * (nx // 2)
    affine[:3] = _TO_RAS @ affine[:3]
    result = torch.from_numpy(affine)
    try:
        check_affine(result)
    except InputError:
        logger.warning("%s: the place of its slices makes no sense and is left out", path)
        return None
    return result
