"""BART ``.cfl`` + ``.hdr``: https://mrirecon.github.io/bart, complex64 in Fortran order.

BART's dimensions are 0 readout, 1 phase encode, 2 second phase encode (partition), 3 coil,
4 coil-map set and 13 slice. A 2-D scan has its readout in dimension 0 and dimension 2 of length 1;
a slice of a 3-D scan has dimension 0 of length 1 and its two encoded axes in 1 and 2. So
``(batch, coils, ny, nx)`` is BART's (13, 3, 0, 1), or (13, 3, 1, 2) in the second case.
"""

from __future__ import annotations

import logging
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import check_input, written_beside
from ctxrecon.io._arrays import (
    SliceChoice,
    build_scan,
    check_single_precision,
    pick_slices,
    read_slices,
)
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

_NUM_DIMS = 16
_COIL, _MAPS, _SLICE = 3, 4, 13


def is_bart(path: Path) -> bool:
    """Whether the name is ``.cfl`` or ``.hdr``, or BART's way of naming both by their stem."""
    if path.suffix.lower() in {".cfl", ".hdr"}:
        return True
    return not path.exists() and data_file(path).exists() and header_file(path).exists()


def data_file(path: Path) -> Path:
    """The ``.cfl`` file of a BART name with or without extension."""
    stem = path.with_suffix("") if path.suffix.lower() in {".cfl", ".hdr"} else path
    return stem.with_name(stem.name + ".cfl")


def header_file(path: Path) -> Path:
    """The ``.hdr`` file of a BART name with or without extension."""
    return data_file(path).with_suffix(".hdr")


def read_cfl(path: Path) -> np.ndarray:
    """The array of a ``.cfl`` file with BART's 16 dimensions, memory-mapped read-only."""
    header = header_file(path)
    if not header.exists():
        raise InputError(f"{path} has no header: put {header.name} beside it")
    check_input(header)
    if header.stat().st_size > 2**20:
        raise InputError(f"{header} is too big for a BART header: it is another kind of file")
    lines = header.read_text(encoding="utf-8", errors="replace").splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip().lower() == "# dimensions"]
    if not starts or starts[0] + 1 >= len(lines):
        raise InputError(f"{header}: expected a line '# Dimensions' and the sizes below it")
    words = lines[starts[0] + 1].split()
    if not words or not all(w.isascii() and w.isdigit() and 0 < len(w) < 10 for w in words):
        raise InputError(f"{header}: expected whole numbers as sizes, got {' '.join(words)[:60]!r}")
    dims = [int(word) for word in words]
    if min(dims) < 1 or prod(dims[_NUM_DIMS:]) != 1:
        raise InputError(f"{header}: expected at most 16 sizes of 1 or more, got {dims[:20]}")
    dims = (dims + [1] * _NUM_DIMS)[:_NUM_DIMS]
    expected, found = 8 * prod(dims), path.stat().st_size
    if expected != found:
        raise InputError(
            f"{path} is truncated or does not belong to its header: sizes {dims} need {expected} "
            f"bytes, {found} are there"
        )
    return np.memmap(path, dtype="<c8", mode="r", shape=tuple(dims), order="F")


def _to_batch(path: Path, array: np.ndarray, ignored: tuple[int, ...] = ()) -> np.ndarray:
    """16 BART dimensions to ``(batch, coils, ny, nx)``, still memory-mapped."""
    plane = (0, 1) if array.shape[2] == 1 else (1, 2)
    kept = {*plane, _COIL, _SLICE, *ignored}
    extra = {d: n for d, n in enumerate(array.shape) if n > 1 and d not in kept}
    if extra:
        raise InputError(
            f"{path}: expected two encoded dimensions, coils (3) and slices (13), got the sizes "
            f"{extra} in further BART dimensions: take one of each with 'bart slice'"
        )
    index: list[Any] = [0] * _NUM_DIMS
    for dim in (*plane, _COIL, _SLICE):
        index[dim] = slice(None)
    batch = array[tuple(index)].transpose(3, 2, 0, 1)
    if min(batch.shape[-2:]) < 2:
        raise InputError(f"{path}: expected a 2-D k-space, got BART sizes {array.shape}")
    return batch


def bart_shape(path: Path) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """(slices, coils, ny, nx) and dtype of the k-space in a ``.cfl`` file."""
    slices, coils, ny, nx = _to_batch(path, read_cfl(path)).shape
    return (slices, coils, ny, nx), np.dtype(np.complex64), {}


def read_bart(path: Path, slices: SliceChoice = None) -> Scan:
    """Read the k-space of a ``.cfl`` file, as BART's own tools measure and transform it."""
    batch = _to_batch(path, read_cfl(path))
    return build_scan(path, read_slices(batch, pick_slices(path, slices, len(batch))))


def read_maps(path: Path) -> np.ndarray:
    """Coil maps ``(slices, coils, ny, nx)``; the first of several sets (soft SENSE)."""
    array = read_cfl(path)
    if array.shape[_MAPS] > 1:
        logger.info("%s: the first of %d sets of coil maps is used", path, array.shape[_MAPS])
    return _to_batch(path, array, ignored=(_MAPS,))


def write_images(path: Path, images: np.ndarray) -> tuple[Path, ...]:
    """Write ``(batch, ny, nx)`` images to dimensions (13, 0, 1) of a ``.cfl`` and its ``.hdr``."""
    check_single_precision(path, images)
    batch, ny, nx = images.shape
    dims = [ny, nx] + [1] * (_NUM_DIMS - 2)
    dims[_SLICE] = batch
    values = np.asarray(images, dtype="<c8").transpose(1, 2, 0)
    header = header_file(path)
    with written_beside(header) as new_header, written_beside(path) as new_data:
        new_data.write_bytes(values.tobytes(order="F"))
        new_header.write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n", encoding="ascii")
    return (path, header)
