"""Lengths of variable-length HDF5 sequences, before HDF5 takes the memory that they claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError


def check_lengths(path: Path, dataset: Any, field: str | None = None) -> None:
    """Refuse a dataset with a string or sequence that is longer than the file.

    HDF5 takes that memory before it looks at what the file holds, and for a table of readouts it
    does so whichever field is read. Nothing is refused where the lengths are not to be seen: in
    filtered or compact storage, or behind a user block.

    Args:
        path: of the file.
        dataset: HDF5 dataset of at most one dimension.
        field: of compound elements, the field to look at; one of fixed length passes.
    """
    import h5py

    lengths = _claimed_lengths(path, dataset, field)
    if lengths is None or lengths.size == 0:
        return
    dtype = dataset.dtype if field is None else dataset.dtype[field]
    sequence = h5py.check_vlen_dtype(dtype)
    size = 1 if sequence is None else np.dtype(sequence).itemsize
    claimed = int(lengths.max()) * size
    if claimed > path.stat().st_size:
        name = field or str(dataset.name).rsplit("/", 1)[-1]
        raise InputError(
            f"{path}: an element of {name!r} claims {claimed / 2**30:.1f} GiB, more than the file "
            "has: it is damaged or not to be trusted"
        )


def _claimed_lengths(path: Path, dataset: Any, field: str | None) -> np.ndarray | None:
    """Length that each element claims, ``(elements,)``, 0 where none was written; or ``None``.

    A sequence is stored as its length (4 bytes, little-endian) and its place in a heap.
    """
    import h5py

    element = dataset.id.get_type()
    start, size = 0, element.get_size()
    if field is not None:
        index = element.get_member_index(field.encode())
        start, element = element.get_member_offset(index), element.get_member_type(index)
    is_text = element.get_class() == h5py.h5t.STRING and element.is_variable_str()
    if not (is_text or element.get_class() == h5py.h5t.VLEN) or dataset.file.userblock_size:
        return None
    count = int(dataset.size)
    stored = np.memmap(path, np.uint8, "r")
    lengths = np.zeros(count, np.int64)

    def look(first: int, offset: int, rows: int) -> None:
        rows = min(rows, count - first, (len(stored) - offset) // size)
        if rows > 0:
            block = stored[offset : offset + rows * size].reshape(rows, size)
            words = np.ascontiguousarray(block[:, start : start + 4]).view("<u4")
            lengths[first : first + rows] = words[:, 0]

    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is None:
            return None
        look(0, offset, count)
        return lengths
    if dataset.id.get_create_plist().get_nfilters() or dataset.ndim != 1:
        return None
    rows = dataset.chunks[0]
    dataset.id.chunk_iter(lambda chunk: look(chunk.chunk_offset[0], chunk.byte_offset, rows))
    return lengths
