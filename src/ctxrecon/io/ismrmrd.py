"""ISMRMRD raw data ``.h5`` (Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089).

A group, usually ``dataset``, holds the XML header and a table of readouts, each with its place in
k-space. They are sorted into ``(slices, coils, ny, nx)`` with the readout along ``ny``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.coils import whitening_matrix
from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.io._arrays import (
    SliceChoice,
    build_scan,
    metadata_from_header,
    pick_slices,
    remove_oversampling,
)
from ctxrecon.io._header import EncodingHeader, check_cartesian, parse_header
from ctxrecon.io._sequences import check_lengths
from ctxrecon.io.hdf5 import hdf5_member, hdf5_text, open_hdf5
from ctxrecon.metadata import plausible_metadata
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)


def _flag(*numbers: int) -> int:
    """ISMRMRD counts its flags from 1."""
    return sum(1 << (number - 1) for number in numbers)


_NOISE = _flag(19)
_CALIBRATION_ONLY = _flag(20)
_REVERSED = _flag(22)
# Navigator, phase correction, feedback, dummy, surface coil correction, phase stabilisation.
_NO_IMAGING = _flag(23, 24, 26, 27, 28, 29, 30, 31)

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

# Readouts read at once, and how many of a block may be passed over.
_BLOCK_BYTES = 16 * 2**20
_MOST_ROWS = 4096


@dataclass(frozen=True)
class _Raw:
    """The header and the heads of all readouts; the samples stay in the file."""

    table: Any
    heads: np.ndarray
    xml: str
    header: EncodingHeader


def find_group(path: Path, file: Any) -> Any | None:
    """The first group with ``xml`` and ``data`` in it, or ``None``."""
    import h5py

    for name in file:
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            member = file[name]
            if isinstance(member, h5py.Group) and "xml" in member and "data" in member:
                return member
    return None


def _open(path: Path, file: Any) -> _Raw:
    import h5py

    group = find_group(path, file)
    if group is None:
        raise InputError(f"{path}: expected an ISMRMRD group with 'xml' and 'data'")
    xml = hdf5_text(path, hdf5_member(path, group, "xml"), "xml")
    header = parse_header(path, xml)
    table = hdf5_member(path, group, "data")
    names = (table.dtype.names or ()) if isinstance(table, h5py.Dataset) else ()
    if not {"head", "data"} <= set(names) or len(table.shape) != 1:
        raise InputError(f"{path}: expected a table of ISMRMRD readouts with 'head' and 'data'")
    head = table.dtype["head"]
    missing = _missing(head, _HEAD) | ({"idx", "sample_time_us"} - set(head.names or ()))
    if not missing:
        missing = _missing(head["idx"], _INDEX)
    if missing:
        raise InputError(
            f"{path}: its readouts lack the ISMRMRD fields {sorted(missing)} as whole numbers"
        )
    if len(table) == 0:
        raise InputError(f"{path}: it holds no readouts: nothing was measured")
    stored = path.stat().st_size
    check_expansion(path, len(table) * table.dtype.itemsize, stored, "the table of readouts")
    for name in names:
        check_lengths(path, table, name)
    check_cartesian(path, header)
    return _Raw(table, table.fields("head")[:], xml, header)


def _missing(record: np.dtype, names: set[str]) -> set[str]:
    """The names that are not fields of whole numbers."""
    return {n for n in names if n not in (record.names or ()) or record[n].kind not in "iu"}


def _imaging(path: Path, raw: _Raw) -> np.ndarray:
    """Which readouts belong to the image: indices into the table."""
    flags = raw.heads["flags"].astype(np.uint64)
    skipped = _NOISE | _NO_IMAGING
    # Separate calibration scans may differ in contrast; embedded lines are part of the k-space.
    if raw.header.calibration_mode in {"separate", "external"}:
        skipped |= _CALIBRATION_ONLY
    chosen = (flags & np.uint64(skipped) == 0) & (raw.heads["encoding_space_ref"] == 0)
    if not chosen.any():
        raise InputError(f"{path}: none of its {len(flags)} readouts is an imaging readout")
    if not chosen.all():
        logger.info(
            "%s: %d of %d readouts are noise, navigators or other calibration",
            path,
            int((~chosen).sum()),
            len(flags),
        )
    indices = np.flatnonzero(chosen)
    if (raw.heads["idx"]["kspace_encode_step_2"][indices] != 0).any():
        raise InputError(
            f"{path}: expected a 2-D acquisition, got one with several partitions: "
            "transform it along the slice direction and save the slices"
        )
    return indices


def _nth(path: Path, values: np.ndarray, number: int, what: str) -> int:
    """The ``number``-th of the values that occur."""
    present = np.unique(values)
    if not 0 <= number < len(present):
        raise InputError(f"{path} holds {len(present)} {what}s: there is no {what} {number}")
    return int(present[number])


def ismrmrd_shape(path: Path) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """(slices, coils, encoded readout, nx), dtype, and what else the header states."""
    with open_hdf5(path) as file:
        raw = _open(path, file)
        index = raw.heads["idx"][_imaging(path, raw)]
        coils = int(raw.heads["active_channels"].max())
    nx, ny = raw.header.encoded_matrix[1], raw.header.encoded_matrix[0]
    stated = {name + "s": len(np.unique(index[name])) for name in ("repetition", "contrast")}
    slices = len(np.unique(index["slice"]))
    return (slices, coils, ny, nx), np.dtype(np.complex64), stated


def read_ismrmrd(
    path: Path,
    slices: SliceChoice = None,
    *,
    crop_readout: bool = True,
    prewhiten: bool = True,
    repetition: int = 0,
    contrast: int = 0,
) -> tuple[Scan, Tensor | None]:
    """Sort the Cartesian readouts of an ISMRMRD file into slices.

    Lines measured several times (averages) are averaged; of cardiac phases and sets the first is
    taken. The noise level is that of the noise readouts, scaled to the bandwidth of the image.

    Args:
        path: the ``.h5`` file.
        slices: which slices, counted among those measured.
        crop_readout: crop the readout oversampling to the field of view of the header's image;
            left undone (and logged) for asymmetric echoes, whose missing samples would not stay
            zero.
        prewhiten: decorrelate the coils by the noise readouts.
        repetition: which of the repetitions measured.
        contrast: which of the contrasts (echoes) measured.

    Returns:
        The scan, and the matrix ``(coils, coils)`` that prewhitened its coils, if any.
    """
    with open_hdf5(path) as file:
        raw = _open(path, file)
        chosen = _imaging(path, raw)
        for name, number in (("repetition", repetition), ("contrast", contrast)):
            values = raw.heads["idx"][name][chosen]
            chosen = chosen[values == _nth(path, values, number, name)]
            if (count := len(np.unique(values))) > 1:
                logger.info("%s: %s %d (of 0 to %d) is read", path, name, number, count - 1)
        for name in ("phase", "set"):
            values = raw.heads["idx"][name][chosen]
            if len(np.unique(values)) > 1:
                logger.info("%s: the first of %d %ss is read", path, len(np.unique(values)), name)
            chosen = chosen[values == values.min()]
        present = np.unique(raw.heads["idx"]["slice"][chosen])
        numbers = [int(present[i]) for i in pick_slices(path, slices, len(present))]
        kspace, measured = _sort(path, raw, chosen, numbers)
        noise_std, matrix = _noise(path, raw, chosen, prewhiten)
    if matrix is not None:
        kspace = np.einsum("dc,bcyx->bdyx", matrix.numpy(), kspace, optimize=True)
    if noise_std is not None:
        # Averaging lowers the noise of a line; one figure must serve, so take the commonest.
        noise_std /= float(np.sqrt(np.median(measured[measured > 0])))
    ny, nx = kspace.shape[-2:]
    voxel_size = raw.header.voxel_size(ny, nx)
    readout = raw.header.readout_size(ny)
    if crop_readout and readout < ny:
        sampled = (kspace != 0).any(axis=1)
        if (sampled.any(axis=1) == sampled.all(axis=1)).all():
            kspace = remove_oversampling(path, kspace, readout)
        else:
            logger.info("%s: readout oversampling is kept because echoes are asymmetric", path)
    metadata = metadata_from_header(path, numbers, raw.xml)
    echo, times = int(raw.heads["idx"]["contrast"][chosen[0]]), raw.header.echo_times
    if echo > 0:  # the header's first echo time is not this echo's
        te = times[echo] if echo < len(times) else None
        metadata = tuple(plausible_metadata(str(path), **{**asdict(m), "te": te}) for m in metadata)
    scan = build_scan(path, kspace, metadata=metadata, noise_std=noise_std, voxel_size=voxel_size)
    return scan, matrix


def _sort(
    path: Path, raw: _Raw, chosen: np.ndarray, numbers: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The chosen readouts at their places, averaged; and how often each line was measured."""
    ny, nx, _ = raw.header.encoded_matrix
    coils = np.unique(raw.heads["active_channels"][chosen])
    if len(coils) != 1 or coils[0] < 1:
        raise InputError(f"{path}: expected the same coils in all readouts, got {coils.tolist()}")
    shape = (len(numbers), int(coils[0]), ny, nx)
    num_bytes = 8 * prod(shape)
    check_expansion(path, num_bytes, path.stat().st_size, f"k-space of shape {shape}")
    kspace = np.zeros(shape, np.complex64)
    count = np.zeros((len(numbers), nx), np.int64)
    center = raw.header.center if raw.header.center is not None else nx // 2
    wanted_rows = chosen[np.isin(raw.heads["idx"]["slice"][chosen], numbers)]
    for row, samples in _readouts(path, raw, wanted_rows):
        head = raw.heads[row]
        number = int(head["idx"]["slice"])
        start = ny // 2 - int(head["center_sample"]) + int(head["discard_pre"])
        if int(head["flags"]) & _REVERSED:
            samples = samples[:, ::-1]
            last = int(head["number_of_samples"]) - 1
            start = ny // 2 - (last - int(head["center_sample"])) + int(head["discard_post"])
        line = int(head["idx"]["kspace_encode_step_1"]) - center + nx // 2
        stop = start + samples.shape[1]
        if not 0 <= line < nx or start < 0 or stop > ny:
            raise InputError(
                f"{path}: readout {row} (line {line}, samples {start} to {stop}) lies outside the "
                f"encoded matrix of {nx} lines of {ny} samples that the header states"
            )
        for position, wanted in enumerate(numbers):
            if wanted == number:
                kspace[position, :, start:stop, line] += samples
                count[position, line] += 1
    return kspace / np.maximum(count, 1)[:, None, None, :].astype(np.float32), count


