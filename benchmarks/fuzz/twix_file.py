"""Writer of small Siemens raw-data files (``.dat``) in the VB and VD layouts."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BITS = {
    "ACQEND": 0,
    "SYNCDATA": 5,
    "PHASCOR": 21,
    "PATREFSCAN": 22,
    "PATREFANDIMASCAN": 23,
    "REFLECT": 24,
    "NOISEADJSCAN": 25,
}
_COUNTERS = ("line", "average", "slice", "partition", "contrast", "phase", "repetition", "set")
PROTOCOL = {
    "tProtocolName": '"T2"',
    "tSequenceFileName": '"%SiemensSeq%\\tse"',
    "alTR[0]": "3150000",
    "alTE[0]": "33000",
    "alTE[1]": "66000",
    "lContrasts": "2",
    "adFlipAngleDegree[0]": "140.0",
    "sKSpace.ucTrajectory": "0x1",
    "sSliceArray.asSlice[0].dThickness": "5.0",
    "sSliceArray.asSlice[0].dPhaseFOV": "160.0",
    "sSliceArray.asSlice[0].dReadoutFOV": "160.0",
    "sRXSPEC.alDwellTime[0]": "5000",
}
PARAMETERS = {
    "flReadoutOSFactor": "{ <Precision> 6  2.000000  }",
    "flMagneticFieldStrength": "{ <Precision> 6  2.893620  }",
    "ucSequenceType": "{ 8  }",
    "tBodyPartExamined": '{ "KNEE"  }',
    "lPatientSex": "{ 1  }",
}


def write_twix(
    path: Path,
    readouts: Sequence[Mapping[str, Any]],
    protocol: Mapping[str, str] | None = None,
    *,
    parameters: Mapping[str, str] | None = None,
    earlier: Sequence[Sequence[Mapping[str, Any]]] = (),
    vd: bool = True,
) -> Path:
    """Write a raw-data file and return its path.

    Args:
        path: File to write.
        readouts: Readouts, each with ``data`` of shape (coils, samples) and optionally ``line``,
            ``slice``, ``partition``, ``contrast``, ``average``, ``repetition``, ``set``,
            ``phase``, ``flags`` (names), ``center`` (column, line, partition), ``cut``,
            ``position`` and ``quaternion``.
        protocol: Protocol lines that replace those of :data:`PROTOCOL`.
        parameters: Parameters that replace those of :data:`PARAMETERS`.
        earlier: Measurements stored before the scan (VD only).
        vd: Write the VD layout instead of VB.
    """
    header = _header({**PROTOCOL, **(protocol or {})}, {**PARAMETERS, **(parameters or {})})
    blocks = [header + _data(part, vd) for part in (*earlier, readouts)]
    if not vd:
        path.write_bytes(blocks[-1])
        return path
    table, body = b"", b""
    for block in blocks:
        start = 10240 + len(body)
        table += struct.pack("<IIQQ64s64s", 1, 1, start, len(block), b"", b"protocol")
        body += block + bytes(-len(block) % 512)
    path.write_bytes(struct.pack("<II", 0, len(blocks)) + table.ljust(10232, b"\0") + body)
    return path


def _header(protocol: Mapping[str, str], parameters: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name} = {value}\n" for name, value in protocol.items())
    tags = "".join(f'<Param."x"> <ParamLong."{n}">  {v}\n' for n, v in parameters.items())
    buffers = {
        "Dicom": tags,
        "MeasYaps": f"### ASCCONV BEGIN ###\n{lines}### ASCCONV END ###\n",
    }
    body = b""
    for name, text in buffers.items():
        body += name.encode() + b"\0" + struct.pack("<I", len(text)) + text.encode()
    # A VB file starts with this length; readers distinguish it from VD by its size.
    length = max(8 + len(body), 10016)
    length += -length % 32
    padding = length - 8 - len(body)
    return struct.pack("<II", length, len(buffers)) + body + bytes(padding)


def _data(readouts: Sequence[Mapping[str, Any]], vd: bool) -> bytes:
    end = {"data": np.zeros((0, 0), np.complex64), "flags": ("ACQEND",)}
    return b"".join(_readout(one, vd, number) for number, one in enumerate((*readouts, end), 1))


def _readout(one: Mapping[str, Any], vd: bool, number: int) -> bytes:
    data = np.asarray(one["data"], "<c8")
    coils, samples = data.shape
    flags = sum(1 << BITS[name] for name in one.get("flags", ()))
    counters = [int(one.get(name, 0)) for name in _COUNTERS] + [0] * 6
    column, line, partition = one.get("center", (samples // 2, 0, 0))
    place = struct.pack(
        "<7f", *one.get("position", (0, 0, 0)), *one.get("quaternion", (1, 0, 0, 0))
    )
    size = (192 if vd else 0) + coils * ((32 if vd else 128) + 8 * samples)
    head = struct.pack("<IiIII", max(size, 192 if vd else 128), 1, number, 0, 0)
    head += struct.pack("<HHiiii", 0, 0, 0, 0, 0, 0) if vd else b""
    head += struct.pack("<QHH14H", flags, samples, coils, *counters)
    head += struct.pack("<2HHHfI2H", *one.get("cut", (0, 0)), column, 0, 0, 0, line, partition)
    if vd:
        head += place + bytes(2 * 24 + 2 * 4 + 8)
        return head + b"".join(bytes(32) + coil.tobytes() for coil in data)
    head += bytes(2 * 8) + place + bytes(4)
    return b"".join(head + coil.tobytes() for coil in data) or head
