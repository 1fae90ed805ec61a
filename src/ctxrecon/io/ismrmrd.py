"""ISMRMRD raw data ``.h5`` (Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089).

A group, usually ``dataset``, holds the XML header and a table of readouts, each with its place in
k-space. They are sorted into ``(slices, coils, ny, nx)`` with the readout along ``ny``, or kept
one after the other, ``(slices, coils, shots, samples)``, with the trajectory that each holds.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
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
from ctxrecon.io._choice import Choice, nth
from ctxrecon.io._readouts import (
    NOISE,
    REVERSED,
    Raw,
    coils_of,
    find_groups,
    imaging,
    open_raw,
    readouts,
)
from ctxrecon.io._trajectories import read_trajectory
from ctxrecon.io.hdf5 import open_hdf5
from ctxrecon.metadata import ScanMetadata, plausible_metadata
from ctxrecon.scan import Scan

__all__ = ["find_groups", "ismrmrd_shape", "read_ismrmrd"]

logger = logging.getLogger(__name__)

_FIRST = Choice()


def ismrmrd_shape(
    path: Path, *, crop_readout: bool = True, choice: Choice = _FIRST
) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """(slices, coils, encoded readout, nx), dtype, and what else the header states."""
    with open_hdf5(path) as file:
        raw = open_raw(path, file, choice.group)
        index = raw.heads["idx"][imaging(path, raw)]
        coils = int(raw.heads["active_channels"].max())
    nx, ny = raw.header.encoded_matrix[1], raw.header.encoded_matrix[0]
    stated: dict[str, Any] = {
        name + "s": len(np.unique(index[name])) for name in ("repetition", "contrast")
    }
    slices = len(np.unique(index["slice"]))
    if raw.header.is_non_cartesian:
        stated["trajectory"] = raw.header.trajectory
    return (slices, coils, ny, nx), np.dtype(np.complex64), stated


def read_ismrmrd(
    path: Path,
    slices: SliceChoice = None,
    *,
    crop_readout: bool = True,
    prewhiten: bool = True,
    choice: Choice = _FIRST,
) -> tuple[Scan, Tensor | None]:
    """Sort the readouts of an ISMRMRD file into slices.

    Those of a radial, spiral or other trajectory are kept as they are, with it. Lines measured
    several times (averages) are averaged; of cardiac phases and sets the first is taken. The noise
    level is that of the noise readouts, scaled to the bandwidth of the image.

    Args:
        path: the ``.h5`` file.
        slices: which slices, counted among those measured.
        crop_readout: crop the readout oversampling to the field of view of the header's image;
            left undone (and logged) for asymmetric echoes, whose missing samples would not stay
            zero. Along a trajectory it is the image that is cropped.
        prewhiten: decorrelate the coils by the noise readouts.
        choice: which of the measurements in the file.

    Returns:
        The scan, and the matrix ``(coils, coils)`` that prewhitened its coils, if any.
    """
    with open_hdf5(path) as file:
        raw = open_raw(path, file, choice.group)
        chosen, numbers = _choose(path, raw, slices, choice)
        noise_std, matrix = _noise(path, raw, chosen, prewhiten)
        metadata = _metadata(path, raw, chosen, numbers)
        if raw.header.is_non_cartesian:
            kspace, trajectory = read_trajectory(path, raw, chosen, numbers)
        else:
            kspace, measured = _sort(path, raw, chosen, numbers)
    if matrix is not None:
        kspace = np.einsum("dc,bcyx->bdyx", matrix.numpy(), kspace, optimize=True)
    if raw.header.is_non_cartesian:
        encoded_ny, encoded_nx, _ = raw.header.encoded_matrix
        scan = build_scan(
            path,
            kspace,
            metadata=metadata,
            noise_std=noise_std,
            voxel_size=raw.header.voxel_size(encoded_ny, encoded_nx),
            trajectory=trajectory,
            matrix=raw.header.image_matrix() if crop_readout else (encoded_ny, encoded_nx),
        )
        return scan, matrix
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
    scan = build_scan(path, kspace, metadata=metadata, noise_std=noise_std, voxel_size=voxel_size)
    return scan, matrix


def _choose(
    path: Path, raw: Raw, slices: SliceChoice, choice: Choice
) -> tuple[np.ndarray, list[int]]:
    """The chosen readouts, and the numbers of the slices."""
    chosen = imaging(path, raw)
    for name in ("repetition", "contrast", "phase", "set", "average"):
        number = getattr(choice, name)
        if number is None:
            continue
        values = raw.heads["idx"][name][chosen]
        chosen = chosen[values == nth(path, values, number, name)]
        if (count := len(np.unique(values))) > 1:
            logger.info("%s: %s %d (of 0 to %d) is read", path, name, number, count - 1)
    present = np.unique(raw.heads["idx"]["slice"][chosen])
    return chosen, [int(present[i]) for i in pick_slices(path, slices, len(present))]


def _metadata(
    path: Path, raw: Raw, chosen: np.ndarray, numbers: list[int]
) -> tuple[ScanMetadata, ...]:
    """What the header says of the slices, with the echo time of the contrast that is read."""
    metadata = metadata_from_header(path, numbers, raw.xml)
    echo, times = int(raw.heads["idx"]["contrast"][chosen[0]]), raw.header.echo_times
    if echo > 0:  # the header's first echo time is not this echo's
        te = times[echo] if echo < len(times) else None
        metadata = tuple(plausible_metadata(str(path), **{**asdict(m), "te": te}) for m in metadata)
    return metadata


def _sort(
    path: Path, raw: Raw, chosen: np.ndarray, numbers: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The chosen readouts at their places, averaged; and how often each line was measured."""
    ny, nx, _ = raw.header.encoded_matrix
    shape = (len(numbers), coils_of(path, raw, chosen), ny, nx)
    num_bytes = 8 * prod(shape)
    check_expansion(path, num_bytes, path.stat().st_size, f"k-space of shape {shape}")
    kspace = np.zeros(shape, np.complex64)
    count = np.zeros((len(numbers), nx), np.int64)
    center = raw.header.center if raw.header.center is not None else nx // 2
    wanted_rows = chosen[np.isin(raw.heads["idx"]["slice"][chosen], numbers)]
    for row, samples in readouts(path, raw, wanted_rows):
        head = raw.heads[row]
        number = int(head["idx"]["slice"])
        start = ny // 2 - int(head["center_sample"]) + int(head["discard_pre"])
        if int(head["flags"]) & REVERSED:
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


def _noise(
    path: Path, raw: Raw, chosen: np.ndarray, prewhiten: bool
) -> tuple[float | None, Tensor | None]:
    """Noise of an imaging sample by the noise readouts, and the matrix that whitens the coils.

    The matrix ``σ L⁻¹`` of the noise covariance ``Ψ = L Lᴴ`` with ``σ² = tr Ψ / C`` keeps the
    units of k-space, and coils of equal, independent noise as they are. The noise level is σ: noise
    power goes with the bandwidth, 1 / dwell time, and the header's relative bandwidth corrects for
    the noise readout's own filter (Kellman & McVeigh, doi:10.1002/mrm.20713).
    """
    heads = raw.heads
    coils = heads["active_channels"][chosen[0]]
    noise = heads["flags"].astype(np.uint64) & np.uint64(NOISE) != 0
    rows = np.flatnonzero(noise & (heads["active_channels"] == coils))
    if len(rows) < noise.sum():
        logger.warning("%s: noise readouts of other coils than the image's are left out", path)
    if len(rows) == 0:
        return None, None
    samples = np.concatenate([values for _, values in readouts(path, raw, rows)], axis=1)
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
