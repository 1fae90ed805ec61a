"""NumPy ``.npy`` headers and ``.npz`` archives from outside, checked before arrays are read."""

from __future__ import annotations

import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion

# Exceptions that NumPy raises for damaged headers, which are Python literals.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    RecursionError,
    tokenize.TokenError,
    zlib.error,
)

# Exceptions that zipfile and its decompressors raise for damaged or encrypted members.
_MEMBER_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
)


_DEFLATE = 1100
"""Ratio that DEFLATE, with at most 1032, does not reach."""


class ArrayLayout(NamedTuple):
    """Header of a ``.npy`` array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool


def array_layout(path: Path, file: IO[bytes], num_bytes: int, name: str) -> ArrayLayout:
    """Read the header of a ``.npy`` array and validate it against the actual size.

    Args:
        path: File name for messages.
        file: Stream of the array, which is then at its first value.
        num_bytes: Size of the stream in bytes.
        name: Name of the array, for messages.

    Raises:
        InputError: If the header is damaged, states another size, or objects that need pickle.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran_order, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"format version {version}")
    except _HEADER_ERRORS as error:
        raise InputError(
            f"{path}: the NumPy header of {name} cannot be read, save it again with numpy.save "
            f"({' '.join(str(error).split())[:120]})"
        ) from error
    if dtype.hasobject:
        raise InputError(
            f"{path}: {name} contains pickled Python objects, which are never loaded: "
            "save plain numbers or strings"
        )
    expected = dtype.itemsize
    for length in shape:
        expected *= length  # Python integers cannot overflow
    offset = file.tell()
    if min(shape, default=1) < 0 or expected != num_bytes - offset:
        raise InputError(
            f"{path} is truncated or damaged: {name} of shape {shape} {dtype} requires {expected} "
            f"bytes, the file has {num_bytes - offset}"
        )
    return ArrayLayout(shape, dtype, fortran_order)


class Archive:
    """A ``.npz`` archive whose members are validated before they are decompressed.

    Args:
        path: File.
        of_labels: Whether its arrays are label maps, which compress up to the limit of the format.

    Raises:
        InputError: If it is damaged or not an archive.
    """

    def __init__(self, path: Path, *, of_labels: bool = False) -> None:
        self.path, self._of_labels = path, of_labels
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"{path} is truncated or is not a NumPy .npz archive ({error})"
            ) from error
        self.names = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def layout(self, name: str) -> ArrayLayout:
        """Return the header of an array after validating that its size is plausible."""
        info = self.names[name]
        # The stated compressed size may exceed the size of the file.
        stored = min(info.compress_size, self.path.stat().st_size)
        limit = {"free": _DEFLATE * stored} if self._of_labels else {}
        check_expansion(self.path, info.file_size, stored, name, **limit)
        try:
            with self._zip.open(info) as member:
                return array_layout(self.path, member, info.file_size, name)
        except InputError:
            raise
        except _MEMBER_ERRORS as error:
            raise InputError(f"{self.path} is damaged: {name} cannot be read ({error})") from error

    def get(self, name: str, chosen: Sequence[int] | None = None) -> np.ndarray | None:
        """Read an array, or its ``chosen`` entries along the first axis; ``None`` if absent.

        Members are streams: entries up to the last chosen one are decompressed but not kept.
        """
        if name not in self.names:
            return None
        layout = self.layout(name)
        try:
            with self._zip.open(self.names[name]) as member:
                if chosen is not None and not layout.fortran_order:
                    array_layout(self.path, member, self.names[name].file_size, name)
                    return _entries(member, layout, chosen)
                whole = np.lib.format.read_array(member, allow_pickle=False)
        except _MEMBER_ERRORS as error:
            raise InputError(f"{self.path} is damaged: {name} cannot be read ({error})") from error
        return whole if chosen is None else whole[list(chosen)]


def _entries(member: IO[bytes], layout: ArrayLayout, chosen: Sequence[int]) -> np.ndarray:
    """Read the chosen entries along the first axis from the stream of an array."""
    shape = layout.shape[1:]
    size = layout.dtype.itemsize * prod(shape)
    kept = {}
    for index in range(max(chosen) + 1):
        raw = member.read(size)
        if len(raw) < size:
            raise EOFError(f"it ends at entry {index}")
        if index in chosen:
            kept[index] = np.frombuffer(raw, layout.dtype).reshape(shape)
    return np.stack([kept[index] for index in chosen])
