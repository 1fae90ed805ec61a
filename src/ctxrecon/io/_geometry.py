"""Where the slices of an ISMRMRD file lie in the scanner.

Each readout states the center of the excited slice or slab and the directions of its axes, in mm
along the patient's left, posterior, superior (LPS). A sample at ``k`` is taken as

    ``s(k) = ∫ ρ(r) exp(−2πi k·r) dr``,  ``r`` from that center along ``read_dir``, ``phase_dir``,

so the inverse transform has pixel ``n // 2`` of each axis at the center and counts along these
directions. Siemens states directions for the transform with the other sign: mrpro conjugates its
k-space (PTB-MR/mrpro#833), and Siemens' own reconstruction has both axes flipped, as the reference
server of FIRE repeats. There the images are left as they are, and the affine counts backwards.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ctxrecon.io._header import EncodingHeader
from ctxrecon.io._readouts import Raw, index_of

logger = logging.getLogger(__name__)

_DIRECTIONS = ("read_dir", "phase_dir", "slice_dir")
_COSINE = 1e-2  # of directions that should be orthonormal, or the same
_MM = 0.02  # and a hundredth of the distance, of slices that should be equally spaced


class Frame(NamedTuple):
    """The place of a slice or slab.

    Attributes:
        center: ``(3,)`` in mm, LPS.
        axes: directions of readout, phase encoding and slice or partition encoding, ``(3, 3)``.
    """

    center: np.ndarray
    axes: np.ndarray


def read_frames(
    path: Path, raw: Raw, rows: np.ndarray, numbers: Sequence[int]
) -> list[Frame] | None:
    """The places of slices or slabs; ``None``, with a line in the log, where they are not stated.

    Args:
        path: the file, for messages.
        raw: what is in it.
        rows: of the table.
        numbers: of the slices.
    """
    names = raw.heads.dtype.names or ()
    if not {"position", *_DIRECTIONS} <= set(names):
        logger.info("%s: its readouts state no positions: the place of the images is unknown", path)
        return None
    slices = index_of(raw, rows, "slice")
    frames = []
    for number in numbers:
        heads = raw.heads[rows[slices == number]]
        center = np.asarray(heads["position"], np.float64)
        axes = np.stack([np.asarray(heads[name], np.float64) for name in _DIRECTIONS], axis=1)
        problem = _problem(center, axes)
        if problem:
            logger.info(
                "%s: %s in slice %d, so the place of the images is unknown", path, problem, number
            )
            return None
        frames.append(Frame(center[0], axes[0] / np.linalg.norm(axes[0], axis=1, keepdims=True)))
    return frames


def _problem(center: np.ndarray, axes: np.ndarray) -> str | None:
    """Why these ``(readouts, 3)`` and ``(readouts, 3, 3)`` are no place of a slice, if so."""
    if not (np.isfinite(center).all() and np.isfinite(axes).all()):
        return "positions or directions are not finite"
    if np.abs(axes[0] @ axes[0].T - np.eye(3)).max() > _COSINE:
        return "directions are not orthonormal"
    if np.abs(axes - axes[0]).max() > _COSINE or np.abs(center - center[0]).max() > _MM:
        return "readouts differ in position or direction"
    return None


def spatial_order(frames: Sequence[Frame]) -> list[int] | None:
    """The order along the slice direction, where the present one goes forth and back; else none."""
    along = np.array([frame.center @ frames[0].axes[2] for frame in frames])
    steps = np.diff(along)
    if len(frames) < 3 or (steps > 0).all() or (steps < 0).all() or (np.abs(steps) < _MM).any():
        return None
    return [int(number) for number in np.argsort(along)]


def slabs_run_backwards(header: EncodingHeader, frames: Sequence[Frame], axis: int) -> bool:
    """Whether slabs follow each other against the order of the pixels inside them.

    Args:
        header: the encoding of the image.
        frames: of the slabs.
        axis: of the pixels (0 readout, 1 phase, 2 partition).
    """
    step = frames[-1].center - frames[0].center
    return bool(_sign(header) * step @ frames[0].axes[axis] < -_MM)


def _sign(header: EncodingHeader) -> float:
    """Whether pixels count along the stated directions, 1, or against them, -1."""
    return -1.0 if (header.vendor or "").lower().startswith("siemens") else 1.0


def affine_of(
    path: Path,
    header: EncodingHeader,
    frames: Sequence[Frame],
    axes: tuple[int, int, int],
    edges: tuple[float, float, float],
    shape: tuple[int, int],
    offsets: Sequence[int] | None,
    chosen: Sequence[int],
) -> Tensor | None:
    """From (y, x, slice) of the images to RAS+ mm, as :class:`ctxrecon.scan.Scan` has it.

    Args:
        path: the file, for messages.
        header: the encoding of the image.
        frames: of all slices or slabs.
        axes: which axis (0 readout, 1 phase, 2 partition) y, x and the slices lie along.
        edges: of the voxels along them, in mm.
        shape: ``(ny, nx)`` of the images.
        offsets: of a three-dimensional scan's slices from the center of their slab, in pixels.
        chosen: the slices that are read, counted among all.

    Returns:
        ``(4, 4)`` float64; ``None``, with a line in the log, for slices that are not parallel and
        equally spaced.
    """
    directions = frames[0].axes
    if any(np.abs(frame.axes - directions).max() > _COSINE for frame in frames):
        logger.info("%s: its slices are not parallel, so they have no common place", path)
        return None
    sign = _sign(header)
    y, x, along = (directions[axis] * edge for axis, edge in zip(axes, edges, strict=True))
    y, x = sign * y, sign * x
    if offsets is None:
        centers = np.array([frame.center for frame in frames])
    else:
        along = sign * along
        inside = np.asarray(offsets, np.float64)[:, None] * along
        centers = np.concatenate([frame.center + inside for frame in frames])
    step = _common_step(centers[list(chosen)])
    if len(chosen) == 1:
        step = _common_step(centers)
        step = along if step is None else step
    if step is None:
        logger.info("%s: its slices are not equally spaced, so they have no common place", path)
        return None
    origin = centers[chosen[0]] - shape[0] // 2 * y - shape[1] // 2 * x
    affine = np.eye(4)
    affine[:3] = np.stack([y, x, step, origin], axis=1)
    affine[:2] *= -1  # left and posterior to right and anterior
    return torch.from_numpy(affine + 0.0)  # no negative zeros


def _common_step(centers: np.ndarray) -> np.ndarray | None:
    """From one point ``(points, 3)`` to the next, if it is the same everywhere and not zero."""
    if len(centers) < 2:
        return None
    steps = np.diff(centers, axis=0)
    mean: np.ndarray = steps.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < _MM or np.abs(steps - mean).max() > max(_MM, 0.01 * length):
        return None
    return mean