def _readouts(path: Path, raw: _Raw, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each row with its readout ``(coils, samples)`` complex64, read in blocks of the table."""
    values = raw.heads["active_channels"].astype(np.int64) * raw.heads["number_of_samples"]
    largest = 8 * max(int(values.max()), 1)
    size = min(max(_BLOCK_BYTES // largest, 1), _MOST_ROWS)
    column = raw.table.fields("data")
    for first in range(0, len(raw.table), size):
        inside = rows[(rows >= first) & (rows < first + size)]
        if len(inside) > 1:
            low = int(inside.min())
            block = column[low : int(inside.max()) + 1]
            for row in inside:
                yield int(row), _samples(path, raw, int(row), block[int(row) - low])
        elif len(inside) == 1:
            yield int(inside[0]), _samples(path, raw, int(inside[0]), column[int(inside[0])])


def _samples(path: Path, raw: _Raw, row: int, stored: Any) -> np.ndarray:
    """One readout, ``(coils, samples)`` complex64, without the samples to be discarded."""
    head = raw.heads[row]
    coils, length = int(head["active_channels"]), int(head["number_of_samples"])
    values = np.asarray(stored)
    if values.dtype.kind != "f" or values.size != 2 * coils * length:
        raise InputError(
            f"{path}: readout {row} holds {values.size} numbers, expected {2 * coils * length} "
            f"for {coils} coils of {length} complex samples: the file is damaged"
        )
    samples = values.astype(np.float32).view(np.complex64).reshape(coils, length)
    return samples[:, int(head["discard_pre"]) : length - int(head["discard_post"])]


def _noise(
    path: Path, raw: _Raw, chosen: np.ndarray, prewhiten: bool
) -> tuple[float | None, Tensor | None]:
    """Noise of an imaging sample by the noise readouts, and the matrix that whitens the coils.

    The matrix ``σ L⁻¹`` of the noise covariance ``Ψ = L Lᴴ`` with ``σ² = tr Ψ / C`` keeps the
    units of k-space, and coils of equal, independent noise as they are. The noise level is σ: noise
    power goes with the bandwidth, 1 / dwell time, and the header's relative bandwidth corrects for
    the noise readout's own filter (Kellman & McVeigh, doi:10.1002/mrm.20713).
    """
    heads = raw.heads
    coils = heads["active_channels"][chosen[0]]
    noise = heads["flags"].astype(np.uint64) & np.uint64(_NOISE) != 0
    rows = np.flatnonzero(noise & (heads["active_channels"] == coils))
    if len(rows) < noise.sum():
        logger.warning("%s: noise readouts of other coils than the image's are left out", path)
    if len(rows) == 0:
        return None, None
    samples = np.concatenate([values for _, values in _readouts(path, raw, rows)], axis=1)
    power = float(np.mean(np.abs(samples.astype(np.complex128)) ** 2)) if samples.size else 0.0
    if not (np.isfinite(power) and power > 0):
        logger.warning("%s: its noise readouts are zero or not finite, and are left out", path)
        return None, None
    noise_std = None
    dwell = float(heads["sample_time_us"][rows[0]])
    imaging_dwell = float(heads["sample_time_us"][chosen[0]])
    if dwell > 0 and imaging_dwell > 0 and np.isfinite(dwell / imaging_dwell):
        bandwidth = raw.header.noise_bandwidth or 1.0
        noise_std = float(np.sqrt(power * dwell / imaging_dwell / bandwidth))
    if not prewhiten:
        return noise_std, None
    try:
        matrix = power**0.5 * whitening_matrix(torch.from_numpy(samples))
    except InputError as error:
        logger.warning("%s: the coils are not prewhitened: %s", path, error)
        return noise_std, None
    level = "unknown" if noise_std is None else f"{noise_std:.3g}"
    logger.info(
        "%s: coils prewhitened by %d noise samples, noise of a k-space sample %s",
        path,
        samples.shape[1],
        level,
    )
    return noise_std, matrix.to(torch.complex64)
