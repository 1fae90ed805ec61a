"""MATLAB ``.mat`` files of v7.3, which is HDF5, and of v5 to v7.

In MATLAB's order of axes, k-space is ``(readout, phase encode, coil, slice, frame)``, where
trailing axes may be absent, as in the CMRxRecon challenges (Wang et al.,
doi:10.1038/s41597-024-03525-4). Their single-coil arrays, ``kspace_single_…``, have no coil axis.
HDF5 lists the axes in reverse.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion, sniff
from ctxrecon.io._arrays import SliceChoice, build_scan, pick_slices, read_slices
from ctxrecon.io._choice import Choice, nth
from ctxrecon.io._complex import ComplexArray
from ctxrecon.io._mat5 import read_variables
from ctxrecon.io._reader import Layout
from ctxrecon.io.hdf5 import hdf5_member, open_hdf5
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

_FIRST = Choice()


def matlab_shape(path: Path, choice: Choice = _FIRST) -> Layout:
    """Return (slices, coils, ny, nx), dtype, and the number of frames."""
    with _kspace(path, choice.group) as (name, array):
        frames, slices, coils, nx, ny = _layout(path, name, array.shape)
        stated = {"phases": frames} if frames > 1 else {}
        return (slices, coils, ny, nx), array.dtype, stated


def read_matlab(path: Path, slices: SliceChoice = None, choice: Choice = _FIRST) -> Scan:
    """Read the k-space of a ``.mat`` file.

    Args:
        path: The ``.mat`` file.
        slices: Slices to read.
        choice: ``group`` names the variable, if several are complex arrays, and ``phase`` is the
            frame.
    """
    with _kspace(path, choice.group) as (name, array):
        frames, count, coils, nx, ny = _layout(path, name, array.shape)
        frame = nth(path, np.arange(frames), choice.phase, "phase")
        chosen = pick_slices(path, slices, count)
        num_bytes = array.dtype.itemsize * len(chosen) * coils * nx * ny
        check_expansion(path, num_bytes, path.stat().st_size, name)
        axes = _axes(name, array.shape)
        items = _Frame(array, frame) if "frame" in axes else array
        if "slice" in axes:
            values = read_slices(items, chosen)
        else:
            values = np.asarray(items[...])
    logger.info("%s: %s has the axes %s", path, name, ", ".join(reversed(axes)))
    if frames > 1:
        logger.info("%s: phase %d (of 0 to %d) is read", path, frame, frames - 1)
    return build_scan(path, values.reshape(len(chosen), coils, nx, ny).swapaxes(-1, -2))


class _Frame:
    """One frame of an array, indexed by slices."""

    def __init__(self, array: ComplexArray, frame: int) -> None:
        self._array, self._frame = array, frame

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._array[self._frame, index]


def _axes(name: str, shape: tuple[int, ...]) -> list[str]:
    """Return the names of the axes in HDF5's order."""
    names = ["readout", "phase encode", "coil", "slice", "frame"]
    if "single" in name.lower():
        names.remove("coil")
    return names[: len(shape)][::-1]


def _layout(path: Path, name: str, shape: tuple[int, ...]) -> tuple[int, int, int, int, int]:
    """Return (frames, slices, coils, nx, ny) of an array in HDF5's order of axes."""
    axes = _axes(name, shape)
    sizes = dict(zip(axes, shape, strict=False))
    ny, nx, coils = sizes["readout"], sizes["phase encode"], sizes.get("coil", 1)
    if len(axes) < len(shape) or min(ny, nx) < 2 or coils > 2 * min(ny, nx) or 0 in shape:
        raise InputError(
            f"{path}: expected {name!r} as (readout, phase encode, coil, slice, frame) in MATLAB's "
            f"order of axes, without absent trailing axes, got {shape[::-1]}: permute it"
        )
    return sizes.get("frame", 1), sizes.get("slice", 1), coils, nx, ny


@contextmanager
def _kspace(path: Path, name: str | None) -> Iterator[tuple[str, ComplexArray]]:
    """Open the k-space; yields its name and array with axes in HDF5's order."""
    if sniff(path) == "MATLAB .mat" and not is_hdf5(path):
        yield _old(path, name)
        return
    with open_hdf5(path) as file:
        complex_arrays = {
            str(key): len(file[key].shape) for key in file if _is_complex(file, str(key))
        }
        name = _pick(path, name, complex_arrays)
        yield name, ComplexArray(path, hdf5_member(path, file, name), name)


def is_hdf5(path: Path) -> bool:
    """Return whether the file is HDF5, which starts after a block of MATLAB text."""
    with path.open("rb") as file:
        file.seek(512)
        return file.read(8) == b"\x89HDF\r\n\x1a\n"


def _is_complex(file: Any, key: str) -> bool:
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        return False
    member = file[key]
    if not isinstance(member, h5py.Dataset) or member.shape is None:
        return False
    try:
        dtype = member.dtype
    except (TypeError, ValueError):  # HDF5 types without a NumPy equivalent
        return False
    parts = {str(part).lower() for part in dtype.names or ()}
    return dtype.kind == "c" or parts == {"real", "imag"}


def _pick(path: Path, name: str | None, complex_arrays: dict[str, int]) -> str:
    """Return the named variable, or the only complex array of at least three, else two, axes."""
    if name is not None and name in complex_arrays:
        return name
    there = ", ".join(repr(key[:40]) for key in complex_arrays) or "none"
    if name is not None:
        raise InputError(
            f"{path}: expected the name of a complex array as group, got {name!r}: there is {there}"
        )
    for least in (3, 2):
        found = [key for key, ndim in complex_arrays.items() if ndim >= least]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise InputError(
        f"{path}: expected one complex array, found {there}: "
        + ("choose one by its name, with group" if complex_arrays else "save the k-space itself")
    )


def _old(path: Path, name: str | None) -> tuple[str, ComplexArray]:
    """Read the k-space of a file of v5 to v7."""
    variables = read_variables(path)
    picked = _pick(
        path, name, {key: len(one.shape) for key, one in variables.items() if one.is_complex}
    )
    return picked, ComplexArray(path, variables[picked].load(path).T, picked)
