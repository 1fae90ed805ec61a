"""Slices of magnitude volumes in standard orientation and of one size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c

# Voxels are isotropic, and sliced in all three planes, if their edges differ by less.
_ISOTROPIC = 1.5
# A volume with fewer slices than this share of its longest side is a stack in any case.
_THIN = 0.25
# Pixels count as square if their edges differ by less.
_SQUARE = 1.03
# A larger ratio of pixel edges indicates a damaged header.
_MOST_ELONGATED = 10.0
# Pixels above this share of the bright signal are content.
_BRIGHT = 0.1
# Rows with less than this share of the content of the fullest row are outside the object.
_FRINGE = 0.02
# Slices with less than this share of the content of the fullest slice are skipped.
_LITTLE = 0.2
# Negative values beyond this share of the bright signal are not due to interpolation.
_OVERSHOOT = 0.1


class Cut(NamedTuple):
    """Slice of a volume.

    Attributes:
        image: Magnitude image ``(ny, nx)``.
        axis: Axis of the volume perpendicular to the slice.
        number: Slice number in its stack, from left, back or feet; ``None`` in an isotropic
            volume, which has no stack.
        stored: Index along the stored axis of the stack; ``None`` in an isotropic volume.
    """

    image: NDArray[np.float32]
    axis: int
    number: int | None
    stored: int | None


@dataclass(frozen=True)
class Volume:
    """Magnitude volume with axes from left to right, back to front and feet to head.

    Attributes:
        data: Magnitudes ``(x, y, z)``.
        bright: Bright signal of the volume, see :func:`bright_signal`.
        spacing: Edges of the voxels in mm.
        stored: Index of the stored axis that became each axis.
        flipped: ``True`` for axes stored in the opposite direction.
    """

    data: NDArray[np.float32]
    bright: float
    spacing: tuple[float, float, float]
    stored: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]


def upright(path: Path, data: NDArray[np.float32], affine: NDArray[np.float64]) -> Volume:
    """Permute and flip a volume to the nearest body axes, without resampling.

    Args:
        path: Path of the volume, for messages.
        data: Magnitudes with three axes.
        affine: Affine ``(4, 4)`` from indices to mm to the right, front and head.

    Raises:
        InputError: If the values are not magnitudes, or the affine is invalid.
    """
    if not np.isfinite(data).all():
        raise InputError(f"{path}: contains values that are not finite, the file is damaged")
    bright = bright_signal(data)
    if not bright:
        raise InputError(f"{path} is empty: expected magnitudes, got no value above 0")
    if data.min() < -_OVERSHOOT * bright:
        raise InputError(
            f"{path}: expected magnitudes, got values down to {data.min():g}: omit phase, real "
            "and imaginary parts, and images that are not MR"
        )
    if not np.isfinite(affine).all():
        raise InputError(f"{path}: its affine is damaged, it contains values that are not finite")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Assign each stored axis to the nearest body axis, best match first.
    stored, flipped = [-1] * 3, [False] * 3
    if spacing.min() > 0:
        cosines = affine[:3, :3] / spacing
        if abs(np.linalg.det(cosines)) > 0.1:
            for _ in range(3):
                left = np.abs(cosines)
                axis, along = np.unravel_index(int(left.argmax()), left.shape)
                stored[axis], flipped[axis] = int(along), bool(cosines[axis, along] < 0)
                cosines[axis, :] = cosines[:, along] = 0.0
    if -1 in stored or spacing.max() > 1e3:
        raise InputError(f"{path}: its affine is damaged, its voxels are {_shown(spacing)} mm")
    data = np.flip(data.transpose(stored), tuple(axis for axis in range(3) if flipped[axis]))
    edges = spacing[stored]
    return Volume(
        np.maximum(data, 0),
        bright,
        (float(edges[0]), float(edges[1]), float(edges[2])),
        (stored[0], stored[1], stored[2]),
        (flipped[0], flipped[1], flipped[2]),
    )


def cut(path: Path, volume: Volume, size: tuple[int, int], max_slices: int) -> Iterator[Cut | None]:
    """Yield evenly spaced slices with content, and ``None`` for each slice with too little.

    Slices are perpendicular to the longest voxel edge; isotropic volumes are sliced in all three
    planes. Axial slices have the front at the top, coronal ones the head, and sagittal ones the
    head with the face to the left. The right side of the person is on the left. Pixels become
    square.

    Args:
        path: Path of the volume, for messages.
        volume: Volume from :func:`upright`.
        size: Image size ``(ny, nx)``.
        max_slices: Maximum number of slices, of all planes together.

    Raises:
        InputError: If the pixel spacing is implausible.
    """
    shape, spacing = volume.data.shape, volume.spacing
    thin = min(shape) < _THIN * max(shape)
    isotropic = max(spacing) < _ISOTROPIC * min(spacing) and not thin
    if isotropic:
        shares = ((max_slices + 2 - place) // 3 for place in range(3))
        axes = dict(zip((2, 0, 1), shares, strict=True))
    elif max(spacing) < _ISOTROPIC * min(spacing):
        axes = {int(np.argmin(shape)): max_slices}
    else:
        axes = {int(np.argmax(spacing)): max_slices}
    content = volume.data > _BRIGHT * volume.bright
    for axis, most in axes.items():
        share = content.sum(axis=tuple(other for other in range(3) if other != axis))
        full = np.flatnonzero(share >= _LITTLE * share.max())
        for _ in range(shape[axis] - len(full)):
            yield None
        count = min(most, len(full))
        chosen = ((np.arange(count) + 0.5) * len(full) / max(count, 1)).astype(int)
        place = _placed(path, content, spacing, axis, size)
        for number in full[chosen].tolist():
            image = place(_view(volume.data.take(number, axis)))
            if isotropic:
                yield Cut(image, axis, None, None)
            else:
                stored = shape[axis] - 1 - number if volume.flipped[axis] else number
                yield Cut(image, axis, number, stored)


def _view(plane: NDArray[Any]) -> NDArray[Any]:
    """Return a plane across an axis as an image, with the front or head at the top."""
    return plane[::-1, ::-1].T


def _placed(
    path: Path,
    content: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    axis: int,
    size: tuple[int, int],
) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Return the function that brings all slices across an axis to the size."""
    columns, rows = (spacing[other] for other in range(3) if other != axis)
    if max(columns, rows) > _MOST_ELONGATED * min(columns, rows):
        raise InputError(
            f"{path}: its pixels are {rows:g} × {columns:g} mm, which is implausible: its header "
            "is damaged"
        )
    return Frame.around(_view(content.sum(axis=axis)), size, (rows, columns)).apply


