"""Structure of Siemens raw data ``.dat`` (twix): measurements, protocol and readouts.

A file is a multi-measurement table (software VD, VE, XA), or one measurement (VB). A measurement
consists of a header with named text buffers, and readouts that each have a binary header. The
binary headers are parsed with twixtools; stated sizes are first validated against the file's size.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)

_TABLE_ENTRY = 152  # bytes per measurement in the table of a VD file, which has 64 entries
_LARGEST_HEADER = 64 * 2**20
_LONGEST_END = 2048  # the last block, and zero padding to a multiple of 512 bytes
_END, _SYNC = "ACQEND", "SYNCDATA"
_COUNTERS = {
    "line": "Lin",
    "partition": "Par",
    "slice": "Sli",
    "contrast": "Eco",
    "average": "Ave",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
}


@dataclass(frozen=True)
class Readouts:
    """Readouts of a measurement in chronological order, one per row.

    Attributes:
        counters: Arrays ``(readouts,)`` for ``line``, ``partition``, ``slice``, ``contrast``,
            ``average``, ``phase``, ``repetition`` and ``set``.
        flags: 64-bit flags of shape ``(readouts,)``.
        bits: Bit number of each flag, by name.
        sizes: Numbers of (coils, samples).
        offsets: File offsets of the sample blocks.
        centers: Column, line and partition of zero frequency, 0 where they are not stated.
        cuts: Numbers of unmeasured samples at the start and the end.
        positions: Slice centers in mm, (left, posterior, superior).
        quaternions: Rotations from (phase, readout, slice) to (left, posterior, superior), scalar
            part first.
        header_bytes: Number of bytes before the samples of each coil in a block.
    """

    counters: Mapping[str, np.ndarray]
    flags: np.ndarray
    bits: Mapping[str, int]
    sizes: np.ndarray
    offsets: np.ndarray
    centers: np.ndarray
    cuts: np.ndarray
    positions: np.ndarray
    quaternions: np.ndarray
    header_bytes: int

    def having(self, *names: str) -> np.ndarray:
        """Return which readouts have any of the flags, ``(readouts,)`` bool."""
        mask = sum(1 << self.bits[name] for name in names)
        return np.asarray(self.flags & np.uint64(mask) != 0)

    def samples(self, file: np.ndarray, row: int) -> np.ndarray:
        """Return a readout's samples (coils, samples) in chronological order, from file bytes."""
        coils, count = (int(size) for size in self.sizes[row])
        start, size = int(self.offsets[row]), coils * (self.header_bytes + 8 * count)
        block = file[start : start + size].reshape(coils, -1)[:, self.header_bytes :]
        return np.array(block, order="C").view("<c8")


@dataclass(frozen=True)
class Measurement:
    """One measurement of a file.

    Attributes:
        protocol: Protocol as ``name → value``; entries of the path section are named by their
            path (``sSliceArray.asSlice[0].dThickness``).
        readouts: All readouts, without data of other devices.
    """

    protocol: Mapping[str, str]
    readouts: Readouts

    def number(self, *names: str) -> float | None:
        """Return the first of the names for which the protocol has a finite number."""
        for name in names:
            words = self.protocol.get(name, "").split()
            try:
                value = float(int(words[0], 16) if words[0].startswith("0x") else words[0])
            except (IndexError, ValueError, OverflowError):
                continue
            if np.isfinite(value):
                return value
        return None


def read_measurements(path: Path) -> list[Measurement]:
    """Read all measurements of a file; the last is the scan, the others are adjustments.

    Raises:
        InputError: If twixtools is not installed, or the file is damaged or not a Siemens file.
    """
    with path.open("rb") as file:
        return [
            Measurement(_protocol(path, file, *extent[:2]), _readouts(path, file, *extent))
            for extent in _measurements(path, file)
        ]


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} is truncated, damaged or not Siemens raw data: {what}: copy it again"
    )


def _measurements(path: Path, file: IO[bytes]) -> list[tuple[int, int, bool]]:
    """Return start, end and whether the layout is VD, for each measurement."""
    size = path.stat().st_size
    first, count = _unpack(path, file, 0, "<II")
    if first >= 10000 or count > 64:  # VB starts with the length of the header
        return [(0, size, False)]
    found = []
    for entry in range(count):
        start, length = _unpack(path, file, 8 + _TABLE_ENTRY * entry + 8, "<QQ")
        stop = start + length if length else size
        if count > 1 and not length:
            continue
        if not 0 < start < stop <= size:
            raise _damaged(
                path, f"measurement {entry} states the bytes {start} to {stop} of {size}"
            )
        found.append((start, stop, True))
    if not found:
        raise _damaged(path, "its table lists no measurement")
    return found


def _unpack(path: Path, file: IO[bytes], offset: int, layout: str) -> tuple[int, ...]:
    file.seek(offset)
    raw = file.read(struct.calcsize(layout))
    if len(raw) < struct.calcsize(layout):
        raise _damaged(path, f"it ends at byte {offset + len(raw)}")
    return struct.unpack(layout, raw)


def _protocol(path: Path, file: IO[bytes], start: int, stop: int) -> dict[str, str]:
    """Read the values of all buffers; the first non-empty value of a name is used."""
    length, count = _unpack(path, file, start, "<II")
    if not 8 <= length <= min(stop - start, _LARGEST_HEADER):
        raise _damaged(path, f"a header states {length} bytes of {stop - start}")
    file.seek(start + 8)
    text = file.read(length - 8)
    values: dict[str, str] = {}
    position = 0
    for _ in range(min(count, 64)):
        end = text.find(b"\0", position, position + 64)
        if end < 0 or end + 5 > len(text):
            break
        (size,) = struct.unpack_from("<I", text, end + 1)
        buffer = text[end + 5 : end + 5 + size].decode("latin-1")
        position = end + 5 + size
        for name, value in _values(buffer):
            if value and not values.get(name):
                values[name] = value
    return values


