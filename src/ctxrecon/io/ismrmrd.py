"""ISMRMRD raw data ``.h5`` (Inati et al., Magn Reson Med 2017, doi:10.1002/mrm.26089).

A group, usually ``dataset``, holds the XML header and a table of readouts, each with its position
in k-space. Cartesian readouts are sorted into ``(slices, coils, ny, nx)`` with the readout along
``ny``; others are kept as ``(slices, coils, shots, samples)`` with their trajectories.

Three-dimensional scans are split into slices by an inverse transform along a fully sampled axis
(:func:`~ctxrecon.io._cartesian.slice_axis`): the partitions, with slices like those of a
two-dimensional scan; the phase encoding, with the readout along ``ny`` and the partitions along
``nx``; or the readout, with the partitions along ``ny`` and the phase encoding along ``nx``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.io._arrays import (
    SliceChoice,
    build_scan,
    metadata_from_header,
    pick_slices,
    remove_oversampling,
)
from ctxrecon.io._calibration import SAME_FIELD_OF_VIEW, calibration_block
from ctxrecon.io._cartesian import AXES, Axis, Places, place, read_grid, slice_axis
from ctxrecon.io._choice import Choice
from ctxrecon.io._geometry import (
    Frame,
    affine_of,
    read_frames,
    slabs_run_backwards,
    spatial_order,
)
from ctxrecon.io._header import EncodingHeader, parse_header
from ctxrecon.io._noise import read_noise
from ctxrecon.io._notes import Notes
from ctxrecon.io._readouts import Raw, coils_of, find_groups, index_of, open_raw
from ctxrecon.io._sampling_notes import describe_oversampling, describe_sampling
from ctxrecon.io._selection import COUNTERS, roles, select
from ctxrecon.io._trajectories import read_trajectory
from ctxrecon.io.hdf5 import open_hdf5
from ctxrecon.metadata import ScanMetadata, plausible_metadata
from ctxrecon.scan import Scan

__all__ = ["find_groups", "ismrmrd_shape", "raw_shape", "read_ismrmrd", "read_raw"]

logger = logging.getLogger(__name__)

_FIRST = Choice()


@dataclass(frozen=True)
class _Stack:
    """Slices formed by the selected readouts.

    Attributes:
        order: Numbers of the slices or slabs, in spatial order.
        frames: Positions of the slices or slabs, or ``None``.
        sorted_by_place: Whether the numbers are not in spatial order.
        contrast: Number of the contrast.
        places: Positions of the readouts on the grid, or ``None`` for non-Cartesian scans.
        axis: Encoding axis along which the slices lie, or ``None`` in 2-D.
        pixels: Pixels along that axis, in the order of the slabs.
        matrix: Samples along readout, phase and partition.
    """

    order: tuple[int, ...]
    frames: list[Frame] | None
    sorted_by_place: bool
    contrast: int
    places: Places | None
    axis: Axis | None
    pixels: range
    matrix: tuple[int, int, int]

    @property
    def size(self) -> int:
        """Number of slices."""
        return len(self.order) * len(self.pixels)

    @property
    def shape(self) -> tuple[int, int]:
        """Size ``(ny, nx)`` of the encoded grid."""
        y, x, _ = AXES[self.axis]
        return self.matrix[y], self.matrix[x]

    @property
    def offsets(self) -> list[int] | None:
        """Distances of the slices from the center of their slab in pixels; ``None`` in 2-D."""
        if self.axis is None:
            return None
        center = self.matrix[AXES[self.axis][2]] // 2
        return [pixel - center for pixel in self.pixels]

    def picks(self, chosen: Sequence[int]) -> list[tuple[int, int]]:
        """Return the slab of each slice, and its pixel along the axis."""
        found = (divmod(number, len(self.pixels)) for number in chosen)
        return [(slab, self.pixels[pixel]) for slab, pixel in found]

    def voxel_size(self, header: EncodingHeader) -> tuple[float, float, float] | None:
        """Return the voxel size (ny, nx, slice) in mm, if the header states it."""
        if self.axis is None:
            return header.voxel_size(*self.shape)
        if header.encoded_fov is None:
            return None
        y, x, along = (header.encoded_fov[axis] / self.matrix[axis] for axis in AXES[self.axis])
        return y, x, along


def ismrmrd_shape(
    path: Path, *, crop_readout: bool = True, choice: Choice = _FIRST
) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """Return (slices, coils, encoded ny, nx), dtype, and further entries."""
    with open_hdf5(path) as file:
        raw = open_raw(path, file, choice.group)
        layout, dtype, stated = raw_shape(path, raw, crop_readout=crop_readout, choice=choice)
        return layout, dtype, {"groups": tuple(find_groups(file)), **stated}


def raw_shape(
    path: Path, raw: Raw, *, crop_readout: bool, choice: Choice
) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """Return :func:`ismrmrd_shape` for readouts from any file."""
    measured = np.flatnonzero(roles(raw)[0])
    stated: dict[str, Any] = {}
    for name in COUNTERS:
        stated[name + "s"] = len(np.unique(index_of(raw, measured, name)))
    notes = Notes(path)
    rows, _ = select(path, raw, choice, notes)
    stack = _stack(path, raw, rows, crop_readout, notes)
    coils = coils_of(path, raw, rows)
    stated["is_3d"] = stack.axis is not None
    if raw.header.is_non_cartesian:
        stated["trajectory"] = raw.header.trajectory
    return (stack.size, coils, *stack.shape), np.dtype(np.complex64), stated


def read_ismrmrd(
    path: Path,
    slices: SliceChoice = None,
    *,
    crop_readout: bool = True,
    prewhiten: bool = True,
    choice: Choice = _FIRST,
    notes: Notes,
) -> tuple[Scan, Tensor | None]:
    """Sort the readouts of an ISMRMRD file into slices.

    Readouts with a radial, spiral or other trajectory are kept as they are, with the trajectory.
    Lines that were measured several times are averaged, each sample over its own number of
    measurements. The noise level is that of the noise readouts, scaled to the image's bandwidth.

    Args:
        path: The ``.h5`` file.
        slices: Slices to read, in spatial order.
        crop_readout: Whether to crop the readout to the field of view of the header's image. This
            is skipped (and logged) for asymmetric echoes, whose missing samples would not stay
            zero. For non-Cartesian scans the image is cropped instead. Slices of a
            three-dimensional scan outside the field of view are removed, too.
        prewhiten: Whether to prewhiten the coils with the noise readouts.
        choice: Selected measurement.
        notes: Notes to extend.

    Returns:
        The scan, and the prewhitening matrix ``(coils, coils)`` or ``None``.
    """
    with open_hdf5(path) as file:
        return read_raw(
            path,
            open_raw(path, file, choice.group),
            slices,
            crop_readout=crop_readout,
            prewhiten=prewhiten,
            choice=choice,
            notes=notes,
        )


def read_raw(
    path: Path,
    raw: Raw,
    slices: SliceChoice,
    *,
    crop_readout: bool,
    prewhiten: bool,
    choice: Choice,
    notes: Notes,
) -> tuple[Scan, Tensor | None]:
    """Build the result of :func:`read_ismrmrd` from readouts of any file."""
    rows, calibration_rows = select(path, raw, choice, notes)
    stack = _stack(path, raw, rows, crop_readout, notes)
    chosen = pick_slices(path, slices, stack.size)
    noise_std, matrix = read_noise(path, raw, rows, prewhiten)
    metadata = _metadata(path, raw, stack, chosen)
    trajectory = mask = None
    if stack.places is None:
        numbers = [stack.order[number] for number in chosen]
        kspace, trajectory = read_trajectory(path, raw, rows, numbers)
    else:
        describe_sampling(stack.places, stack.axis, notes)
        kspace, count = read_grid(path, raw, stack.places, stack.axis, stack.picks(chosen))
    lines = _read_calibration(path, raw, calibration_rows, stack, chosen, kspace.shape[1])
    if matrix is not None:
        notes.add("the coils are prewhitened with the noise readouts")
        kspace = _whitened(matrix, kspace)
        lines = None if lines is None else _whitened(matrix, lines)
    if stack.places is None:
        shape = raw.header.image_matrix() if crop_readout else stack.shape
    else:
        if noise_std is not None:
            # Averaging lowers the noise of a line; a single value is needed, so use the median.
            noise_std /= stack.places.repetitions**0.5
        mask = count > 0
        if len(times := np.unique(count[mask])) > 1:
            notes.add(f"samples were measured {times[0]} to {times[-1]} times")
        if crop_readout and stack.axis != "readout":
            kspace, mask = _cropped(path, raw.header, kspace, mask, notes)
        mask = mask[:1] if (mask == mask[:1]).all() else mask
        shape = (kspace.shape[2], kspace.shape[3])
        describe_oversampling(raw.header, stack.axis, notes)
    edges = stack.voxel_size(raw.header)
    scan = build_scan(
        path,
        kspace,
        mask=mask,
        metadata=metadata,
        noise_std=noise_std,
        voxel_size=edges,
        trajectory=trajectory,
        matrix=None if trajectory is None else shape,
    )
    if edges is not None and stack.frames is not None:
        affine = affine_of(
            path,
            raw.header,
            stack.frames,
            AXES[stack.axis],
            edges,
            shape,
            stack.offsets,
            chosen,
        )
        scan = replace(scan, affine=affine)
    if lines is not None:
        try:
            block = _calibration_block(path, raw, calibration_rows, stack, lines, shape)
            scan = replace(scan, calibration=block)
        except InputError as error:  # maps may be given, or estimated from the image's own center
            logger.warning("the calibration scan is ignored: %s", error)
    return scan, matrix


def _stack(path: Path, raw: Raw, rows: np.ndarray, crop: bool, notes: Notes) -> _Stack:
    """Return the slices formed by the selected readouts."""
    numbers = np.unique(index_of(raw, rows, "slice")).tolist()
    frames = read_frames(path, raw, rows, numbers)
    by_place = spatial_order(frames) if frames is not None else None
    if frames is not None and by_place is not None:
        notes.add("the slices are sorted by position, which differs from the order of numbers")
        numbers = [numbers[number] for number in by_place]
        frames = [frames[number] for number in by_place]
    places, axis, pixels = None, None, range(1)
    matrix = raw.header.encoded_matrix
    if not raw.header.is_non_cartesian:
        places = place(path, raw, rows, numbers, raw.header)
        axis, matrix = slice_axis(path, places), places.matrix
        if axis is not None:
            number = AXES[axis][2]
            size = matrix[number]
            kept = raw.header.image_size(number, size) if crop else size
            pixels = range(size // 2 - kept // 2, size // 2 - kept // 2 + kept)
            if frames is not None and slabs_run_backwards(raw.header, frames, number):
                pixels = pixels[::-1]
            notes.add(
                f"three-dimensional: the slices are {kept} pixels along the {axis} encoding, which "
                f"is fully sampled" + (f", of {size}" if kept < size else "")
            )
    contrast = int(index_of(raw, rows[:1], "contrast")[0])
    return _Stack(
        tuple(numbers), frames, by_place is not None, contrast, places, axis, pixels, matrix
    )


def _whitened(matrix: Tensor, kspace: np.ndarray) -> np.ndarray:
    white: np.ndarray = np.einsum("dc,bc...->bd...", matrix.numpy(), kspace, optimize=True)
    return white


def _cropped(
    path: Path, header: EncodingHeader, kspace: np.ndarray, mask: np.ndarray, notes: Notes
) -> tuple[np.ndarray, np.ndarray]:
    """Remove the oversampling of a readout along ``ny``, and return the k-space and its mask."""
    all_samples = kspace.shape[2]
    size = header.readout_size(all_samples)
    if size == all_samples:
        return kspace, mask
    lines = mask.any(axis=2, keepdims=True)
    if (mask != lines).any():
        notes.add(
            "readout oversampling is kept because echoes are asymmetric: unsampled values would "
            "not stay zero"
        )
        return kspace, mask
    notes.add(
        f"readout oversampling is cropped: {size} of {all_samples} pixels lie in the field of view"
    )
    cropped = remove_oversampling(path, kspace, size)
    return cropped, np.broadcast_to(lines, (len(mask), 1, *cropped.shape[2:]))


def _metadata(
    path: Path, raw: Raw, stack: _Stack, chosen: Sequence[int]
) -> tuple[ScanMetadata, ...]:
    """Return the header's metadata of the slices, with the echo time of the selected contrast."""
    by_number = stack.axis is None and not stack.sorted_by_place
    numbers = [stack.order[number] if by_number else number for number in chosen]
    metadata = metadata_from_header(path, numbers, raw.xml)
    echo, times = stack.contrast, raw.header.echo_times
    if echo > 0:  # the header's first echo time belongs to another echo
        te = times[echo] if echo < len(times) else None
        metadata = tuple(plausible_metadata(str(path), **{**asdict(m), "te": te}) for m in metadata)
    return metadata


