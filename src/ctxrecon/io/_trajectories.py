"""Non-Cartesian readouts of an ISMRMRD file, with their trajectories."""

from __future__ import annotations

import logging
import math
from math import prod
from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.io._readouts import Raw, coils_of, positions, readouts

logger = logging.getLogger(__name__)

_LEAST_REACH = 0.25
"""Least fraction of the header's k-space that a trajectory in the right units reaches."""
_ROUNDING = 0.01


def read_trajectory(
    path: Path, raw: Raw, chosen: np.ndarray, numbers: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Read samples and trajectories of some slices.

    ISMRMRD's first coordinate, x, is the readout of its Cartesian scans, which is ``ny`` here.

    Args:
        path: File name for messages.
        raw: Content of the file.
        chosen: Rows of the readout table.
        numbers: Numbers of the slices.

    Returns:
        K-space ``(slices, coils, shots, samples)``, complex64, and trajectories
        ``(slices or 1, shots, samples, 2)``, float64, as ``(k_y, k_x)`` in radians per pixel of
        the encoded matrix.

    Raises:
        InputError: If readouts have no 2-D trajectory in known units, or differ in size.
    """
    _check_dimensions(path, raw, chosen)
    by_slice = [chosen[raw.heads["idx"]["slice"][chosen] == number] for number in numbers]
    heads = raw.heads[np.concatenate(by_slice)]
    counts = {name: heads[name].astype(int) for name in ("discard_pre", "discard_post")}
    lengths = heads["number_of_samples"].astype(int) - sum(counts.values())
    shots = {len(rows) for rows in by_slice}
    if len(shots) > 1 or len(np.unique(lengths)) > 1 or lengths[0] < 1:
        raise InputError(
            f"{path}: expected the same number of readouts and samples in each slice, got "
            f"{sorted(shots)} readouts of {np.unique(lengths).tolist()} samples: read one slice at "
            "a time, or leave some readouts out"
        )
    shape = (len(numbers), coils_of(path, raw, chosen), shots.pop(), int(lengths[0]))
    encoded = (*shape[:2], *raw.header.encoded_matrix[:2])
    for size, what in ((shape, "k-space"), (encoded, "the coil images")):
        check_expansion(path, 8 * prod(size), path.stat().st_size, f"{what} of shape {size}")
    kspace = np.empty(shape, np.complex64)
    places = np.empty((len(numbers), *shape[2:], 3), np.float64)
    for number, rows in enumerate(by_slice):
        for shot, (_, samples) in enumerate(readouts(path, raw, rows)):
            kspace[number, :, shot] = samples
        for shot, (_, place) in enumerate(positions(path, raw, rows)):
            places[number, shot] = np.pad(place, ((0, 0), (0, 3 - place.shape[1])))
    trajectory = _in_radians(path, raw, places)
    return kspace, trajectory[:1] if (trajectory == trajectory[:1]).all() else trajectory


def _check_dimensions(path: Path, raw: Raw, chosen: np.ndarray) -> None:
    """Validate that readouts have two or three coordinates per sample."""
    names = raw.heads.dtype.names or ()
    found = [0]
    if "trajectory_dimensions" in names and "traj" in (raw.table.dtype.names or ()):
        found = np.unique(raw.heads["trajectory_dimensions"][chosen]).tolist()
    if found not in ([2], [3]):
        raise InputError(
            f"{path}: its header states a {raw.header.trajectory} trajectory, which requires "
            f"2 or 3 coordinates per sample, got {found}: convert the raw data with their "
            "trajectory"
        )


def _in_radians(path: Path, raw: Raw, places: np.ndarray) -> np.ndarray:
    """Convert coordinates ``(…, 3)`` in file units to ``(k_y, k_x)`` in radians per pixel."""
    if not np.isfinite(places).all():
        raise InputError(
            f"{path}: its trajectory contains values that are not finite: convert it again"
        )
    third, trajectory = places[..., 2], places[..., :2]
    if (third < 0).any():
        raise InputError(
            f"{path}: expected a 2-D trajectory, got one with a third coordinate down to "
            f"{third.min():.3g}: transform it along the slice direction and save the slices"
        )
    if third.any():
        logger.info(
            "%s: the third number of each trajectory sample, a density weight in some files, is "
            "ignored",
            path,
        )
    matrix = np.array(raw.header.encoded_matrix[:2])
    largest = float(np.abs(trajectory).max())
    in_points = float(np.abs(trajectory / matrix).max())
    for units, reach, period in (
        ("cycles per pixel, up to 0.5", 2 * largest, np.ones(2)),
        ("points of the encoded matrix, up to half of it", 2 * in_points, matrix),
    ):
        if _LEAST_REACH <= reach <= 1 + _ROUNDING:
            logger.info("%s: the trajectory reaches %.4g, read as %s", path, largest, units)
            return np.clip(2 * math.pi * trajectory / period, -math.pi, math.pi)
    raise InputError(
        f"{path}: expected a trajectory in cycles per pixel (up to 0.5) or in points of the "
        f"encoded matrix (up to {matrix.max() / 2:g}), got values of up to {largest:.4g}: scale it"
    )
