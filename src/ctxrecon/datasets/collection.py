"""Collections of slices with notes: ``slices.npz`` next to ``slices.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.files import check_input
from ctxrecon.io._arrays import metadata_from_json
from ctxrecon.metadata import ScanMetadata
from ctxrecon.npz import Archive

ARRAYS, NOTES = "slices.npz", "slices.json"
_MOST_NOTES = 256 * 2**20
_MOST_WEIGHT = 1e6


@dataclass(frozen=True)
class Note:
    """Information about a slice.

    Attributes:
        subject: Identifier of the person.
        weight: Sampling weight.
        metadata: Metadata of the scan.
        origin: Source and license, if specified.
    """

    subject: str
    weight: float
    metadata: ScanMetadata
    origin: str | None


def load_collection(path: Path) -> tuple[NDArray[np.uint8], list[Note]]:
    """Load the stored images ``(slices, ny, nx)`` and a note for each.

    Args:
        path: ``slices.npz`` with the uint8 array ``images``, the square root of the magnitude.
            ``slices.json`` next to it is a list of objects with ``subject``, ``weight``
            (default: 1), ``metadata`` in the vocabulary of :class:`ScanMetadata`, and ``source``.

    Raises:
        InputError: If a file is damaged, or the two files do not match.
    """
    notes = read_notes(path.with_name(NOTES))
    with Archive(path) as archive:
        if "images" not in archive.names:
            found = ", ".join(sorted(archive.names)[:8]) or "nothing"
            raise InputError(f"{path}: expected an array named 'images', found {found}")
        shape, dtype, _ = archive.layout("images")
        if dtype != np.uint8 or len(shape) != 3 or 0 in shape:
            raise InputError(
                f"{path}: expected 'images' as (slices, ny, nx) of uint8, got {dtype} of shape "
                f"{shape}"
            )
        if shape[0] != len(notes):
            raise InputError(
                f"{path} contains {shape[0]} slices, {NOTES} next to it {len(notes)} notes: "
                "expected one each"
            )
        images = archive.get("images")
    assert images is not None
    return images, notes


def magnitude(stored: NDArray[np.uint8], index: int) -> NDArray[np.float32]:
    """Convert a stored image to a magnitude image, from 0 to about 1.

    Uniform noise of half a level replaces the rounding error.

    Args:
        stored: Square root of the magnitude, with 255 for the largest value.
        index: Index of the slice, which seeds the noise.
    """
    rng = np.random.default_rng(index)
    levels = stored + rng.uniform(-0.5, 0.5, stored.shape).astype(np.float32)
    return np.square(np.maximum(levels, 0) / np.float32(255))


def read_notes(path: Path) -> list[Note]:
    """Read the notes of a collection, one per slice.

    Raises:
        InputError: If the file is damaged, or a note is incomplete.
    """
    return [read_note(where, item, path) for where, item in note_objects(path)]


def note_objects(path: Path) -> list[tuple[str, Any]]:
    """Read the raw notes of a file, each with its location for messages.

    Raises:
        InputError: If the file is not a JSON list, or too large.
    """
    check_input(path)
    if path.stat().st_size > _MOST_NOTES:
        raise InputError(f"{path} is larger than {_MOST_NOTES} bytes: too large for slice notes")
    try:
        items = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged, not valid JSON ({error!s:.80})") from error
    if not isinstance(items, list):
        raise InputError(f"{path}: expected a list of notes, one per slice")
    return [(f"{path}, note {number}", item) for number, item in enumerate(items)]


def read_note(where: str, item: Any, path: Path) -> Note:
    """Parse a note: ``subject``, ``weight`` (default: 1), ``metadata`` and ``source``.

    Raises:
        InputError: If the object is invalid.
    """
    subject = item.get("subject") if isinstance(item, dict) else None
    if not isinstance(subject, str) or not subject.strip():
        raise InputError(f"{where}: expected an object with the person as 'subject'")
    weight = item.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise InputError(f"{where}: expected 'weight' as a number, got {weight!r:.40}")
    if not 0 < weight <= _MOST_WEIGHT:
        raise InputError(
            f"{where}: expected 'weight' above 0 and at most {_MOST_WEIGHT:g}, got {weight!r:.40}"
        )
    source = item.get("source")
    if source is not None and not isinstance(source, str):
        raise InputError(f"{where}: expected 'source' as text, got {source!r:.40}")
    text = json.dumps([item.get("metadata", {})])
    return Note(subject.strip(), float(weight), metadata_from_json(path, text)[0], source)
