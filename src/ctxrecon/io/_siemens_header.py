"""Conversion of the protocol of Siemens raw data to an ISMRMRD header.

The mapping of fields follows siemens_to_ismrmrd (https://github.com/ismrmrd/siemens_to_ismrmrd).
"""

from __future__ import annotations

import logging
from pathlib import Path
from xml.sax.saxutils import escape

from ctxrecon.errors import InputError
from ctxrecon.io._twix import Measurement

logger = logging.getLogger(__name__)

_SEQUENCES = {1: "Flash", 2: "SSFP", 4: "EPI", 8: "TurboSpinEcho"}
_SEXES = {1: "F", 2: "M"}  # 3 is other or unknown
_CALIBRATION_MODES = {2: "embedded", 4: "separate", 8: "separate"}
_CALIBRATION_MODES |= dict.fromkeys((16, 32, 64), "interleaved")
_NOISE_BANDWIDTH = 0.793
_CARTESIAN = 1


def check_supported(path: Path, scan: Measurement) -> None:
    """Validate that the samples lie on a Cartesian grid.

    Raises:
        InputError: If the trajectory is not Cartesian, or samples lie on gradient ramps.
    """
    trajectory = scan.number("sKSpace.ucTrajectory", "ucTrajectory")
    if trajectory not in {None, 0, _CARTESIAN}:
        raise InputError(
            f"{path}: expected a Cartesian trajectory, got trajectory {trajectory:g} in the "
            "protocol: convert it with siemens_to_ismrmrd, including the trajectory, and read the "
            "ISMRMRD file"
        )
    if (scan.number("alRegridMode") or 1) > 1:
        raise InputError(
            f"{path}: its samples on gradient ramps (an echo planar scan) do not lie on a grid: "
            "convert it with siemens_to_ismrmrd and grid the readouts first"
        )


def is_pulseq(scan: Measurement) -> bool:
    """Return whether the sequence is a Pulseq file, whose timing the protocol does not contain."""
    return "pulseq" in scan.protocol.get("tSequenceFileName", "").lower()


def header_xml(
    path: Path, scan: Measurement, matrix: tuple[int, int, int], centers: tuple[int, int]
) -> str:
    """Build an ISMRMRD header.

    Args:
        path: File name for messages.
        scan: Measurement with its protocol.
        matrix: Samples along readout, phase and partition encoding.
        centers: Line and partition of zero frequency.
    """
    over = (
        max(scan.number("flReadoutOSFactor") or 1.0, 1.0),
        1 + max(scan.number("sKSpace.dPhaseOversamplingForDialog") or 0, 0),
        1 + max(scan.number("sKSpace.dSliceOversamplingForDialog") or 0, 0),
    )
    if matrix[2] == 1:
        over = (over[0], over[1], 1.0)
    slab = "sSliceArray.asSlice[0]."
    names = ("dReadoutFOV", "dPhaseFOV", "dThickness")
    stated = [scan.number(slab + name) for name in names]
    edges = [edge for edge in stated if edge is not None and 0 < edge < 1e5]
    encoded = _space(matrix, [edge * factor for edge, factor in zip(edges, over, strict=False)])
    image = [max(round(size / factor), 1) for size, factor in zip(matrix, over, strict=True)]
    limits = "".join(
        f"<{name}><minimum>0</minimum><maximum>{size - 1}</maximum><center>{center}</center>"
        f"</{name}>"
        for name, size, center in (
            ("kspace_encoding_step_1", matrix[1], centers[0]),
            ("kspace_encoding_step_2", matrix[2], centers[1]),
        )
    )
    mode = _CALIBRATION_MODES.get(int(scan.number("sPat.ucRefScanMode", "ucRefScanMode") or 0))
    sex = _SEXES.get(int(scan.number("lPatientSex", "PatientSex") or 0))
    return (
        "<ismrmrdHeader>"
        + _leaf("patientGender", sex)
        + _leaf("protocolName", scan.protocol.get("tProtocolName"))
        + _leaf("bodyPartExamined", scan.protocol.get("tBodyPartExamined"))
        + "<acquisitionSystemInformation><systemVendor>SIEMENS</systemVendor>"
        + _leaf("systemFieldStrength_T", scan.number("flMagneticFieldStrength"))
        + _leaf("relativeReceiverNoiseBandwidth", _NOISE_BANDWIDTH)
        + "</acquisitionSystemInformation><encoding>"
        + f"<encodedSpace>{encoded}</encodedSpace>"
        + f"<reconSpace>{_space(image, edges)}</reconSpace>"
        + f"<encodingLimits>{limits}</encodingLimits><trajectory>cartesian</trajectory>"
        + f"<parallelImaging>{_leaf('calibrationMode', mode)}</parallelImaging></encoding>"
        + f"<sequenceParameters>{_sequence(path, scan)}</sequenceParameters></ismrmrdHeader>"
    )


def _space(matrix: tuple[int, ...] | list[int], edges: list[float]) -> str:
    """Return the matrix and, if all edges are known, the field of view of an encoding space."""
    text = "".join(f"<{axis}>{size}</{axis}>" for axis, size in zip("xyz", matrix, strict=True))
    text = f"<matrixSize>{text}</matrixSize>"
    if len(edges) == 3:
        fov = "".join(f"<{axis}>{edge!r}</{axis}>" for axis, edge in zip("xyz", edges, strict=True))
        text += f"<fieldOfView_mm>{fov}</fieldOfView_mm>"
    return text


def _sequence(path: Path, scan: Measurement) -> str:
    if is_pulseq(scan):
        logger.info("%s: the protocol does not contain TR, TE and flip angle of Pulseq", path)
        return ""
    kind = scan.number("ucSequenceType")
    echoes = min(int(scan.number("lContrasts") or 1), 128)
    times = [scan.number(f"alTE[{echo}]") for echo in range(max(echoes, 1))]
    return (
        _leaf("TR", _milliseconds(scan.number("alTR[0]")))
        + "".join(_leaf("TE", _milliseconds(time)) for time in times)
        + _leaf("TI", _milliseconds(scan.number("alTI[0]")))
        + _leaf("flipAngle_deg", scan.number("adFlipAngleDegree[0]"))
        + _leaf("sequence_type", None if kind is None else _SEQUENCES.get(int(kind)))
    )


def _milliseconds(microseconds: float | None) -> float | None:
    return microseconds / 1000 if microseconds else None


def _leaf(name: str, value: float | str | None) -> str:
    text = "" if value is None else "".join(filter(str.isprintable, str(value)))
    return f"<{name}>{escape(text)}</{name}>" if text else ""
