"""Slices of magnitude volumes, upright and of one size."""

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

# Voxels whose edges differ by less give slices in all three planes.
_ISOTROPIC = 1.5
# A volume with fewer slices than this part of its longest side is a stack all the same.
_THIN = 0.25
# Pixels whose edges differ by less are taken as square.
_SQUARE = 1.03
# More than this is a damaged header.
_MOST_ELONGATED = 10.0
# Content is what has more than this part of the bright signal.
_BRIGHT = 0.1
# Rows with less than this part of the content of the fullest one are its fringe.
_FRINGE = 0.02
# Slices with less than this part of the content of the fullest one are left out.
_LITTLE = 0.2
# Below minus this part of the bright signal, negative values are more than interpolation leaves.
_OVERSHOOT = 0.1


class Cut(NamedTuple):
    """A slice of a volume.

    Attributes:
        image: magnitude ``(ny, nx)``.
        axis: of the volume that it lies across.
        number: of the slice in its stack, from the left, back or feet; ``None`` in an isotropic
            volume, which has no stack.
        stored: its index along the stored axis of the stack; ``None`` in an isotropic volume.
    """

    image: NDArray[np.float32]
    axis: int
    number: int | None
    stored: int | None


@dataclass(frozen=True)
class Volume:
    """A magnitude volume whose axes run from left to right, back to front and feet to head.

    Attributes:
        data: ``(x, y, z)``.
        bright: its bright signal, see :func:`bright_signal`.
        spacing: edges of the voxels in mm.
        stored: the stored axis that became each axis.
        flipped: whether it runs the other way.
    """

    data: NDArray[np.float32]
    bright: float
    spacing: tuple[float, float, float]
    stored: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]


def upright(path: Path, data: NDArray[np.float32], affine: NDArray[np.float64]) -> Volume:
    """The volume along the axes of the body that are nearest to its own; nothing is resampled.

    Args:
        path: of the volume, for messages.
        data: three axes.
        affine: ``(4, 4)``, from indices to mm to the right, front and head.

    Raises:
        InputError: values that are no magnitudes, or an affine that cannot be.
    """
    if not np.isfinite(data).all():
        raise InputError(f"{path}: its values are not all finite: the file is damaged")
    bright = bright_signal(data)
    if not bright:
        raise InputError(f"{path} is empty: expected magnitudes, got no value above 0")
    if data.min() < -_OVERSHOOT * bright:
        raise InputError(
            f"{path}: expected magnitudes, got values down to {data.min():g}: leave out phase, "
            "real and imaginary parts, and images that are not of MR"
        )
    if not np.isfinite(affine).all():
        raise InputError(f"{path}: its affine is damaged, it holds values that are not finite")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    # Stored axes to those of the body, each to the one it is nearest to, best first.
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
    """Slices with content, evenly spaced, ``None`` for each that has too little.

    They lie across the thickest edge of the voxels; of an isotropic volume in all three planes.
    Axial slices have the front up, coronal ones the head, sagittal ones the head with the face to
    the left; the right of the person is on the left. Pixels become square.

    Args:
        path: of the volume, for messages.
        volume: see :func:`upright`.
        size: ``(ny, nx)`` of the images.
        max_slices: of the volume, in all planes together.

    Raises:
        InputError: pixels that cannot be.
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
            image = place(_view(volume.data.take(number, axis), axis))
            if isotropic:
                yield Cut(image, axis, None, None)
            else:
                stored = shape[axis] - 1 - number if volume.flipped[axis] else number
                yield Cut(image, axis, number, stored)


def _view(plane: NDArray[Any], axis: int) -> NDArray[Any]:
    """The plane across an axis as an image: rows from the front or head, columns alike."""
    return plane[::-1, ::-1].T


def _placed(
    path: Path,
    content: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    axis: int,
    size: tuple[int, int],
) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """What brings the slices across an axis to the size, all of them in the same way."""
    columns, rows = (spacing[other] for other in range(3) if other != axis)
    if max(columns, rows) > _MOST_ELONGATED * min(columns, rows):
        raise InputError(
            f"{path}: its pixels are {rows:g} × {columns:g} mm, which no image has: its header is "
            "damaged"
        )
    return Frame.around(_view(content.sum(axis=axis), axis), size, (rows, columns)).apply


@dataclass(frozen=True)
class Frame:
    """How images of a shape are brought to a size.

    Attributes:
        sampled: shape that they are sampled anew at, by their k-space; their own for none.
        starts: first row and column that is kept, negative where zeros are put before them.
        size: ``(ny, nx)`` that is kept.
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
        """The frame around content; where it does not fit, everything is made smaller.

        Args:
            content: ``(ny, nx)``, how much there is at each pixel, 0 in the background.
            size: of the images to make.
            spacing: edges of the pixels, which become square.
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
        """The magnitude image of the size."""
        image = np.asarray(image, np.float32)
        if image.shape != self.sampled:
            image = sample_anew(image, self.sampled)
        made = np.zeros(self.size, np.float32)
        _copy(image, made, self.starts)
        return made


def sample_anew(image: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The magnitude image at another matrix size: k-space is cropped, or padded with zeros."""
    kspace = fft2c(torch.from_numpy(np.array(image, np.complex64))).numpy()
    made = np.zeros(shape, np.complex64)
    starts = [old // 2 - new // 2 for old, new in zip(image.shape, shape, strict=True)]
    _copy(kspace, made, (starts[0], starts[1]))
    scale = math.sqrt(math.prod(shape) / image.size)
    return np.abs(ifft2c(torch.from_numpy(made)).numpy()) * np.float32(scale)


def _copy(old: NDArray[Any], new: NDArray[Any], starts: tuple[int, int]) -> None:
    """Fill ``new`` with ``old`` from these indices on, where there is something."""
    here, there = [], []
    for first, length, size in zip(starts, old.shape, new.shape, strict=True):
        begin, end = max(first, 0), min(first + size, length)
        there.append(slice(begin, end))
        here.append(slice(begin - first, end - first))
    new[tuple(here)] = old[tuple(there)]


def bright_pixels(image: NDArray[Any]) -> NDArray[np.bool_]:
    """Which pixels hold more than the background."""
    return image > _BRIGHT * bright_signal(image)


def bright_signal(data: NDArray[Any]) -> float:
    """99 % quantile of what is above 0; 0 where nothing is."""
    positive = data[data > 0]
    return float(np.quantile(positive, 0.99)) if positive.size else 0.0


def _box(profile: NDArray[Any]) -> slice:
    """Where a profile holds content; all of it where there is none."""
    inside = np.flatnonzero(profile > _FRINGE * profile.max())
    if not len(inside):
        return slice(0, len(profile))
    return slice(int(inside[0]), int(inside[-1]) + 1)


def _shown(spacing: NDArray[np.float64]) -> str:
    return " × ".join(f"{edge:g}" for edge in spacing)