def _read_calibration(
    path: Path, raw: Raw, rows: np.ndarray, stack: _Stack, chosen: Sequence[int], coils: int
) -> np.ndarray | None:
    """Read the k-space ``(slices or 1, coils, ny, nx)`` of a separate calibration scan.

    Returns ``None`` if there is none, or, with a warning, if it does not fit the image, which has
    ``coils`` coils.
    """
    if len(rows) == 0:
        return None
    present = set(index_of(raw, rows, "slice").tolist())
    order = stack.order if present >= set(stack.order) else tuple(present)
    space = int(raw.heads["encoding_space_ref"][rows[0]])
    header = parse_header(path, raw.xml, space)
    own = np.unique(raw.heads["active_channels"][rows]).tolist()
    problem = None
    if own != [coils]:
        problem = f"it has {' or '.join(map(str, own))} coils and the image {coils}"
    elif len(order) not in {1, len(stack.order)}:
        problem = f"its slices are {sorted(present)} and the image's {sorted(stack.order)}"
    elif header.is_non_cartesian:
        problem = f"it has a {header.trajectory} trajectory"
    elif stack.axis is not None and not _same_along(raw.header, header, AXES[stack.axis][2]):
        problem = "its field of view along the slices differs from the image's"
    if problem:
        logger.warning("%s: the calibration scan is ignored: %s", path, problem)
        return None
    matrix = None
    if stack.axis is not None:
        sizes = list(header.encoded_matrix)
        sizes[AXES[stack.axis][2]] = stack.matrix[AXES[stack.axis][2]]
        matrix = (sizes[0], sizes[1], sizes[2])
    picks = stack.picks(chosen)
    if len(order) == 1:
        picks = [(0, pixel) for _, pixel in picks] if stack.axis is not None else [(0, 0)]
    try:
        places = place(path, raw, rows, order, header, matrix)
        return read_grid(path, raw, places, stack.axis, picks)[0]
    except InputError as error:
        logger.warning("%s: the calibration scan is ignored: %s", path, error)
        return None


def _same_along(one: EncodingHeader, other: EncodingHeader, axis: int) -> bool:
    """Return whether two encodings have the same field of view along an axis."""
    first, second = one.extent(axis), other.extent(axis)
    return abs(first / second - 1) < SAME_FIELD_OF_VIEW


def _calibration_block(
    path: Path,
    raw: Raw,
    rows: np.ndarray,
    stack: _Stack,
    lines: np.ndarray,
    shape: tuple[int, int],
) -> Tensor:
    """Extract the fully sampled center of a calibration scan for images of this shape."""
    header = parse_header(path, raw.xml, int(raw.heads["encoding_space_ref"][rows[0]]))
    y, x, _ = AXES[stack.axis]
    own = (header.extent(y), header.extent(x))
    image = (
        raw.header.extent(y) * shape[0] / stack.shape[0],
        raw.header.extent(x) * shape[1] / stack.shape[1],
    )
    return torch.from_numpy(calibration_block(path, lines, own, image))