_PARAMETER = re.compile(r'<Param(?:Bool|Long|String|Double|Choice)\."(\w{1,80})">\s{0,80}\{')


def _values(buffer: str) -> Iterator[tuple[str, str]]:
    """Yield names and values from the ``path = value`` lines and ``<ParamLong."name">`` entries."""
    inside = False
    for line in buffer.splitlines():
        if line.startswith("### ASCCONV"):
            inside = "BEGIN" in line
        elif inside:
            name, equals, value = line.partition("=")
            if equals:
                yield name.strip(), value.partition("#")[0].strip().strip('"')
    for match in _PARAMETER.finditer(buffer):
        value = buffer[match.end() : match.end() + 400].partition("}")[0]
        value = re.sub(r"<\w{1,40}>[^\n]{0,80}", lambda tag: _after_tag(tag.group()), value)
        yield match.group(1), " ".join(value.replace('"', " ").split())


def _after_tag(text: str) -> str:
    """Return what follows ``<Precision> 16`` on its line; other tags remove the whole line."""
    words = text.split()
    return " ".join(words[2:]) if words[0] == "<Precision>" else ""


def _readouts(path: Path, file: IO[bytes], start: int, stop: int, vd: bool) -> Readouts:
    """Read the headers of a measurement's readouts and check that each lies in the file."""
    try:
        from twixtools import mdh_def
    except ImportError as error:
        raise InputError(
            f"{path}: Siemens raw data require the package twixtools: pip install 'ctxrecon[io]'"
        ) from error
    kind = np.dtype(mdh_def.Scan_header if vd else mdh_def.VB17_header)
    header = kind.itemsize
    before = header if vd else 0
    between = np.dtype(mdh_def.Channel_header).itemsize if vd else header
    place = kind.fields
    assert place is not None
    read_size = struct.Struct("<I").unpack_from  # the size is in the lowest 25 bits
    read_flags = struct.Struct(f"<{place['EvalInfoMask'][1]}xQHH").unpack_from
    end, sync = (1 << mdh_def.mask_dict[name] for name in (_END, _SYNC))
    (length,) = _unpack(path, file, start, "<I")
    position, heads, offsets, last = start + length, [], [], b""
    while position + header <= stop:
        file.seek(position)
        head = file.read(header)
        flags, samples, coils = read_flags(head)
        if flags & end:
            if stop - position > _LONGEST_END:
                logger.warning(
                    "%s: %d bytes after its end are ignored", path, stop - position - header
                )
            last = head
            break
        size = before + coils * (between + 8 * samples)
        if flags & sync:
            size = read_size(head)[0] % 2**25
        if size < header or position + size > stop:
            raise _damaged(
                path, f"the readout at byte {position} states {size} of {stop - position} bytes"
            )
        if not flags & sync:
            heads.append(head)
            offsets.append(position + before)
        position += size
    else:
        logger.warning("%s: it has no end marker: the scan was stopped, or the file is cut", path)
    table = np.frombuffer(b"".join(heads), kind)
    blocks = np.frombuffer(b"".join([*heads, last]), kind)
    _warn_of_breaks(path, blocks, len(heads), before, between if vd else None)
    slices = table["SliceData"]
    return Readouts(
        {name: table["Counter"][short].astype(np.int64) for name, short in _COUNTERS.items()},
        table["EvalInfoMask"],
        mdh_def.mask_dict,
        _columns(table, "UsedChannels", "SamplesInScan").astype(np.int64),
        np.array(offsets, np.int64),
        _columns(table, "CenterCol", "CenterLin", "CenterPar").astype(np.int64),
        _columns(table["CutOff"], "Pre", "Post").astype(np.int64),
        _columns(slices["SlicePos"], "Sag", "Cor", "Tra").astype(np.float64),
        slices["Quaternion"].astype(np.float64),
        between,
    )


def _warn_of_breaks(
    path: Path, blocks: np.ndarray, count: int, before: int, between: int | None
) -> None:
    """Warn of readouts that are not consecutive, as if bytes had been inserted or removed.

    Args:
        path: File name for the message.
        blocks: Headers of the readouts, and of the end marker if there is one.
        count: Number of readouts.
        before: Number of bytes before the first coil of a readout.
        between: Number of bytes before the samples of each coil, or ``None`` if the stated
            lengths are not those of whole readouts.
    """
    broken = blocks["MeasUID"] != blocks["MeasUID"][:1]
    table = blocks[:count]
    broken[1:count] |= np.diff(table["ScanCounter"].astype(np.int64)) < 1
    if between is not None:
        coils, samples = (table[n].astype(np.int64) for n in ("UsedChannels", "SamplesInScan"))
        stated = table["FlagsAndDMALength"] % 2**25
        broken[:count] |= stated != before + coils * (between + 8 * samples)
    if broken.any():
        logger.warning(
            "%s: %d of %d blocks are inconsistent with the preceding blocks in measurement, number "
            "or length, as if bytes were missing or changed: copy the file again",
            path,
            np.count_nonzero(broken),
            len(blocks),
        )


def _columns(table: np.ndarray, *names: str) -> np.ndarray:
    """Stack fields of a table along a new last axis."""
    return np.stack([table[name] for name in names], axis=-1)
