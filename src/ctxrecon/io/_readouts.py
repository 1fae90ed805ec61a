"""Readout table of an ISMRMRD file, and iteration over its rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.io._header import EncodingHeader, check_cartesian, parse_header
from ctxrecon.io._sequences import check_lengths
from ctxrecon.io.hdf5 import hdf5_member, hdf5_text

logger = logging.getLogger(__name__)


def _flag(*numbers: int) -> int:
    """Return a bit mask; ISMRMRD counts its flags from 1."""
    return sum(1 << (number - 1) for number in numbers)


NOISE = _flag(19)
CALIBRATION = _flag(20)
CALIBRATION_AND_IMAGING = _flag(21)
REVERSED = _flag(22)
# Navigator, phase correction, feedback, dummy, surface coil correction, phase stabilization.
NO_IMAGING = _flag(23, 24, 26, 27, 28, 29, 30, 31)

_HEAD = {
    "flags",
    "number_of_samples",
    "active_channels",
    "center_sample",
    "discard_pre",
    "discard_post",
    "encoding_space_ref",
}
_INDEX = {
    "kspace_encode_step_1",
    "kspace_encode_step_2",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
}

# Limits on a block of readouts: its size, and its number of rows, some of which may be skipped.
_BLOCK_BYTES = 16 * 2**20
_MOST_ROWS = 4096


@dataclass(frozen=True)
class Raw:
    """Header and heads of all readouts; the samples stay in the file.

    Attributes:
        table: Readout table in the file.
        heads: Heads of all readouts.
        xml: XML header as stored.
        header: Encoding of the image.
        space: Number of that encoding.
    """

    table: Any
    heads: np.ndarray
    xml: str
    header: EncodingHeader
    space: int


def find_groups(file: Any) -> dict[str, Any]:
    """Return the groups that contain ``xml`` and ``data``, by name."""
    import h5py

    found = {}
    for name in file:
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            member = file[name]
            if isinstance(member, h5py.Group) and "xml" in member and "data" in member:
                found[str(name)] = member
    return found


def open_raw(path: Path, file: Any, name: str | None = None) -> Raw:
    """Open the measurement with this name, or the only measurement of the file.

    Raises:
        InputError: If there is no measurement, if there are several and none was selected, or if
            the measurement is malformed.
    """
    import h5py

    groups = find_groups(file)
    if not groups:
        raise InputError(f"{path}: expected an ISMRMRD group with 'xml' and 'data'")
    if (name is None and len(groups) > 1) or (name is not None and name not in groups):
        there = ", ".join(
            f"{key[:60]!r} ({group['data'].size} readouts)" for key, group in groups.items()
        )
        raise InputError(f"{path} contains the measurements {there}: choose one with group")
    group = groups[name] if name is not None else next(iter(groups.values()))
    xml = hdf5_text(path, hdf5_member(path, group, "xml"), "xml")
    parse_header(path, xml)
    table = hdf5_member(path, group, "data")
    names = (table.dtype.names or ()) if isinstance(table, h5py.Dataset) else ()
    if not {"head", "data"} <= set(names) or len(table.shape) != 1:
        raise InputError(f"{path}: expected a table of ISMRMRD readouts with 'head' and 'data'")
    head = table.dtype["head"]
    missing = _missing(head, _HEAD) | ({"idx", "sample_time_us"} - set(head.names or ()))
    if not missing:
        missing = _missing(head["idx"], _INDEX)
    if missing:
        raise InputError(f"{path}: its readouts lack the integer ISMRMRD fields {sorted(missing)}")
    if len(table) == 0:
        raise InputError(f"{path}: it contains no readouts: nothing was measured")
    stored = path.stat().st_size
    check_expansion(path, len(table) * table.dtype.itemsize, stored, "the table of readouts")
    for name in names:
        check_lengths(path, table, name)
    heads = table.fields("head")[:]
    space = _image_space(path, heads)
    header = parse_header(path, xml, space)
    if not header.is_non_cartesian:
        check_cartesian(path, header)
    return Raw(table, heads, xml, header, space)


def _image_space(path: Path, heads: np.ndarray) -> int:
    """Return the encoding space of the image: the first one that has imaging readouts.

    Raises:
        InputError: If there are no imaging readouts.
    """
    other = NOISE | NO_IMAGING
    for skipped in (other | CALIBRATION, other):
        chosen = ~has_flag(heads, skipped) | has_flag(heads, CALIBRATION_AND_IMAGING)
        chosen &= ~has_flag(heads, other)
        if chosen.any():
            return int(heads["encoding_space_ref"][chosen].min())
    raise InputError(f"{path}: none of its {len(heads)} readouts is an imaging readout")


def has_flag(heads: np.ndarray, flag: int) -> np.ndarray:
    """Return which readouts have any of the flags."""
    return np.asarray(heads["flags"].astype(np.uint64) & np.uint64(flag) != 0)


def index_of(raw: Raw, rows: np.ndarray, name: str) -> np.ndarray:
    """Return a counter of the rows, such as ``"slice"``, or zeros if the file lacks it."""
    index = raw.heads["idx"]
    if name not in (index.dtype.names or ()):
        return np.zeros(len(rows), np.int64)
    return np.asarray(index[name][rows]).astype(np.int64)


def _missing(record: np.dtype, names: set[str]) -> set[str]:
    """Return the names that are not integer fields of a record."""
    return {n for n in names if n not in (record.names or ()) or record[n].kind not in "iu"}


def coils_of(path: Path, raw: Raw, rows: np.ndarray) -> int:
    """Return the number of coils of these readouts.

    Raises:
        InputError: If it differs between readouts.
    """
    coils = np.unique(raw.heads["active_channels"][rows])
    if len(coils) != 1 or coils[0] < 1:
        raise InputError(f"{path}: expected the same coils in all readouts, got {coils.tolist()}")
    return int(coils[0])


def readouts(path: Path, raw: Raw, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row and its readout, ``(coils, samples)`` complex64, without discarded samples."""
    for row, stored in _column(raw, rows, "data"):
        coils = int(raw.heads["active_channels"][row])
        values = _numbers(
            path, raw, row, stored, 2 * coils, f"{coils} coils of {{}} complex samples"
        )
        samples = values.view(np.complex64).reshape(coils, -1)
        yield row, samples[:, _kept(path, raw, row)]


