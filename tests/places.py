"""Scans in every direction whose pixel values encode their position in the patient."""

from __future__ import annotations

import numpy as np

SHAPE = (5, 12, 10)
"""(slices, ny, nx)."""


def _affine(y: object, x: object, slices: object, origin: object) -> np.ndarray:
    affine = np.eye(4)
    affine[:3] = np.stack([np.asarray(column, float) for column in (y, x, slices, origin)], axis=1)
    return affine


def _turned(affine: np.ndarray, angle: float, axis: int) -> np.ndarray:
    first, second = (other for other in range(3) if other != axis)
    turn = np.eye(4)
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    return turn @ affine


# Readout (y), phase encoding (x), slices and the first pixel, in mm to the right, front and head.
AXIAL = _affine([0, -1.5, 0], [-2, 0, 0], [0, 0, 6], [11, 22, 33])
SAGITTAL = _affine([0, 0, -1.5], [0, -2, 0], [6, 0, 0], [-40, 30, 70])
CORONAL = _affine([0, 0, -1.5], [-2, 0, 0], [0, 6, 0], [12, -34, 56])
PLACES = {
    "axial": AXIAL,
    "sagittal": SAGITTAL,
    "sagittal, from the right": SAGITTAL * [1, 1, -1, 1],
    "coronal": CORONAL,
    "oblique": _turned(_turned(AXIAL, 0.3, 0), 0.4, 2),
    "oblique, from the head": _turned(_turned(AXIAL * [1, 1, -1, 1], 0.3, 0), 0.4, 1),
}
"""Affines from (y, x, slice)."""


def of_place(points: np.ndarray) -> np.ndarray:
    """The value at points ``(..., 3)`` in mm, another in every direction."""
    return 500 + points @ [1.0, 0.5, 0.25]


def images(affine: np.ndarray) -> np.ndarray:
    """``(slices, ny, nx)`` float64 of a scan at that place."""
    slices, y, x = np.indices(SHAPE)
    ones = np.ones(SHAPE)
    return of_place((np.stack([y, x, slices, ones], axis=-1) @ affine.T)[..., :3])


def assert_in_place(volume: np.ndarray, affine: np.ndarray, tolerance: float = 1e-3) -> None:
    """Every voxel of a volume has the value of its place by the affine from its indices."""
    points = np.stack([*np.indices(volume.shape), np.ones(volume.shape)], axis=-1) @ affine.T
    assert np.abs(volume - of_place(points[..., :3])).max() < tolerance
