"""Complex arrays as files store them: complex, {real, imag}, or with an axis of real and imaginary.

An array of real numbers is one of real and imaginary parts where its first or its last axis, and
not the other, has length 2.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)

_FIELDS = ({"real", "imag"}, {"r", "i"})


class ComplexArray:
    """An array on disk or in memory whose items along the first axis are complex.

    Args:
        path: the file, for messages.
        stored: HDF5 dataset, memory map or array.
        name: of the array, for messages.

    Attributes:
        shape: without the axis of real and imaginary parts.
        dtype: complex.

    Raises:
        InputError: an array that is not complex in any of these ways.
    """

    def __init__(self, path: Path, stored: Any, name: str = "k-space") -> None:
        self._path, self._stored, self._name = path, stored, name
        self._axis: int | None = None
        dtype, shape = stored.dtype, tuple(stored.shape)
        self._names: tuple[str, str] | None = None
        if dtype.names is not None and set(map(str.lower, dtype.names)) in _FIELDS:
            real, imag = sorted(dtype.names, key=lambda field: field[0].lower() == "i")
            self._names = real, imag
            kinds = dtype[real], dtype[imag]
            if any(kind.kind not in "fiu" or kind.shape for kind in kinds):
                raise InputError(f"{path}: expected numbers as parts of {name}, got {dtype}")
            dtype = np.result_type(*kinds, np.complex64)
        elif dtype.kind in "fiu":
            self._axis = _axis_of_parts(path, shape, dtype, name)
            shape = shape[1:] if self._axis == 0 else shape[:-1]
            dtype = np.result_type(dtype, np.complex64)
        elif dtype.kind != "c":
            raise InputError(f"{path}: expected complex {name}, got {dtype}: store it as complex64")
        self.shape, self.dtype = shape, dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Items by an index, a slice or a tuple of them, for the axes from the first on."""
        indices = index if isinstance(index, tuple) else (index,)
        if self._names is not None:
            values = np.asarray(self._stored[indices])
            return values[self._names[0]] + np.complex64(1j) * values[self._names[1]]
        if self._axis is None:
            return np.asarray(self._stored[indices])
        if self._axis == 0:
            real, imag = (np.asarray(self._stored[(part, *indices)]) for part in (0, 1))
        else:
            values = np.asarray(self._stored[indices])
            real, imag = values[..., 0], values[..., 1]
        if real.size and min(real.min(), imag.min()) >= 0:
            raise InputError(
                f"{self._path}: expected real and imaginary parts in {self._name} of real numbers, "
                "got none below 0, as of magnitudes: store the k-space as complex64"
            )
        return real + np.complex64(1j) * imag


def _axis_of_parts(path: Path, shape: tuple[int, ...], dtype: np.dtype, name: str) -> int:
    """0 or -1, the axis of real and imaginary parts."""
    there = [axis for axis in (0, -1) if len(shape) > 2 and shape[axis] == 2]
    if len(there) != 1:
        found = "both are" if there else "neither is"
        raise InputError(
            f"{path}: expected complex {name}, or real and imaginary parts along a first or last "
            f"axis of 2, got {dtype} of shape {shape}, of which {found}: store it as complex64"
        )
    axis = there[0]
    where = "last" if axis else "first"
    logger.info("%s: real and imaginary parts of %s lie along its %s axis", path, name, where)
    return axis