def positions(path: Path, raw: Raw, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each row and its trajectory, ``(samples, dimensions)``, without discarded samples."""
    for row, stored in _column(raw, rows, "traj"):
        dimensions = int(raw.heads["trajectory_dimensions"][row])
        values = _numbers(
            path, raw, row, stored, dimensions, f"{dimensions} coordinates of {{}} samples"
        )
        yield row, values.reshape(-1, dimensions)[_kept(path, raw, row)]


def _column(raw: Raw, rows: np.ndarray, name: str) -> Iterator[tuple[int, Any]]:
    """Yield each row with its entry in a column, reading the table in blocks."""
    values = raw.heads["active_channels"].astype(np.int64) * raw.heads["number_of_samples"]
    largest = 8 * max(int(values.max()), 1)
    size = min(max(_BLOCK_BYTES // largest, 1), _MOST_ROWS)
    column = raw.table.fields(name)
    for first in range(0, len(raw.table), size):
        inside = rows[(rows >= first) & (rows < first + size)]
        if len(inside) > 1:
            low = int(inside.min())
            block = column[low : int(inside.max()) + 1]
            for row in inside:
                yield int(row), block[int(row) - low]
        elif len(inside) == 1:
            yield int(inside[0]), column[int(inside[0])]


def _numbers(path: Path, raw: Raw, row: int, stored: Any, each: int, what: str) -> np.ndarray:
    """Return the numbers of one readout as float32, ``each`` of them per sample."""
    length = int(raw.heads["number_of_samples"][row])
    values = np.asarray(stored)
    if values.dtype.kind != "f" or values.size != each * length:
        raise InputError(
            f"{path}: readout {row} contains {values.size} numbers, expected {each * length} for "
            f"{what.format(length)}: the file is damaged"
        )
    return values.astype(np.float32)


def _kept(path: Path, raw: Raw, row: int) -> slice:
    """Return the range of a readout's samples that are not marked for discarding."""
    head = raw.heads[row]
    first = int(head["discard_pre"])
    stop = int(head["number_of_samples"]) - int(head["discard_post"])
    if first >= stop:
        raise InputError(
            f"{path}: readout {row} discards all of its {head['number_of_samples']} samples: the "
            "file is damaged"
        )
    return slice(first, stop)
