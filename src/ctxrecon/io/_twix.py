"""The structure of Siemens raw data ``.dat`` (twix): measurements, protocol and readouts.

A file is a multi-measurement table (software VD, VE, XA), or one measurement (VB). A measurement is
a header, named buffers of text, and readouts, each with a binary header of its own. twixtools knows
those binary headers; what a file claims of its sizes is compared with its length before.
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

_TABLE_ENTRY = 152  # bytes of one of the 64 measurements in the table of a VD file
_LARGEST_HEADER = 64 * 2**20
_LONGEST_END = 2048  # the last block, and zeros up to the next multiple of 512 bytes
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
    """The readouts of a measurement in the order of time, one row each.

    Attributes:
        counters: ``(readouts,)`` of ``line``, ``partition``, ``slice``, ``contrast``,
            ``average``, ``phase``, ``repetition`` and ``set``.
        flags: ``(readouts,)`` of 64 bits.
        bits: the number of the bit of each flag by its name.
        sizes: (coils, samples).
        offsets: of the samples' blocks in the file.
        centers: column, line and partition of zero frequency, 0 where they are not stated.
        cuts: samples at the start and the end that were not measured.
        positions: of the slice's middle in mm, to the left, posterior and superior.
        quaternions: scalar first, from (phase, readout, slice) to (left, posterior, superior).
        header_bytes: before the samples of each coil in a block.
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
        """Which readouts have one of the flags, ``(readouts,)`` bool."""
        mask = sum(1 << self.bits[name] for name in names)
        return np.asarray(self.flags & np.uint64(mask) != 0)

    def samples(self, file: np.ndarray, row: int) -> np.ndarray:
        """(coils, samples) of a readout in the order of time, of the bytes of the file."""
        coils, count = (int(size) for size in self.sizes[row])
        start, size = int(self.offsets[row]), coils * (self.header_bytes + 8 * count)
        block = file[start : start + size].reshape(coils, -1)[:, self.header_bytes :]
        return np.array(block, order="C").view("<c8")


@dataclass(frozen=True)
class Measurement:
    """One measurement of a file.

    Attributes:
        protocol: its text, ``name → value`` with the path as name in the part that lists paths
            (``sSliceArray.asSlice[0].dThickness``).
        readouts: all but those of other devices.
    """

    protocol: Mapping[str, str]
    readouts: Readouts

    def number(self, *names: str) -> float | None:
        """The first of the names that the protocol has as a finite number."""
        for name in names:
            words = self.protocol.get(name, "").split()
            try:
                value = float(int(words[0], 16) if words[0].startswith("0x") else words[0])
            except (IndexError, ValueError):
                continue
            if np.isfinite(value):
                return value
        return None


def read_measurements(path: Path) -> list[Measurement]:
    """All measurements of a file; the last is the scan, those before are adjustments.

    Raises:
        InputError: twixtools is not installed, or a file that is damaged or not of Siemens.
    """
    with path.open("rb") as file:
        return [
            Measurement(_protocol(path, file, *extent[:2]), _readouts(path, file, *extent))
            for extent in _measurements(path, file)
        ]


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} is truncated or damaged, or no Siemens raw data: {what}: copy it again"
    )


def _measurements(path: Path, file: IO[bytes]) -> list[tuple[int, int, bool]]:
    """Start, end and whether it is in the layout of VD, of each measurement."""
    size = path.stat().st_size
    first, count = _unpack(path, file, 0, "<II")
    if first >= 10000 or count > 64:  # VB: the length of the header comes first
        return [(0, size, False)]
    found = []
    for entry in range(count):
        start, length = _unpack(path, file, 8 + _TABLE_ENTRY * entry + 8, "<QQ")
        stop = start + length if length else size
        if count > 1 and not length:
            continue
        if not 0 < start < stop <= size:
            raise _damaged(
                path, f"measurement {entry} claims the bytes {start} to {stop} of {size}"
            )
        found.append((start, stop, True))
    if not found:
        raise _damaged(path, "its table lists no measurement")
    return found


def _unpack(path: Path, file: IO[bytes], offset: int, layout: str) -> tuple[int, ...]:
    file.seek(offset)
    raw = file.read(struct.calcsize(layout))
    if len(raw) < struct.calcsize(layout):
        raise _damaged(path, f"it ends in byte {offset + len(raw)}")
    return struct.unpack(layout, raw)


def _protocol(path: Path, file: IO[bytes], start: int, stop: int) -> dict[str, str]:
    """The values of all buffers; of a name in several, the first with a value."""
    length, count = _unpack(path, file, start, "<II")
    if not 8 <= length <= min(stop - start, _LARGEST_HEADER):
        raise _damaged(path, f"a header claims {length} bytes of {stop - start}")
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
    """Names and values of a buffer, of lines ``path = value`` and of ``<ParamLong."name">``."""
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
    """What follows ``<Precision> 16`` on its line; other tags take the line with them."""
    words = text.split()
    return " ".join(words[2:]) if words[0] == "<Precision>" else ""


def _readouts(path: Path, file: IO[bytes], start: int, stop: int, vd: bool) -> Readouts:
    """The readouts of a measurement, once each lies in the file."""
    try:
        from twixtools import mdh_def
    except ImportError as error:
        raise InputError(
            f"{path}: Siemens raw data need the package twixtools: pip install 'ctxrecon[io]'"
        ) from error
    kind = np.dtype(mdh_def.Scan_header if vd else mdh_def.VB17_header)
    header = kind.itemsize
    before = header if vd else 0
    between = np.dtype(mdh_def.Channel_header).itemsize if vd else header
    place = kind.fields
    assert place is not None
    read_size = struct.Struct("<I").unpack_from  # its lowest 25 bits
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
                    "%s: %d bytes behind its end are not read", path, stop - position - header
                )
            last = head
            break
        size = before + coils * (between + 8 * samples)
        if flags & sync:
            size = read_size(head)[0] % 2**25
        if size < header or position + size > stop:
            raise _damaged(
                path, f"the readout at byte {position} claims {size} of {stop - position} bytes"
            )
        if not flags & sync:
            heads.append(head)
            offsets.append(position + before)
        position += size
    else:
        logger.warning("%s: its readouts end without a mark: it was stopped, or cut short", path)
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
    """Warn of readouts that do not follow each other, as where bytes were inserted or removed.

    Args:
        path: of the file, for the message.
        blocks: headers of the readouts, and of the end where there is one.
        count: of the readouts.
        before: bytes before the first coil of a readout.
        between: bytes before the samples of each coil; ``None`` where the stated lengths are not
            those of whole readouts.
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
            "%s: %d of %d blocks do not follow from those before by their measurement, number or "
            "length, as if bytes were missing or changed: copy it again",
            path,
            np.count_nonzero(broken),
            len(blocks),
        )


def _columns(table: np.ndarray, *names: str) -> np.ndarray:
    """Fields of a table side by side."""
    return np.stack([table[name] for name in names], axis=-1)
