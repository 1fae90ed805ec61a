"""Variable-length HDF5 sequences, before HDF5 takes the memory and the time that they claim."""

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
    """Refuse a dataset with a string or sequence that is longer than the file, or in a bad heap.

    HDF5 takes that memory before it looks at what the file holds, and for a table of readouts it
    does so whichever field is read. Nothing is refused where the lengths are not to be seen: in
    filtered or compact storage, or behind a user block.

    Args:
        path: of the file.
        dataset: HDF5 dataset of at most one dimension.
        field: of compound elements, the field to look at; one of fixed length passes.
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
            f"{path}: an element of {name!r} claims {claimed / 2**30:.1f} GiB, more than the file "
            "has: it is damaged or not to be trusted"
        )
    stored = np.memmap(path, np.uint8, "r")
    for heap in np.unique(references["heap"][lengths > 0]):
        if not _ends(stored, int(heap)):
            raise InputError(f"{path}: a heap of its HDF5 data never ends: it is damaged")


def _ends(stored: np.ndarray, heap: int) -> bool:
    """Whether reading a global heap ends: HDF5 goes on for ever at free space of no size.

    A heap is 16 bytes that end with its size, and objects: 16 bytes that start with an index, 0 for
    free space, and end with a size, which for free space counts those 16 bytes.
    """
    head = stored[heap : heap + 16].tobytes()
    if len(head) < 16 or head[:4] != b"GCOL":
        return True  # which HDF5 notices
    size = int.from_bytes(head[8:], "little")
    position, stop = heap + 16, min(heap + size, len(stored))
    while stop - position >= 16:
        index, _, claimed = struct.unpack_from("<HH4xQ", stored, position)
        if index == 0 and claimed == 0:
            return False
        position += claimed if index == 0 else 16 + (claimed + 7) // 8 * 8
    return True


def _references(path: Path, dataset: Any, field: str | None) -> np.ndarray | None:
    """Length and heap of each element, ``(elements,)``, 0 where none was written; or ``None``.

    A sequence is stored as its length (4 bytes, little-endian) and its place in a heap (8 bytes).
    """
    import h5py

    element = dataset.id.get_type()
    start, size = 0, element.get_size()
    if field is not None:
        index = element.get_member_index(field.encode())
        start, element = element.get_member_offset(index), element.get_member_type(index)
    is_text = element.get_class() == h5py.h5t.STRING and element.is_variable_str()
    if is_text:
        size = _TEXT_REFERENCE  # HDF5 tells that of a pointer in memory
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
