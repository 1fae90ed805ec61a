"""Gridding of Cartesian ISMRMRD readouts to the encoded matrix, and splitting into slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.io._header import EncodingHeader
from ctxrecon.io._readouts import REVERSED, Raw, coils_of, has_flag, index_of, readouts

# Raw data are not compressed, so the grid is only a few times as large as the samples.
_FREE_BYTES = 16 * 2**20

Axis: TypeAlias = 'Literal["readout", "phase", "partition"]'

AXES: dict[Axis | None, tuple[int, int, int]] = {
    None: (0, 1, 2),
    "partition": (0, 1, 2),
    "phase": (0, 2, 1),
    "readout": (2, 1, 0),
}
"""Encoding axes (0 readout, 1 phase, 2 partition) of ``(ny, nx, slice)``, by the slices' axis.

``None`` is a two-dimensional scan. Undersampling along only one axis always varies along ``nx``.
"""


@dataclass(frozen=True)
class Places:
    """Positions of readouts on the grid.

    Attributes:
        rows: Rows of the readout table.
        slabs: Slice, or slab of a three-dimensional scan, of each readout, as an index of
            ``order``.
        order: Numbers of the slices or slabs.
        starts: Grid position of each first sample along the readout, after reversal.
        lengths: Number of samples of each readout.
        lines: Phase-encoding position of each readout.
        partitions: Partition-encoding position of each readout.
        matrix: Size of the grid along readout, phase and partition; one partition in 2-D.
        turned: Whether each readout is stored in reverse.
    """

    rows: np.ndarray
    slabs: np.ndarray
    order: tuple[int, ...]
    starts: np.ndarray
    lengths: np.ndarray
    lines: np.ndarray
    partitions: np.ndarray
    matrix: tuple[int, int, int]
    turned: np.ndarray

    @property
    def repetitions(self) -> float:
        """Median number of times that a line of the stack was measured."""
        where = np.stack([self.slabs, self.partitions, self.lines])
        return float(np.median(np.unique(where, axis=1, return_counts=True)[1]))

    @property
    def complete(self) -> bool:
        """True if every readout covers the whole grid."""
        return bool((self.lengths == self.matrix[0]).all())


def place(
    path: Path,
    raw: Raw,
    rows: np.ndarray,
    order: Sequence[int],
    header: EncodingHeader,
    matrix: tuple[int, int, int] | None = None,
) -> Places:
    """Find the positions of readouts on the grid, with zero frequency at ``n // 2`` of each axis.

    Args:
        path: File name for messages.
        raw: Content of the file.
        rows: Rows of the readout table; those of slices that are not in ``order`` are left out.
        order: Numbers of the slices or slabs.
        header: Encoding of these readouts.
        matrix: Size of the grid, if it differs from the header's.

    Raises:
        InputError: If readouts lie outside the grid.
    """
    slices = index_of(raw, rows, "slice")
    rows = rows[np.isin(slices, order)]
    slices = index_of(raw, rows, "slice")
    slabs = np.zeros(len(rows), np.int64)
    for number, value in enumerate(order):
        slabs[slices == value] = number
    steps = index_of(raw, rows, "kspace_encode_step_2")
    nx, ny, nz = header.encoded_matrix
    flat = len(steps) == 0 or (
        len(np.unique(steps)) == 1 and steps[0] in {0, header.partition_center}
    )
    if matrix is None:
        matrix = (nx, ny, 1 if flat else nz)
    center = matrix[1] // 2
    lines = index_of(raw, rows, "kspace_encode_step_1") + center
    lines -= ny // 2 if header.center is None else header.center
    partitions = np.zeros_like(lines)
    if matrix[2] > 1 or not flat:
        partitions = steps + matrix[2] // 2
        partitions -= nz // 2 if header.partition_center is None else header.partition_center
    starts, lengths, turned = _along_readout(raw, rows, matrix[0])
    outside = (starts < 0) | (starts + lengths > matrix[0])
    for places, size in ((lines, matrix[1]), (partitions, matrix[2])):
        outside |= (places < 0) | (places >= size)
    if outside.any():
        first = int(outside.argmax())
        deep = "" if flat else f", partition {partitions[first]}"
        sizes = "" if flat else f" in {matrix[2]} partitions"
        raise InputError(
            f"{path}: readout {rows[first]} (line {lines[first]}{deep}, samples {starts[first]} to "
            f"{starts[first] + lengths[first]}) lies outside the encoded matrix of {matrix[1]} "
            f"lines of {matrix[0]} samples{sizes} that the header states"
        )
    return Places(rows, slabs, tuple(order), starts, lengths, lines, partitions, matrix, turned)


def _along_readout(
    raw: Raw, rows: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first samples on the grid, lengths, and which readouts are stored in reverse.

    The center sample of a reversed readout may be counted in storage order or, in files converted
    from Siemens data, as for forward readouts. Storage order is used if it fits the grid, unless
    forward readouts have the same center and the second interpretation fits as well.
    """
    heads = raw.heads[rows]
    number, center, before, after = (
        heads[name].astype(np.int64)
        for name in ("number_of_samples", "center_sample", "discard_pre", "discard_post")
    )
    turned = has_flag(heads, REVERSED)
    lengths = number - before - after
    forward = size // 2 - center + before
    counted_stored = size // 2 - (number - 1 - center) + after
    counted_turned = size // 2 - center + after
    starts = np.where(turned, counted_stored, forward)
    if turned.any():
        fits_stored, fits_turned = (
            bool(((each >= 0) & (each + lengths <= size))[turned].all())
            for each in (counted_stored, counted_turned)
        )
        pairs = list(zip(number.tolist(), center.tolist(), turned.tolist(), strict=True))
        of_forward = {pair[:2] for pair in pairs if not pair[2]}
        alike = {pair[:2] for pair in pairs if pair[2]} <= of_forward
        if fits_turned and (alike or not fits_stored):
            starts = np.where(turned, counted_turned, forward)
    return starts, lengths, turned


