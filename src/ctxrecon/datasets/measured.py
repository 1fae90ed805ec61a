"""Fully sampled single-channel k-space, whose images have measured phase and noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ctxrecon.datasets.collection import Note, note_objects, read_note
from ctxrecon.datasets.people import People
from ctxrecon.datasets.source import LeftOut, Slice, VolumeSource, check_size
from ctxrecon.errors import InputError
from ctxrecon.files import check_input
from ctxrecon.fourier import ifft2c
from ctxrecon.npz import Archive
from ctxrecon.operators import Crop

_TURNS = ("none", "rot180")


@dataclass(frozen=True)
class _Place:
    """Location of the k-space of a note, and the rotation of its image."""

    note: Note
    array: str
    index: int
    turn: str


class MeasuredSource(VolumeSource):
    """Source of complex images from measured single-channel k-space.

    A volume is an ``.npz`` file next to a ``.json`` file of the same name. Each array of the
    archive is real with shape ``(slices, ky, kx, 2)``, real and imaginary part, with the zero
    frequency at ``n // 2`` and square pixels. The JSON file is a list of objects with ``array`` and
    ``index``, which identify the k-space, ``flip`` (``"none"``, or ``"rot180"`` for an image upside
    down), and the entries of :func:`ctxrecon.datasets.collection.read_note`.

    Args:
        size: Image size ``(ny, nx)``; k-space is zero-padded, which preserves the field of view.
        people: Selection of people (default: everybody).

    Example:
        >>> from ctxrecon.datasets import MeasuredSource
        >>> MeasuredSource(size=(256, 256)).suffixes
        ('.npz',)
    """

    kind = "measured"
    suffixes = (".npz",)

    def __init__(self, *, size: tuple[int, int] = (256, 256), people: People | None = None) -> None:
        self.size = check_size(size)
        self.people = People() if people is None else people

    def settings(self) -> dict[str, Any]:
        """Return size and selection of people."""
        return {"size": list(self.size), **self.people.settings()}

    def files(self, path: Path) -> list[Path]:
        """Return the k-space file and its notes."""
        return [check_input(path), check_input(path.with_suffix(".json"))]

    def slices(self, path: Path) -> Iterator[Slice | LeftOut | None]:
        """Yield the complex images in the order of the notes."""
        places = _places(path.with_suffix(".json"))
        with Archive(path) as archive:
            for place in places:
                note = place.note
                if note.subject not in self.people:
                    yield LeftOut(note.subject)
                    continue
                kspace = _kspace(path, archive, place, self.size)
                image = _image(kspace, self.size, place.turn)
                signal = bool(np.abs(image).max() > 0)
                yield (
                    Slice(image, note.metadata, note.subject, note.weight, note.origin)
                    if signal
                    else None
                )


def _places(path: Path) -> list[_Place]:
    found = []
    for where, item in note_objects(path):
        note = read_note(where, item, path)
        array, index, turn = item.get("array"), item.get("index"), item.get("flip", "none")
        if not isinstance(array, str) or isinstance(index, bool) or not isinstance(index, int):
            raise InputError(f"{where}: expected 'array' as a name and 'index' as a whole number")
        if turn not in _TURNS:
            raise InputError(
                f"{where}: expected 'flip' as one of {', '.join(_TURNS)}, got {turn!r:.40}"
            )
        found.append(_Place(note, array, index, turn))
    return found


def _kspace(path: Path, archive: Archive, place: _Place, size: tuple[int, int]) -> NDArray[Any]:
    """Read ``(ky, kx, 2)``, validated before it is loaded."""
    if place.array not in archive.names:
        raise InputError(f"{path}: the notes name an array {place.array!r:.40} that does not exist")
    shape, dtype, _ = archive.layout(place.array)
    if len(shape) != 4 or shape[-1] != 2 or dtype.kind != "f":
        raise InputError(
            f"{path}: expected {place.array} as (slices, ky, kx, 2) of real numbers, got {dtype} "
            f"of shape {shape}"
        )
    if not 0 <= place.index < shape[0]:
        raise InputError(
            f"{path}: the notes name k-space {place.index} of {place.array}, which has {shape[0]}"
        )
    if shape[1] > size[0] or shape[2] > size[1]:
        raise InputError(
            f"{path}: {place.array} of {shape[1]} × {shape[2]} does not fit into images of "
            f"{size[0]} × {size[1]}: choose a larger --size"
        )
    entries = archive.get(place.array, [place.index])
    assert entries is not None
    kspace = entries[0].astype(np.float32)
    if not np.isfinite(kspace).all():
        raise InputError(f"{path}: k-space {place.index} of {place.array} is not finite")
    return kspace


def _image(kspace: NDArray[Any], size: tuple[int, int], turn: str) -> NDArray[np.complex64]:
    """Return the image ``(ny, nx)`` in upright orientation."""
    measured = torch.view_as_complex(torch.from_numpy(np.ascontiguousarray(kspace)))
    full = Crop((1, *size), (kspace.shape[0], kspace.shape[1])).adjoint(measured[None])
    image = ifft2c(full)[0]
    if turn == "rot180":
        # Keep pixel n // 2 in place.
        image = image.flip(-2, -1).roll([1 - n % 2 for n in size], (-2, -1))
    return image.numpy()
