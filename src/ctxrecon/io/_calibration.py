"""K-space of a separate calibration scan, as the image's coil maps need it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctxrecon.coils import find_calibration_region
from ctxrecon.errors import InputError
from ctxrecon.io._arrays import check_complex
from ctxrecon.io._cartesian import inverse_transform
from ctxrecon.scan import Scan

SAME_FIELD_OF_VIEW = 0.01
"""Relative difference up to which two fields of view are the same."""

_ANY_SIZE = 1 << 20


def calibration_block(
    path: Path,
    kspace: np.ndarray,
    fov: tuple[float, float],
    image_fov: tuple[float, float],
) -> np.ndarray:
    """The fully sampled center of k-space, on the grid of the image's field of view.

    Args:
        path: the file, for messages.
        kspace: ``(batch, coils, ny, nx)``, zero frequency at ``n // 2``, zero where not sampled.
        fov: its field of view along ``ny`` and ``nx``.
        image_fov: that of the image, in the same units.

    Returns:
        ``(batch, coils, cy, cx)`` complex64, zero frequency at ``n // 2``.

    Raises:
        InputError: the center is not fully sampled, or all is zero.
    """
    sampled = (kspace != 0).any(axis=1)
    sampled = sampled[sampled.any(axis=(1, 2))]
    if len(sampled) == 0:
        raise InputError(f"{path}: its calibration scan holds only zeros")
    try:
        region = find_calibration_region(torch.from_numpy(sampled), max_size=(_ANY_SIZE, _ANY_SIZE))
    except InputError as error:
        raise InputError(f"{path}: its calibration scan has no sampled center: {error}") from error
    parts = []
    for part, size in zip(region, kspace.shape[2:], strict=True):
        before, after = size // 2 - part.start, part.stop - size // 2
        width = min(2 * before + 1, 2 * after)  # with the zero frequency at width // 2
        parts.append(slice(size // 2 - width // 2, size // 2 - width // 2 + width))
    block = kspace[:, :, parts[0], parts[1]]
    for axis, (own, wanted) in enumerate(zip(fov, image_fov, strict=True)):
        if abs(own / wanted - 1) > SAME_FIELD_OF_VIEW:
            block = _regridded(block, axis + 2, own / wanted, crop=axis == 0)
    return np.ascontiguousarray(block, np.complex64)


def calibration_of(path: Path, other: Scan, scan: Scan) -> Tensor:
    """The center of another scan, for the coil maps of a scan.

    Args:
        path: the file of the other scan, for messages.
        other: the calibration scan.
        scan: the scan of the image. Where one of the two does not state its field of view, they
            are taken to have the same.

    Raises:
        InputError: its center is not fully sampled, or it lies along a trajectory.
    """
    if other.trajectory is not None:
        raise InputError(f"{path}: expected a Cartesian calibration scan, got one of a trajectory")
    fields = []
    for each in (other, scan):
        ny, nx = each.image_shape
        size = each.voxel_size
        fields.append(None if size is None else (size[0] * ny, size[1] * nx))
    own, wanted = fields
    if own is None or wanted is None:
        own = wanted = (1.0, 1.0)
    kspace = other.kspace if other.calibration is None else other.calibration
    return torch.from_numpy(calibration_block(path, kspace.numpy(), own, wanted))


def stated_calibration(path: Path, scan: Scan, stored: np.ndarray | None) -> Scan:
    """The scan with the calibration scan that its file holds, if any.

    Raises:
        InputError: one that is not complex and finite, or does not fit the scan.
    """
    if stored is None:
        return scan
    check_complex(path, stored.dtype, "calibration")
    if not np.isfinite(stored).all():
        raise InputError(f"{path}: its calibration scan holds values that are not finite")
    try:
        return replace(scan, calibration=torch.from_numpy(stored.astype(np.complex64)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _regridded(kspace: np.ndarray, axis: int, ratio: float, *, crop: bool) -> np.ndarray:
    """K-space of the same extent sampled for a field of view that is ``1 / ratio`` as large.

    By the discrete transform of the image of the samples, at frequencies between theirs.

    Args:
        kspace: zero frequency at ``n // 2``.
        axis: of the samples.
        ratio: of the present field of view to the new one.
        crop: whether the image is cut to the new field of view, as along the readout; along a
            phase encoding what is outside wraps, as it does in the image.
    """
    size = kspace.shape[axis]
    wanted = max(round(size / ratio), 1)
    pixels = np.arange(size) - size // 2  # in pixels of the present image
    frequencies = (np.arange(wanted) - wanted // 2) * ratio / size
    transform = np.exp(-2j * np.pi * np.outer(frequencies, pixels)) / np.sqrt(size)
    if crop:
        transform *= np.abs(pixels) * ratio <= size / 2
    image = np.moveaxis(inverse_transform(kspace, axis), axis, -1)
    return np.moveaxis(image @ transform.T.astype(np.complex64), -1, axis)