def slice_axis(path: Path, places: Places) -> Axis | None:
    """Return the axis along which an inverse transform splits a scan into slices; ``None`` in 2-D.

    It is the partition axis if partitions are fully sampled wherever any is. Otherwise it is the
    phase encoding if the same holds for it, so that the remaining data are undersampled along one
    axis and contain the readout; otherwise the readout, which leaves point-wise masks.

    Raises:
        InputError: If no axis is fully sampled.
    """
    if places.matrix[2] == 1:
        return None
    sampled = np.zeros((places.slabs.max() + 1, *places.matrix[1:]), bool)
    sampled[places.slabs, places.lines, places.partitions] = True
    if (sampled.all(axis=2) == sampled.any(axis=2)).all():
        return "partition"
    if (sampled.all(axis=1) == sampled.any(axis=1)).all():
        return "phase"
    if places.complete:
        return "readout"
    raise InputError(
        f"{path}: expected a three-dimensional scan that is fully sampled along one axis, got one "
        "with partial echoes whose phase and partition encoding are both undersampled: it "
        "cannot be split into slices"
    )


def read_grid(
    path: Path,
    raw: Raw,
    places: Places,
    axis: Axis | None,
    picks: Sequence[tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Grid the k-space of some slices; lines that were measured several times are averaged.

    Args:
        path: File name for messages.
        raw: Content of the file.
        places: Positions of the readouts.
        axis: Axis along which the slices lie.
        picks: Number of the slab and pixel along ``axis``, for each slice.

    Returns:
        K-space ``(slices, coils, ny, nx)``, complex64, and the number of measurements of each
        sample, ``(slices, 1, ny, nx)``. Samples that are exactly zero in all coils do not count.
    """
    slabs, slab_of = np.unique([slab for slab, _ in picks], return_inverse=True)
    pixels, pixel_of = np.unique([pixel for _, pixel in picks], return_inverse=True)
    nx, ny, nz = places.matrix
    width = len(pixels) if axis == "readout" else nx
    coils = coils_of(path, raw, places.rows)
    shape = (len(slabs), nz, ny, coils, width)
    claimed = f"k-space of shape {shape}"
    check_expansion(path, 8 * prod(shape), path.stat().st_size, claimed, free=_FREE_BYTES)
    volume = np.zeros(shape, np.complex64)
    count = np.zeros((len(slabs), nz, ny, 1, 1 if axis == "readout" else nx), np.uint16)
    wanted = np.isin(places.slabs, slabs)
    number_of = np.full(len(raw.heads), -1, np.int64)
    number_of[places.rows] = np.arange(len(places.rows))
    among = np.searchsorted(slabs, places.slabs)
    for row, stored in readouts(path, raw, places.rows[wanted]):
        number = number_of[row]
        samples = stored[:, ::-1] if places.turned[number] else stored
        where = (among[number], places.partitions[number], places.lines[number])
        start = places.starts[number]
        part = slice(start, start + samples.shape[1])
        there = (samples != 0).any(axis=0)
        if axis == "readout":
            volume[where] += inverse_transform(samples, -1)[:, pixels]
            count[where] += there.any()
        else:
            volume[where][:, part] += samples
            count[where][:, part] += there
    volume /= np.maximum(count, 1).astype(np.float32)
    if axis == "partition":
        volume = inverse_transform(volume, 1)[:, pixels]
        count = count.max(axis=1, keepdims=True)
    elif axis == "phase":
        volume = inverse_transform(volume, 2)[:, :, pixels]
        count = count.max(axis=2, keepdims=True)
    # To (slabs, pixels along the axis, coils, ny, nx).
    order = {"phase": (0, 2, 3, 4, 1), "readout": (0, 4, 3, 1, 2)}.get(axis or "", (0, 1, 3, 4, 2))
    volume, count = volume.transpose(order), count.transpose(order)
    return volume[slab_of, pixel_of], count[slab_of, 0]


def inverse_transform(kspace: np.ndarray, axis: int) -> np.ndarray:
    """Apply the centered orthonormal inverse transform along one axis, in the input's precision."""
    shifted = torch.fft.ifftshift(torch.from_numpy(np.ascontiguousarray(kspace)), dim=axis)
    image = torch.fft.ifft(shifted, dim=axis, norm="ortho")
    return torch.fft.fftshift(image, dim=axis).numpy()