@dataclass(frozen=True)
class Frame:
    """Transformation that brings images of one shape to a size.

    Attributes:
        sampled: Shape after resampling in k-space; the image's own shape for none.
        starts: First row and column that is kept, negative if zeros are inserted before them.
        size: Size ``(ny, nx)`` of the result.
    """

    sampled: tuple[int, int]
    starts: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def around(
        cls,
        content: NDArray[Any],
        size: tuple[int, int],
        spacing: tuple[float, float] = (1.0, 1.0),
    ) -> Frame:
        """Return the frame around content; if it does not fit, the image is scaled down.

        Args:
            content: Amount of content at each pixel, ``(ny, nx)``, 0 in the background.
            size: Size of the images to produce.
            spacing: Edges of the pixels, which become square.
        """
        boxes = [_box(content.sum(axis=1)), _box(content.sum(axis=0))]
        fine = min(spacing)
        edges = [edge / fine if max(spacing) > _SQUARE * fine else 1.0 for edge in spacing]
        lengths = [(box.stop - box.start) * edge for box, edge in zip(boxes, edges, strict=True)]
        scale = min(1.0, *(most / length for most, length in zip(size, lengths, strict=True)))
        sampled, starts = [], []
        for old, box, edge, new in zip(content.shape, boxes, edges, size, strict=True):
            length = max(round(old * edge * scale), 1)
            sampled.append(length)
            if length <= new:
                starts.append(length // 2 - new // 2)
                continue
            middle = (box.start + box.stop) / 2 * length / old
            starts.append(min(max(round(middle - new / 2), 0), length - new))
        return cls((sampled[0], sampled[1]), (starts[0], starts[1]), size)

    def apply(self, image: NDArray[Any]) -> NDArray[np.float32]:
        """Return the magnitude image at the frame's size."""
        image = np.asarray(image, np.float32)
        if image.shape != self.sampled:
            image = sample_anew(image, self.sampled)
        made = np.zeros(self.size, np.float32)
        _copy(image, made, self.starts)
        return made


def sample_anew(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resample a magnitude image by cropping or zero-padding its k-space."""
    kspace = fft2c(torch.from_numpy(np.array(image, np.complex64))).numpy()
    made = np.zeros(shape, np.complex64)
    starts = [old // 2 - new // 2 for old, new in zip(image.shape, shape, strict=True)]
    _copy(kspace, made, (starts[0], starts[1]))
    scale = math.sqrt(math.prod(shape) / image.size)
    return np.abs(ifft2c(torch.from_numpy(made)).numpy()) * np.float32(scale)


def _copy(old: NDArray[Any], new: NDArray[Any], starts: tuple[int, int]) -> None:
    """Copy ``old``, from the given indices on, into ``new`` where they overlap."""
    here, there = [], []
    for first, length, size in zip(starts, old.shape, new.shape, strict=True):
        begin, end = max(first, 0), min(first + size, length)
        there.append(slice(begin, end))
        here.append(slice(begin - first, end - first))
    new[tuple(here)] = old[tuple(there)]


def bright_pixels(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels that are brighter than the background, bool."""
    return image > _BRIGHT * bright_signal(image)


def bright_signal(data: NDArray[Any]) -> float:
    """Return the 99 % quantile of the positive values, or 0 if there are none."""
    positive = data[data > 0]
    return float(np.quantile(positive, 0.99)) if positive.size else 0.0


def _box(profile: NDArray[Any]) -> slice:
    """Return the range of a profile with content, or all of it if there is none."""
    inside = np.flatnonzero(profile > _FRINGE * profile.max())
    if not len(inside):
        return slice(0, len(profile))
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _shown(spacing: NDArray[np.float64]) -> str:
    return " × ".join(f"{edge:g}" for edge in spacing)
