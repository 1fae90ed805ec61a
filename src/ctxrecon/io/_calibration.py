"""Separate calibration scans, converted for the estimation of an image's coil maps."""

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
"""Relative difference below which two fields of view are considered equal."""

_ANY_SIZE = 1 << 20


def calibration_block(
    path: Path,
    kspace: np.ndarray,
    fov: tuple[float, float],
    image_fov: tuple[float, float],
) -> np.ndarray:
    """Extract the fully sampled center of k-space on the grid of the image's field of view.

    Args:
        path: File name for messages.
        kspace: K-space of shape ``(batch, coils, ny, nx)`` with zero frequency at ``n // 2``, zero
            where not sampled.
        fov: Field of view of ``kspace`` along ``ny`` and ``nx``.
        image_fov: Field of view of the image, in the same units.

    Returns:
        K-space of shape ``(batch, coils, cy, cx)``, complex64, with zero frequency at ``n // 2``.

    Raises:
        InputError: If the center is not fully sampled, or all samples are zero.
    """
    sampled = (kspace != 0).any(axis=1)
    sampled = sampled[sampled.any(axis=(1, 2))]
    if len(sampled) == 0:
        raise InputError(f"{path}: its calibration scan contains only zeros")
    try:
        region = find_calibration_region(torch.from_numpy(sampled), max_size=(_ANY_SIZE, _ANY_SIZE))
    except InputError as error:
        raise InputError(f"{path}: its calibration scan has no sampled center: {error}") from error
    parts = []
    for part, size in zip(region, kspace.shape[2:], strict=True):
        before, after = size // 2 - part.start, part.stop - size // 2
        width = min(2 * before + 1, 2 * after)  # so that zero frequency is at width // 2
        parts.append(slice(size // 2 - width // 2, size // 2 - width // 2 + width))
    block = kspace[:, :, parts[0], parts[1]]
    for axis, (own, wanted) in enumerate(zip(fov, image_fov, strict=True)):
        if abs(own / wanted - 1) > SAME_FIELD_OF_VIEW:
            block = _regridded(block, axis + 2, own / wanted, crop=axis == 0)
    return np.ascontiguousarray(block, np.complex64)


def calibration_of(path: Path, other: Scan, scan: Scan) -> Tensor:
    """Extract the center of another scan for the coil maps of a scan.

    Args:
        path: File name of the other scan, for messages.
        other: Calibration scan.
        scan: Scan of the image. If either scan does not state its field of view, they are assumed
            to be equal.

    Returns:
        K-space of shape ``(batch, coils, cy, cx)``, complex64.

    Raises:
        InputError: If the center is not fully sampled, or the calibration scan is non-Cartesian.
    """
    if other.trajectory is not None:
        raise InputError(f"{path}: expected a Cartesian calibration scan, got a non-Cartesian one")
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
    """Return the scan with the calibration scan stored in its file, if there is one.

    Raises:
        InputError: If the stored calibration is not complex and finite, or does not fit the scan.
    """
    if stored is None:
        return scan
    check_complex(path, stored.dtype, "calibration")
    if not np.isfinite(stored).all():
        raise InputError(f"{path}: its calibration scan contains values that are not finite")
    try:
        return replace(scan, calibration=torch.from_numpy(stored.astype(np.complex64)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _regridded(kspace: np.ndarray, axis: int, ratio: float, *, crop: bool) -> np.ndarray:
    """Resample k-space of the same extent for a field of view that is ``1 / ratio`` as large.

    Evaluates the discrete Fourier transform of the samples' image at intermediate frequencies.

    Args:
        kspace: K-space with zero frequency at ``n // 2``.
        axis: Axis to resample.
        ratio: Ratio of the present field of view to the new one.
        crop: Whether to crop the image to the new field of view, as along the readout. Along a
            phase-encoding direction the outside aliases, as it does in the image.
    """
    size = kspace.shape[axis]
    wanted = max(round(size / ratio), 1)
    pixels = np.arange(size) - size // 2  # of the present image
    frequencies = (np.arange(wanted) - wanted // 2) * ratio / size
    transform = np.exp(-2j * np.pi * np.outer(frequencies, pixels)) / np.sqrt(size)
    if crop:
        transform *= np.abs(pixels) * ratio <= size / 2
    image = np.moveaxis(inverse_transform(kspace, axis), axis, -1)
    return np.moveaxis(image @ transform.T.astype(np.complex64), -1, axis)
