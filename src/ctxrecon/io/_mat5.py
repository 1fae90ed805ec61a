"""Numeric arrays in MATLAB files of version 5 to 7 (MathWorks, "MAT-File Format").

SciPy also reads these files, but crashes the process on some damaged ones, so it is unsuitable for
untrusted files. Text, cells, structures and sparse arrays are skipped.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x0800
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_NUMBERS[13] = "u8"
_NUMERIC_CLASSES = range(6, 16)  # double, single, and whole numbers of 8 to 64 bits
_MOST_AXES = 32


@dataclass(frozen=True)
class Variable:
    """Numeric array in a file.

    Attributes:
        name: Name of the variable.
        shape: Shape in MATLAB's order of axes.
        is_complex: Whether there are imaginary parts.
        order: Byte order, ``"<"`` or ``">"``.
        parts: Encoded elements of the real and imaginary parts.
    """

    name: str
    shape: tuple[int, ...]
    is_complex: bool
    order: str
    parts: bytes

    def load(self, path: Path) -> np.ndarray:
        """Decode the array, real or complex.

        Raises:
            InputError: If the number of values does not match the shape.
        """
        values = []
        position = 0
        for _ in range(1 + self.is_complex):
            kind, data, position = _element(path, self.parts, position, self.order)
            if kind not in _NUMBERS:
                raise _damaged(path, f"{self.name!r} holds elements of type {kind}")
            numbers = np.dtype(self.order + _NUMBERS[kind])
            if len(data) != prod(self.shape) * numbers.itemsize:
                raise _damaged(
                    path, f"{self.name!r} of shape {self.shape} holds {len(data)} bytes of numbers"
                )
            values.append(np.frombuffer(data, numbers).reshape(self.shape, order="F"))
        if not self.is_complex:
            return values[0]
        return values[0] + np.complex64(1j) * values[1]


def read_variables(path: Path) -> dict[str, Variable]:
    """Read the numeric arrays of a file, by name.

    Raises:
        InputError: If the file is damaged, or arrays would expand implausibly.
    """
    raw = path.read_bytes()
    order = {b"IM": "<", b"MI": ">"}.get(raw[126:128])
    if order is None:
        raise _damaged(path, "its header does not state the byte order")
    found = {}
    position = _HEADER
    while position + 8 <= len(raw):
        kind, data, position = _element(path, raw, position, order, aligned=False)
        if kind == _COMPRESSED:
            kind, data, _ = _element(path, _inflated(path, data, order), 0, order)
        if kind == _MATRIX:
            variable = _variable(path, data, order)
            if variable is not None:
                found[variable.name] = variable
        elif kind not in _NUMBERS:
            raise _damaged(path, f"an element has the type {kind}")
    return found


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} is truncated or damaged: {what}: save it again, or copy it again")


def _element(
    path: Path, raw: bytes, position: int, order: str, *, aligned: bool = True
) -> tuple[int, bytes, int]:
    """Return type and data of the element at a position, and the position of the next one.

    Nested elements start at multiples of 8 bytes, and small ones are packed into 8 bytes.
    """
    if position + 8 > len(raw):
        raise _damaged(path, f"it ends inside the tag of an element at byte {position}")
    kind, size = struct.unpack_from(order + "II", raw, position)
    start = position + 8
    if kind >> 16:  # packed
        kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
        stop = position + 8
        if size > 4:
            raise _damaged(path, f"a packed element at byte {position} states {size} bytes")
    else:
        stop = start + (size + 7) // 8 * 8 if aligned else start + size
    if start + size > len(raw):
        raise _damaged(
            path, f"an element at byte {position} states {size} of {len(raw) - start} bytes"
        )
    return kind, raw[start : start + size], stop


def _inflated(path: Path, data: bytes, order: str) -> bytes:
    """Decompress an element after validating that its stated size is plausible."""
    stream = zlib.decompressobj()
    try:
        head = stream.decompress(data, 8)
        if len(head) < 8:
            raise _damaged(path, "a compressed element is empty")
        (size,) = struct.unpack(order + "4xI", head)
        check_expansion(path, size, len(data), "a compressed array")
        rest = stream.decompress(stream.unconsumed_tail, size + 8)
        if not stream.eof:
            rest += stream.decompress(stream.unconsumed_tail, 64)
    except zlib.error as error:
        raise _damaged(path, f"a compressed element cannot be read ({error})") from error
    if not stream.eof:
        raise _damaged(path, "a compressed element is truncated or longer than stated")
    return head + rest


def _variable(path: Path, data: bytes, order: str) -> Variable | None:
    """Parse an element as a numeric array; return ``None`` if it is something else."""
    if not data:
        return None
    _, flags, position = _element(path, data, 0, order)
    if len(flags) < 4:
        raise _damaged(path, "a variable has no flags")
    (word,) = struct.unpack_from(order + "I", flags)
    if word & 0xFF not in _NUMERIC_CLASSES:
        return None
    _, dims, position = _element(path, data, position, order)
    _, name, position = _element(path, data, position, order)
    shape = struct.unpack(f"{order}{len(dims) // 4}i", dims[: len(dims) // 4 * 4])
    if not 2 <= len(shape) <= _MOST_AXES or min(shape) < 0:
        raise _damaged(path, f"a variable has the shape {shape[:8]}")
    text = "".join(filter(str.isprintable, name.decode("latin-1")))
    return Variable(text, shape, bool(word & _COMPLEX), order, data[position:])
