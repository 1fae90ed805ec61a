"""Findings of SKM-TEA: 3-D boxes of its annotations as words of each slice."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.files import read_json

SPLITS = ("train.json", "val.json", "test.json")
CONFIDENT = 4
"""Least confidence of a box that is told, on the scale from 0 to 5, as in ContextMRI."""

_REMEDY = "give a version's folder of SKM-TEA's annotations, such as annotations/v1.0.0"


@dataclass(frozen=True)
class Box:
    """A finding within the half-open ranges of one scan's array ``(x, y, z)``.

    Attributes:
        name: of its category, such as ``"Meniscal Tear (Myxoid)"``.
        first: corner of the smallest indices.
        last: corner beyond the largest ones.
    """

    name: str
    first: tuple[float, float, float]
    last: tuple[float, float, float]

    def is_seen(self, rows: slice, columns: slice, z: int) -> bool:
        """Whether the part of the sagittal slice ``z`` that is kept shows some of it."""
        kept = ((rows.start, rows.stop), (columns.start, columns.stop), (z, z + 1))
        return all(
            first < stop and start < last
            for (start, stop), first, last in zip(kept, self.first, self.last, strict=True)
        )


def read_boxes(folder: Path) -> dict[str, tuple[Box, ...]]:
    """Read the boxes of a version of SKM-TEA's annotations.

    The files are like COCO's (DATASET.md of StanfordMIMI/skm-tea): ``images`` with ``id`` and
    ``scan_id``, ``categories`` with ``id`` and ``name``, ``annotations`` with ``image_id``,
    ``category_id``, ``confidence`` from 0 to 5, and ``bbox``, the corner ``x, y, z`` and the
    extents along the axes superior–inferior, anterior–posterior and left–right of the scan's array.

    Args:
        folder: with one or more of ``train.json``, ``val.json`` and ``test.json``.

    Returns:
        Scan id → the boxes of a confidence of 4 or more; empty for a scan without.

    Raises:
        InputError: no such file, or one of another layout.
    """
    found: dict[str, tuple[Box, ...]] = {}
    for path in _files(folder):
        content = read_json(path, "annotations of SKM-TEA", _REMEDY)
        try:
            found |= _boxes(content)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path} has not the layout of SKM-TEA's annotations "
                f"({type(error).__name__}: {error!s:.80}): {_REMEDY}"
            ) from error
    return found


def boxes_digest(folder: Path) -> str:
    """What annotations are recognised by in ``settings.json``: the SHA-256 of their content."""
    together = hashlib.sha256()
    for path in _files(folder):
        together.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return together.hexdigest()


def _files(folder: Path) -> list[Path]:
    files = [folder / name for name in SPLITS if (folder / name).is_file()]
    if not files:
        raise InputError(f"{folder} holds none of {', '.join(SPLITS)}: {_REMEDY}")
    return files


def _boxes(content: Mapping[str, Any]) -> dict[str, tuple[Box, ...]]:
    names = {one["id"]: str(one["name"]) for one in content["categories"]}
    scans = {one["id"]: str(one["scan_id"]) for one in content["images"]}
    found: dict[str, list[Box]] = {scan: [] for scan in scans.values()}
    for one in content["annotations"]:
        x, y, z, dx, dy, dz = (float(value) for value in one["bbox"])
        if float(one["confidence"]) >= CONFIDENT:
            box = Box(names[one["category_id"]], (x, y, z), (x + dx, y + dy, z + dz))
            found[scans[one["image_id"]]].append(box)
    return {scan: tuple(boxes) for scan, boxes in found.items()}
