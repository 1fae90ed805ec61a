"""Siemens raw data ``.dat`` (twix) of the software versions VB, VD, VE and XA.

Readouts are converted to ISMRMRD heads and the protocol to an ISMRMRD header, as siemens_to_ismrmrd
does, and then processed like ISMRMRD files. A file and its conversion therefore result in the same
images at the same position. The samples are kept as stored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.io._arrays import SliceChoice
from ctxrecon.io._choice import Choice
from ctxrecon.io._header import parse_header
from ctxrecon.io._notes import Notes
from ctxrecon.io._reader import Layout
from ctxrecon.io._readouts import CALIBRATION, CALIBRATION_AND_IMAGING, NOISE, REVERSED, Raw
from ctxrecon.io._siemens_header import check_supported, header_xml, is_pulseq
from ctxrecon.io._twix import Measurement, Readouts, read_measurements
from ctxrecon.io.ismrmrd import raw_shape, read_raw
from ctxrecon.metadata import plausible_metadata
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

_FIRST = Choice()
_OTHER = 1 << 22  # ISMRMRD flag for navigators
_FLAGS = {
    "NOISEADJSCAN": NOISE,
    "PATREFSCAN": CALIBRATION,
    "PATREFANDIMASCAN": CALIBRATION_AND_IMAGING,
    "REFLECT": REVERSED,
} | dict.fromkeys(
    (
        "PHASCOR",
        "RTFEEDBACK",
        "HPFEEDBACK",
        "REFPHASESTABSCAN",
        "PHASESTABSCAN",
        "SLICE_ACCEL_REFSCAN",
        "SLICE_ACCEL_PHASCOR",
        "RETRO_DUMMYSCAN",
        "B1_CONTROLLOOP",
    ),
    _OTHER,
)
_NOT_OF_THE_IMAGE = tuple(name for name, flag in _FLAGS.items() if flag in {NOISE, _OTHER})
_COUNTERS = ("slice", "contrast", "average", "phase", "repetition", "set")
_HEAD = np.dtype(
    [("flags", "<u8")]
    + [
        (name, "<i8")
        for name in ("number_of_samples", "active_channels", "center_sample", "discard_pre")
        + ("discard_post", "encoding_space_ref", "trajectory_dimensions")
    ]
    + [("sample_time_us", "<f8")]
    + [(name, "<f8", 3) for name in ("position", "read_dir", "phase_dir", "slice_dir")]
    + [("idx", [(n, "<i8") for n in ("kspace_encode_step_1", "kspace_encode_step_2", *_COUNTERS)])]
)


def siemens_shape(path: Path, *, crop_readout: bool = True, choice: Choice = _FIRST) -> Layout:
    """Return (slices, coils, encoded ny, nx), dtype, and further entries."""
    return raw_shape(path, _raw(path), crop_readout=crop_readout, choice=choice)


def read_siemens(
    path: Path,
    slices: SliceChoice = None,
    *,
    crop_readout: bool = True,
    prewhiten: bool = True,
    choice: Choice = _FIRST,
    notes: Notes,
) -> tuple[Scan, Tensor | None]:
    """Read the last measurement of a file, like :func:`ctxrecon.io.ismrmrd.read_ismrmrd`.

    Args:
        path: The ``.dat`` file.
        slices: Slices to read.
        crop_readout: Whether to remove the readout oversampling that the protocol states.
        prewhiten: Whether to prewhiten the coils with noise readouts of this or an earlier
            measurement.
        choice: Contrast, repetition and so on.
        notes: Notes to extend.

    Returns:
        The scan, and the prewhitening matrix ``(coils, coils)`` or ``None``.
    """
    raw = _raw(path)
    scan, matrix = read_raw(
        path,
        raw,
        slices,
        crop_readout=crop_readout,
        prewhiten=prewhiten,
        choice=choice,
        notes=notes,
    )
    age = plausible_metadata(str(path), age=raw.table.age).age
    items = tuple(replace(item, age=age) for item in scan.metadata)
    return replace(scan, metadata=items), matrix


class _Table:
    """Samples of the readouts with the interface of ISMRMRD's column ``data``."""

    def __init__(self, path: Path, parts: Sequence[tuple[Readouts, np.ndarray]], age: Any) -> None:
        self._file = np.memmap(path, np.uint8, "r")
        self._rows = [(readouts, int(row)) for readouts, rows in parts for row in rows]
        self.age = age

    def __len__(self) -> int:
        return len(self._rows)

    def fields(self, name: str) -> _Table:
        """Return the only column."""
        assert name == "data"
        return self

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[row] for row in range(len(self))[index]]
        readouts, row = self._rows[index]
        return readouts.samples(self._file, row).view(np.float32).ravel()


