"""Position of the slices of an ISMRMRD file in the scanner.

Each readout states the center of the excited slice or slab and the directions of its axes, in mm
along the patient's left, posterior, superior (LPS). A sample at ``k`` is modeled as

    ``s(k) = ∫ ρ(r) exp(−2πi k·r) dr``,  ``r`` from that center along ``read_dir``, ``phase_dir``,

so the inverse transform has pixel ``n // 2`` of each axis at the center and counts along these
directions. Siemens states directions for the transform with the opposite sign: mrpro conjugates its
k-space (PTB-MR/mrpro#833), and Siemens' own reconstruction has both axes flipped, as does the
reference server of FIRE. Here the images are left unchanged and the affine counts backwards.
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
_COSINE = 1e-2  # tolerance for directions that should be orthonormal or equal
_MM = 0.02  # tolerance in mm for equal spacing of slices, in addition to 1 % of the distance


class Frame(NamedTuple):
    """Position and orientation of a slice or slab.

    Attributes:
        center: Center of shape ``(3,)`` in mm, LPS.
        axes: Unit vectors along readout, phase encoding and slice or partition encoding, shape
            ``(3, 3)``.
    """

    center: np.ndarray
    axes: np.ndarray


def read_frames(
    path: Path, raw: Raw, rows: np.ndarray, numbers: Sequence[int]
) -> list[Frame] | None:
    """Read the positions of slices or slabs; return ``None`` and log why if they are not stated.

    Args:
        path: File name for messages.
        raw: Content of the file.
        rows: Rows of the readout table.
        numbers: Numbers of the slices.
    """
    names = raw.heads.dtype.names or ()
    if not {"position", *_DIRECTIONS} <= set(names):
        logger.info(
            "%s: its readouts state no positions, so the position of the images is unknown", path
        )
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
                "%s: %s in slice %d, so the position of the images is unknown",
                path,
                problem,
                number,
            )
            return None
        frames.append(Frame(center[0], axes[0] / np.linalg.norm(axes[0], axis=1, keepdims=True)))
    return frames


def _problem(center: np.ndarray, axes: np.ndarray) -> str | None:
    """Return why centers ``(readouts, 3)`` and axes ``(readouts, 3, 3)`` are invalid, if so."""
    if not (np.isfinite(center).all() and np.isfinite(axes).all()):
        return "positions or directions are not finite"
    if np.abs(axes[0] @ axes[0].T - np.eye(3)).max() > _COSINE:
        return "directions are not orthonormal"
    if np.abs(axes - axes[0]).max() > _COSINE or np.abs(center - center[0]).max() > _MM:
        return "readouts differ in position or direction"
    return None


def spatial_order(frames: Sequence[Frame]) -> list[int] | None:
    """Return the order along the slice direction if slices are interleaved, else ``None``."""
    along = np.array([frame.center @ frames[0].axes[2] for frame in frames])
    steps = np.diff(along)
    if len(frames) < 3 or (steps > 0).all() or (steps < 0).all() or (np.abs(steps) < _MM).any():
        return None
    return [int(number) for number in np.argsort(along)]


def slabs_run_backwards(header: EncodingHeader, frames: Sequence[Frame], axis: int) -> bool:
    """Return whether the order of slabs is opposite to the order of the pixels inside them.

    Args:
        header: Encoding of the image.
        frames: Positions of the slabs.
        axis: Encoding axis of the pixels (0 readout, 1 phase, 2 partition).
    """
    step = frames[-1].center - frames[0].center
    return bool(_sign(header) * step @ frames[0].axes[axis] < -_MM)


def _sign(header: EncodingHeader) -> float:
    """Return 1 if pixels count along the stated directions, and -1 if against them."""
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
    """Compute the affine from (y, x, slice) indices to mm in RAS+ (:class:`ctxrecon.scan.Scan`).

    Args:
        path: File name for messages.
        header: Encoding of the image.
        frames: Positions of all slices or slabs.
        axes: Encoding axes (0 readout, 1 phase, 2 partition) of y, x and the slices.
        edges: Voxel edges along y, x and the slices, in mm.
        shape: Image size ``(ny, nx)``.
        offsets: Distances of a three-dimensional scan's slices from the center of their slab, in
            pixels.
        chosen: Slices that are read, counted among all.

    Returns:
        The affine, ``(4, 4)`` float64, or ``None`` (which is logged) if the slices are not
        parallel and equally spaced.
    """
    directions = frames[0].axes
    if any(np.abs(frame.axes - directions).max() > _COSINE for frame in frames):
        logger.info("%s: its slices are not parallel, so they have no common affine", path)
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
        logger.info("%s: its slices are not equally spaced, so they have no common affine", path)
        return None
    origin = centers[chosen[0]] - shape[0] // 2 * y - shape[1] // 2 * x
    affine = np.eye(4)
    affine[:3] = np.stack([y, x, step, origin], axis=1)
    affine[:2] *= -1  # left and posterior to right and anterior
    return torch.from_numpy(affine + 0.0)  # turns -0.0 into 0.0


def _common_step(centers: np.ndarray) -> np.ndarray | None:
    """Return the step between points ``(points, 3)`` if it is constant and not zero."""
    if len(centers) < 2:
        return None
    steps = np.diff(centers, axis=0)
    mean: np.ndarray = steps.mean(axis=0)
    length = float(np.linalg.norm(mean))
    if length < _MM or np.abs(steps - mean).max() > max(_MM, 0.01 * length):
        return None
    return mean
