"""Validation of variable-length HDF5 sequences before HDF5 allocates the stated memory."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError

_TEXT_REFERENCE = 16
_STORED = np.dtype([("length", "<u4"), ("heap", "<u8")])
_REFERENCE = np.dtype([("length", np.int64), ("heap", np.uint64)])


def check_lengths(path: Path, dataset: Any, field: str | None = None) -> None:
    """Reject strings and sequences that are longer than the file, or are in a damaged heap.

    HDF5 allocates memory before it inspects the content, and for a table of readouts it does so
    whichever field is read. Nothing is rejected where the lengths are not accessible: in filtered
    or compact storage, or behind a user block.

    Args:
        path: File.
        dataset: HDF5 dataset with at most one dimension.
        field: Field of compound elements to check; a field of fixed length passes.

    Raises:
        InputError: If a sequence is longer than the file, or its heap is damaged.
    """
    import h5py

    references = _references(path, dataset, field)
    if references is None or references.size == 0:
        return
    lengths = references["length"]
    dtype = dataset.dtype if field is None else dataset.dtype[field]
    is_text = h5py.check_string_dtype(dtype) is not None
    size = 1 if is_text else np.dtype(h5py.check_vlen_dtype(dtype)).itemsize
    claimed = int(lengths.max()) * size
    if claimed > path.stat().st_size:
        name = field or str(dataset.name).rsplit("/", 1)[-1]
        raise InputError(
            f"{path}: an element of {name!r} states {claimed / 2**30:.1f} GiB, more than the file "
            "has: it is damaged or untrustworthy"
        )
    stored = np.memmap(path, np.uint8, "r")
    for heap in np.unique(references["heap"][lengths > 0]):
        if not _ends(stored, int(heap)):
            raise InputError(f"{path}: a heap of its HDF5 data has no end: it is damaged")


def _ends(stored: np.ndarray, heap: int) -> bool:
    """Return whether a global heap ends; HDF5 loops forever on free space of zero size.

    A heap consists of 16 bytes that end with its size, followed by objects. An object starts with
    16 bytes: an index, 0 for free space, and a size, which for free space includes the 16 bytes.
    """
    head = stored[heap : heap + 16].tobytes()
    if len(head) < 16 or head[:4] != b"GCOL":
        return True  # HDF5 detects this itself
    size = int.from_bytes(head[8:], "little")
    position, stop = heap + 16, min(heap + size, len(stored))
    while stop - position >= 16:
        index, claimed = struct.unpack("<H6xQ", stored[position : position + 16].tobytes())
        if index == 0 and claimed == 0:
            return False
        position += claimed if index == 0 else 16 + (claimed + 7) // 8 * 8
    return True


def _references(path: Path, dataset: Any, field: str | None) -> np.ndarray | None:
    """Return length and heap of each element, zeros for unwritten ones, or ``None``.

    A sequence is stored as its length (4 bytes, little-endian) and its heap address (8 bytes).
    """
    import h5py

    element = dataset.id.get_type()
    start, size = 0, element.get_size()
    if field is not None:
        index = element.get_member_index(field.encode())
        start, element = element.get_member_offset(index), element.get_member_type(index)
    is_text = element.get_class() == h5py.h5t.STRING and element.is_variable_str()
    if is_text:
        size = _TEXT_REFERENCE  # HDF5 reports the size of a pointer in memory
    if not (is_text or element.get_class() == h5py.h5t.VLEN) or dataset.file.userblock_size:
        return None
    count = int(dataset.size)
    stored = np.memmap(path, np.uint8, "r")
    references = np.zeros(count, _REFERENCE)

    def look(first: int, offset: int, rows: int) -> None:
        rows = min(rows, count - first, (len(stored) - offset) // size)
        if rows > 0:
            block = stored[offset : offset + rows * size].reshape(rows, size)
            words = np.ascontiguousarray(block[:, start : start + 12]).view(_STORED)[:, 0]
            for name in ("length", "heap"):
                references[name][first : first + rows] = words[name]

    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is None:
            return None
        look(0, offset, count)
        return references
    if dataset.id.get_create_plist().get_nfilters() or dataset.ndim != 1:
        return None
    rows = dataset.chunks[0]
    dataset.id.chunk_iter(lambda chunk: look(chunk.chunk_offset[0], chunk.byte_offset, rows))
    return references
