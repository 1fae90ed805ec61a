"""Complex arrays as stored in files: complex, {real, imag}, or with an axis of two parts.

A real array has real and imaginary parts along its first or its last axis, if exactly one of the
two has length 2.
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
    """View of an array on disk or in memory whose items along the first axis are complex.

    Args:
        path: File name for messages.
        stored: HDF5 dataset, memory map or array.
        name: Name of the array, for messages.

    Attributes:
        shape: Shape without the axis of real and imaginary parts.
        dtype: Complex data type.

    Raises:
        InputError: If the array is not complex in any of the supported ways.
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
                raise InputError(f"{path}: expected numeric real and imaginary {name}, got {dtype}")
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
        """Return items by an index, a slice, or a tuple of them for the leading axes."""
        indices = index if isinstance(index, tuple) else (index,)
        if self._names is not None:
            values = np.asarray(self._stored[indices])
            return values[self._names[0]] + np.complex64(1j) * values[self._names[1]]
        if self._axis is None:
            return np.asarray(self._stored[indices])
        if self._axis == 0:
            places = [(part, *indices) for part in (0, 1)]
            real, imag = (np.asarray(self._stored[place]) for place in places)
        else:
            values = np.asarray(self._stored[indices])
            real, imag = values[..., 0], values[..., 1]
        refuse_magnitudes(self._path, self._name, real, imag)
        return real + np.complex64(1j) * imag


def refuse_magnitudes(path: Path, name: str, *parts: np.ndarray) -> None:
    """Validate that real and imaginary parts have a sign.

    Slices of air, which are all zero, show none and are accepted.

    Raises:
        InputError: If no value is negative, although some are positive.
    """
    if any(part.any() for part in parts) and min(part.min() for part in parts) >= 0:
        raise InputError(
            f"{path}: expected real and imaginary parts in the real array {name}, got no negative "
            "values, as in magnitudes: store the k-space as complex64"
        )


def _axis_of_parts(path: Path, shape: tuple[int, ...], dtype: np.dtype, name: str) -> int:
    """Return the axis of real and imaginary parts, 0 or -1."""
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
