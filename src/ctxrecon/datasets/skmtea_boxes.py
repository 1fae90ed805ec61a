"""SKM-TEA findings: 3-D bounding boxes of the annotations as labels of each slice."""

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
"""Minimum confidence of a box on the scale from 0 to 5, as in ContextMRI."""

_REMEDY = "pass the folder of one version of SKM-TEA's annotations, such as annotations/v1.0.0"


@dataclass(frozen=True)
class Box:
    """Finding within half-open index ranges of a scan's array ``(x, y, z)``.

    Attributes:
        name: Name of its category, such as ``"Meniscal Tear (Myxoid)"``.
        first: Corner with the smallest indices, inclusive.
        last: Opposite corner, exclusive.
    """

    name: str
    first: tuple[float, float, float]
    last: tuple[float, float, float]

    def is_seen(self, rows: slice, columns: slice, z: int) -> bool:
        """Return whether the box reaches into the kept part of the sagittal slice ``z``."""
        kept = ((rows.start, rows.stop), (columns.start, columns.stop), (z, z + 1))
        return all(
            first < stop and start < last
            for (start, stop), first, last in zip(kept, self.first, self.last, strict=True)
        )


def read_boxes(folder: Path) -> dict[str, tuple[Box, ...]]:
    """Read the boxes of one version of SKM-TEA's annotations.

    The format resembles COCO (DATASET.md of StanfordMIMI/skm-tea): ``images`` with ``id`` and
    ``scan_id``, ``categories`` with ``id`` and ``name``, ``annotations`` with ``image_id``,
    ``category_id``, ``confidence`` from 0 to 5, and ``bbox``, the corner ``x, y, z`` and the
    extents along the superior–inferior, anterior–posterior and left–right axes of the scan's array.

    Args:
        folder: Folder with one or more of ``train.json``, ``val.json`` and ``test.json``.

    Returns:
        Scan id → boxes with a confidence of 4 or more; empty for a scan without findings.

    Raises:
        InputError: If there is no such file, or one has another layout.
    """
    found: dict[str, tuple[Box, ...]] = {}
    for path in _files(folder):
        content = read_json(path, "annotations of SKM-TEA", _REMEDY)
        try:
            found |= _boxes(content)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(
                f"{path} does not have the layout of SKM-TEA's annotations "
                f"({type(error).__name__}: {error!s:.80}): {_REMEDY}"
            ) from error
    return found


def boxes_digest(folder: Path) -> str:
    """Return the SHA-256 of the annotations, which identifies them in ``settings.json``."""
    together = hashlib.sha256()
    for path in _files(folder):
        together.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return together.hexdigest()


def _files(folder: Path) -> list[Path]:
    files = [folder / name for name in SPLITS if (folder / name).is_file()]
    if not files:
        raise InputError(f"{folder} contains none of {', '.join(SPLITS)}: {_REMEDY}")
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