def _raw(path: Path) -> Raw:
    """Convert the last measurement, and noise readouts of earlier ones, to ISMRMRD readouts."""
    measurements = read_measurements(path)
    scan = measurements[-1]
    check_supported(path, scan)
    table = scan.readouts
    images = ~table.having(*_NOT_OF_THE_IMAGE)
    rows = np.flatnonzero(images)
    if len(rows) == 0 or table.sizes[rows].min() < 1:
        raise InputError(
            f"{path}: none of its {len(table.flags)} readouts belongs to an image, or one has no "
            "samples: the file contains only adjustments, or is damaged"
        )
    counters = {name: values.copy() for name, values in table.counters.items()}
    if is_pulseq(scan):
        _label_echoes(path, scan, counters, rows)
    of_image = rows[~table.having("PATREFSCAN")[rows]]
    grid = of_image if len(of_image) else rows
    centers = _center_columns(table)
    forward = grid[~table.having("REFLECT")[grid]]
    sizes = table.sizes[forward if len(forward) else grid, 1]
    middle = centers[forward if len(forward) else grid]
    nx = _size(int(middle.max()), int((sizes - middle).max()))
    ny, line = _extent(counters["line"][grid], table.centers[grid, 1])
    nz, partition = _extent(counters["partition"][grid], table.centers[grid, 2])
    xml = header_xml(path, scan, (nx, ny, nz), (line, partition))
    parts = [(other.readouts, _noise_rows(other)) for other in measurements[:-1]]
    parts.append((table, np.arange(len(table.flags))))
    heads = np.zeros(sum(len(rows) for _, rows in parts), _HEAD)
    start = 0
    for measurement, (readouts, chosen) in zip(measurements, parts, strict=True):
        part = heads[start : start + len(chosen)]
        start += len(chosen)
        _fill(part, readouts, chosen)
        dwell = measurement.number("sRXSPEC.alDwellTime[0]") or 0
        # Noise readouts within the scan have another dwell time, which is not stated.
        within = readouts is table and readouts.having("NOISEADJSCAN")[chosen]
        part["sample_time_us"] = np.where(within, 0, dwell / 1000)
    head = heads[-len(table.flags) :]
    head["center_sample"] = centers
    for name in _COUNTERS:
        head["idx"][name] = counters[name]
    head["idx"]["kspace_encode_step_1"] = _steps(counters["line"], table.centers[:, 1], line)
    head["idx"]["kspace_encode_step_2"] = _steps(
        counters["partition"], table.centers[:, 2], partition
    )
    return Raw(
        _Table(path, parts, scan.number("flPatientAge")), heads, xml, parse_header(path, xml), 0
    )


def _noise_rows(measurement: Measurement) -> np.ndarray:
    return np.flatnonzero(measurement.readouts.having("NOISEADJSCAN"))


def _fill(heads: np.ndarray, readouts: Readouts, rows: np.ndarray) -> None:
    """Fill the entries that depend only on a readout's own header."""
    for name, flag in _FLAGS.items():
        heads["flags"] |= np.where(readouts.having(name)[rows], np.uint64(flag), np.uint64(0))
    heads["active_channels"], heads["number_of_samples"] = readouts.sizes[rows].T
    heads["discard_pre"], heads["discard_post"] = readouts.cuts[rows].T
    heads["position"] = readouts.positions[rows]
    axes = _axes(readouts.quaternions[rows])
    heads["phase_dir"], heads["read_dir"], heads["slice_dir"] = (axes[..., n] for n in range(3))


def _axes(quaternions: np.ndarray) -> np.ndarray:
    """Return the axes (phase, readout, slice) as columns in LPS, shape ``(readouts, 3, 3)``."""
    w, x, y, z = quaternions.T
    columns = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(columns), -1, 0)


def _center_columns(table: Readouts) -> np.ndarray:
    """Return the sample of zero frequency of each readout, or the middle if it is not stated."""
    samples, center = table.sizes[:, 1], table.centers[:, 0]
    return np.where((center == 0) | (center >= samples), samples // 2, center)


def _extent(counter: np.ndarray, center: np.ndarray) -> tuple[int, int]:
    """Return the size of an axis with centered zero frequency, and the number of that line."""
    zero, last = int(center.max()), int(counter.max())
    if zero == 0 or zero > last:  # not stated, so assume that the axis is complete
        return last + 1, (last + 1) // 2
    return _size(zero, last + 1 - zero), zero


def _steps(counter: np.ndarray, center: np.ndarray, zero: int) -> np.ndarray:
    """Shift line numbers so that zero frequency, where it is stated, has the image's number."""
    return counter + np.where(center > 0, zero - center, 0)


def _size(before: int, after: int) -> int:
    """Return the size of an axis with these numbers of samples before and from its center."""
    return before + after if after - before in {0, 1} else 2 * max(before, after)


def _label_echoes(
    path: Path, scan: Measurement, counters: dict[str, np.ndarray], rows: np.ndarray
) -> None:
    """Separate the echoes of a Pulseq sequence that only numbers its readouts consecutively.

    If the number of readouts is a multiple of the number of samples per readout, the factor is the
    number of echoes. The distribution of the k-space energy shows whether echoes are interleaved.
    """
    lines = counters["line"][rows]
    columns = int(scan.readouts.sizes[rows, 1].max())
    echoes, rest = divmod(len(rows), columns)
    others = any(np.any(counters[name][rows]) for name in counters if name != "line")
    if others or rest or echoes < 2 or not np.array_equal(np.sort(lines), np.arange(len(rows))):
        return
    file = np.memmap(path, np.uint8, "r")
    energy = np.array([np.sum(np.abs(scan.readouts.samples(file, row)) ** 2) for row in rows])
    middle = max(columns // 16, 1)
    by_turns = np.abs(lines // echoes - columns // 2) <= middle
    in_blocks = np.abs(lines % columns - columns // 2) <= middle
    interleaved = energy[by_turns].sum() >= energy[in_blocks].sum()
    line, echo = np.divmod(lines, echoes) if interleaved else np.divmod(lines, columns)[::-1]
    counters["line"][rows], counters["contrast"][rows] = line, echo
    logger.warning(
        "%s: its Pulseq sequence counts %d readouts of %d samples and no echoes: they are "
        "interpreted as %d %s echoes",
        path,
        len(rows),
        columns,
        echoes,
        "interleaved" if interleaved else "consecutive",
    )
