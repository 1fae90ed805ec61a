"""BART ``.cfl`` + ``.hdr`` (https://mrirecon.github.io/bart): complex64 in Fortran order.

BART's dimensions are 0 readout, 1 phase encode, 2 second phase encode (partition), 3 coil,
4 coil-map set, 5 echo, 10 and 11 time, 13 slice and 14 average. A 2-D scan has its readout in
dimension 0 and dimension 2 of length 1; a slice of a 3-D scan has dimension 0 of length 1 and its
two encoded axes in 1 and 2. So ``(batch, coils, ny, nx)`` is BART's (13, 3, 0, 1), or (13, 3, 1, 2)
in the second case. A 3-D scan has all three encoded axes; its slices lie along the readout.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import check_input, written_beside
from ctxrecon.io._arrays import (
    SliceChoice,
    build_scan,
    mean_of_measured,
    pick_slices,
    read_slices,
    slices_along_readout,
)
from ctxrecon.io._choice import Choice, nth
from ctxrecon.io._reader import Layout
from ctxrecon.io._writing import check_single_precision
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

_FIRST = Choice()
_NUM_DIMS = 16
_COIL, _MAPS, _SLICE, _AVERAGE = 3, 4, 13, 14
_NAMES = ("READ", "PHS1", "PHS2", "COIL", "MAPS", "TE", "COEFF", "COEFF2") + (
    "ITER",
    "CSHIFT",
    "TIME",
    "TIME2",
    "LEVEL",
    "SLICE",
    "AVG",
    "BATCH",
)
_CHOICES = {"contrast": 5, "repetition": 10, "phase": 11, "average": _AVERAGE}


def is_bart(path: Path) -> bool:
    """Return whether a path ends in ``.cfl`` or ``.hdr``, or is the common stem of both files."""
    if path.suffix.lower() in {".cfl", ".hdr"}:
        return True
    return not path.exists() and data_file(path).exists() and header_file(path).exists()


def data_file(path: Path) -> Path:
    """Return the ``.cfl`` file of a BART path with or without extension."""
    stem = path.with_suffix("") if path.suffix.lower() in {".cfl", ".hdr"} else path
    return stem.with_name(stem.name + ".cfl")


def header_file(path: Path) -> Path:
    """Return the ``.hdr`` file of a BART path with or without extension."""
    return data_file(path).with_suffix(".hdr")


def read_cfl(path: Path) -> np.ndarray:
    """Memory-map the array of a ``.cfl`` file, with BART's 16 dimensions, read-only."""
    header = header_file(path)
    if not header.exists():
        raise InputError(f"{path} has no header: put {header.name} next to it")
    check_input(header)
    if header.stat().st_size > 2**20:
        raise InputError(f"{header} is too large for a BART header: it is another kind of file")
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
            f"{path} is truncated or does not match its header: sizes {dims} require {expected} "
            f"bytes, the file has {found}"
        )
    return np.memmap(path, dtype="<c8", mode="r", shape=tuple(dims), order="F")


def _chosen(path: Path, array: np.ndarray, choice: Choice) -> np.ndarray:
    """Select one echo, frame and so on from an array; all averages are kept unless one is set."""
    for name, dim in _CHOICES.items():
        number, count = getattr(choice, name), array.shape[dim]
        if number is None:
            continue
        index = nth(path, np.arange(count), number, name)
        if count > 1:
            logger.info("%s: %s %d (of 0 to %d) is read", path, name, index, count - 1)
        array = array[(slice(None),) * dim + (slice(index, index + 1),)]
    return array


def _is_volume(array: np.ndarray) -> bool:
    """Return whether there are three encoded axes."""
    return min(array.shape[:3]) > 1


def _to_batch(path: Path, array: np.ndarray, ignored: tuple[int, ...] = ()) -> np.ndarray:
    """Convert BART's 16 dimensions to a memory-mapped view ``(batch, coils, ny, nx)``.

    The batch of a 3-D scan consists of the positions along its dimension 0.
    """
    volume = _is_volume(array)
    plane = (0, 1) if array.shape[2] == 1 else (1, 2)
    kept = {*plane, _COIL, 0 if volume else _SLICE, *ignored}
    extra = {f"{_NAMES[d]} ({d})": n for d, n in enumerate(array.shape) if n > 1 and d not in kept}
    if extra:
        slabs = ", with one slab of 3-D data" if volume else ""
        raise InputError(
            f"{path}: expected encoded dimensions, coils (3) and slices (13){slabs}, got the sizes "
            f"{extra} in further BART dimensions: select one entry of each with 'bart slice'"
        )
    index: list[Any] = [0] * _NUM_DIMS
    for dim in (0, 1, 2, _COIL, _SLICE):
        index[dim] = slice(None)
    axes = (0, 3, 1, 2) if volume else (4, 3, *plane)
    batch = array[tuple(index)].transpose(*axes, *({0, 1, 2, 3, 4} - set(axes)))[..., 0]
    if min(batch.shape[-2:]) < 2:
        raise InputError(f"{path}: expected a 2-D k-space, got BART sizes {array.shape}")
    return batch


def bart_shape(path: Path, choice: Choice = _FIRST) -> Layout:
    """Return (slices, coils, ny, nx), dtype, and the numbers of echoes and frames."""
    array = read_cfl(path)
    one = array[(slice(None),) * _AVERAGE + (slice(1),)]
    slices, coils, ny, nx = _to_batch(path, _chosen(path, one, replace(choice, average=0))).shape
    stated: dict[str, Any] = {"is_3d": _is_volume(array)}
    stated |= {
        name + "s": array.shape[_CHOICES[name]]
        for name in ("contrast", "repetition")
        if array.shape[_CHOICES[name]] > 1
    }
    return (slices, coils, ny, nx), np.dtype(np.complex64), stated


def read_bart(path: Path, slices: SliceChoice = None, choice: Choice = _FIRST) -> Scan:
    """Read the k-space of a ``.cfl`` file, in the conventions of BART's own tools.

    Each sample is averaged over the averages in which it was measured. The readout of a 3-D scan,
    which must be fully sampled, is transformed to the image domain, where its pixels are the
    slices.

    Args:
        path: The ``.cfl`` file.
        slices: Slices to read.
        choice: Echo (dimension 5), frame (10 as repetition, 11 as phase) and average (14).
    """
    array = _chosen(path, read_cfl(path), choice)
    averages = [
        _to_batch(path, array[(slice(None),) * _AVERAGE + (slice(n, n + 1),)])
        for n in range(array.shape[_AVERAGE])
    ]
    chosen = pick_slices(path, slices, len(averages[0]))
    if not _is_volume(array):
        parts = [read_slices(batch, chosen) for batch in averages]
        return build_scan(path, parts[0] if len(parts) == 1 else mean_of_measured(np.stack(parts)))
    volume = mean_of_measured(np.stack(averages)) if len(averages) > 1 else averages[0]
    logger.info("%s: the slices of this 3-D scan lie along its readout", path)
    volume = volume.transpose(1, 0, 2, 3)
    return build_scan(path, slices_along_readout(path, volume, volume.shape[1], chosen))


def read_maps(path: Path) -> np.ndarray:
    """Read coil maps ``(slices, coils, ny, nx)``; of several sets (soft SENSE) only the first."""
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
