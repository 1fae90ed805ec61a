"""ISMRMRD raw data ``.h5`` (Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089).

A group, usually ``dataset``, holds the XML header and a table of readouts, each with its place in
k-space. They are sorted into ``(slices, coils, ny, nx)`` with the readout along ``ny``.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.io._arrays import (
    SliceChoice,
    build_scan,
    metadata_from_header,
    pick_slices,
    remove_oversampling,
)
from ctxrecon.io._files import check_expansion, hdf5_member, hdf5_text, open_hdf5
from ctxrecon.io._header import EncodingHeader, parse_header
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
    if header.trajectory != "cartesian":
        raise InputError(
            f"{path}: expected a Cartesian trajectory, got {header.trajectory[:40]!r}: "
            "grid the data first"
        )
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
    stated: dict[str, Any] = {
        "repetitions": len(np.unique(index["repetition"])),
        "contrasts": len(np.unique(index["contrast"])),
    }
    if raw.header.voxel_size:
        stated["voxel_size"] = raw.header.voxel_size
    slices = len(np.unique(index["slice"]))
    return (slices, coils, ny, nx), np.dtype(np.complex64), stated


def read_ismrmrd(
    path: Path,
    slices: SliceChoice = None,
    *,
    crop_readout: bool = True,
    repetition: int = 0,
    contrast: int = 0,
) -> Scan:
    """Sort the Cartesian readouts of an ISMRMRD file into slices.

    Lines measured several times (averages) are averaged; of cardiac phases and sets the first is
    taken. The noise level is that of the noise readouts, scaled to the bandwidth of the image.

    Args:
        path: the ``.h5`` file.
        slices: which slices, counted among those measured.
        crop_readout: crop the readout oversampling to the header's recon matrix; left undone
            (and logged) for asymmetric echoes, whose missing samples would not stay zero.
        repetition: which of the repetitions measured.
        contrast: which of the contrasts (echoes) measured.
    """
    with open_hdf5(path) as file:
        raw = _open(path, file)
        chosen = _imaging(path, raw)
        for name, number in (("repetition", repetition), ("contrast", contrast)):
            values = raw.heads["idx"][name][chosen]
            chosen = chosen[values == _nth(path, values, number, name)]
        for name in ("phase", "set"):
            values = raw.heads["idx"][name][chosen]
            if len(np.unique(values)) > 1:
                logger.info("%s: the first of %d %ss is read", path, len(np.unique(values)), name)
            chosen = chosen[values == values.min()]
        present = np.unique(raw.heads["idx"]["slice"][chosen])
        numbers = [int(present[i]) for i in pick_slices(path, slices, len(present))]
        kspace, count = _sort(path, raw, chosen, numbers)
        noise_std = _noise_std(path, raw, chosen)
    if noise_std is not None:
        # Averaging lowers the noise of a line; one figure must serve, so take the commonest.
        noise_std /= float(np.sqrt(np.median(count[count > 0])))
    readout = raw.header.recon_matrix[0]
    if crop_readout and readout < kspace.shape[-2]:
        measured = (kspace != 0).any(axis=1)
        if (measured.any(axis=1) == measured.all(axis=1)).all():
            kspace = remove_oversampling(path, kspace, readout)
        else:
            logger.info("%s: readout oversampling is kept because echoes are asymmetric", path)
    metadata = metadata_from_header(path, numbers, raw.xml)
    echo, times = int(raw.heads["idx"]["contrast"][chosen[0]]), raw.header.echo_times
    if echo > 0:  # the header's first echo time is not this echo's
        te = times[echo] if echo < len(times) else None
        metadata = tuple(plausible_metadata(str(path), **{**asdict(m), "te": te}) for m in metadata)
    return build_scan(path, kspace, metadata=metadata, noise_std=noise_std)


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
    for row in chosen:
        head = raw.heads[row]
        number = int(head["idx"]["slice"])
        if number not in numbers:
            continue
        samples = _samples(path, raw, int(row))
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


def _samples(path: Path, raw: _Raw, row: int) -> np.ndarray:
    """One readout, ``(coils, samples)`` complex64, without the samples to be discarded."""
    head = raw.heads[row]
    coils, length = int(head["active_channels"]), int(head["number_of_samples"])
    values = np.asarray(raw.table.fields("data")[row])
    if values.dtype.kind != "f" or values.size != 2 * coils * length:
        raise InputError(
            f"{path}: readout {row} holds {values.size} numbers, expected {2 * coils * length} "
            f"for {coils} coils of {length} complex samples: the file is damaged"
        )
    samples = values.astype(np.float32).view(np.complex64).reshape(coils, length)
    return samples[:, int(head["discard_pre"]) : length - int(head["discard_post"])]


def _noise_std(path: Path, raw: _Raw, chosen: np.ndarray) -> float | None:
    """Noise of a k-space sample from the noise readouts (root mean square over the coils).

    Noise power goes with the bandwidth, 1 / dwell time; the header's relative bandwidth corrects
    for the noise readout's own filter (Kellman & McVeigh, doi:10.1002/mrm.20713).
    """
    rows = np.flatnonzero(raw.heads["flags"].astype(np.uint64) & np.uint64(_NOISE))
    if len(rows) == 0:
        return None
    power = float(np.mean([np.mean(np.abs(_samples(path, raw, int(r))) ** 2) for r in rows]))
    dwell = float(raw.heads["sample_time_us"][rows[0]])
    imaging_dwell = float(raw.heads["sample_time_us"][chosen[0]])
    if not (dwell > 0 and imaging_dwell > 0 and power > 0):
        return None
    bandwidth = raw.header.noise_bandwidth or 1.0
    if bandwidth <= 0:
        raise InputError(f"{path}: expected a noise bandwidth above 0, got {bandwidth}")
    return float(np.sqrt(power * dwell / imaging_dwell / bandwidth))
