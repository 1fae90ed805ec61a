"""HDF5 files from outside, read without following links or trusting what they claim."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.io._sequences import check_lengths

if TYPE_CHECKING:
    import h5py

logger = logging.getLogger(__name__)

# HDF5 converts at least one whole element at once, whatever is read of it.
_LARGEST_ELEMENT = 16 * 2**20


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file opened for reading; damage met inside the block becomes an InputError."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            _note_bytes_behind(path, int(file.userblock_size))
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is truncated or is not an HDF5 file, copy it again "
            f"(the HDF5 library says: {str(error).strip()})"
        ) from error


def _note_bytes_behind(path: Path, start: int) -> None:
    """Log that a file is longer than it states, which HDF5 passes over: its data may be shifted."""
    with path.open("rb") as stored:
        stored.seek(start)
        head = stored.read(56)
    if len(head) < 56 or head[8] > 3:
        return
    # The superblock of version 0 or 1 states the sizes of addresses in bytes 13 and 14, those of
    # 2 and 3 in byte 9; addresses of 8 bytes are all that is met with.
    size, place = (head[13], 40 + 4 * (head[8] == 1)) if head[8] < 2 else (head[9], 28)
    end = int.from_bytes(head[place : place + 8], "little")
    behind = path.stat().st_size - end
    if size == 8 and behind > 0:
        logger.warning(
            "%s: %d bytes behind its end are not read: it may be damaged, copy it again",
            path,
            behind,
        )


def hdf5_member(path: Path, group: h5py.Group, name: str) -> Any:
    """The dataset or group ``name`` itself: never a link to, or data kept in, another file."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise InputError(
            f"{path}: {name!r} is a link, and links are not followed because they may lead to "
            "other files: store the data in this file (h5repack or h5py's copy)"
        )
    member = group[name]
    if not isinstance(member, h5py.Dataset):
        return member
    if member.external or member.is_virtual:
        raise InputError(
            f"{path}: the data of {name!r} lie in other files, which are not opened: "
            "store them in this file"
        )
    _check_storage(path, member, name)
    try:
        known = member.dtype.kind
    except (TypeError, ValueError) as error:  # HDF5 types without a NumPy equivalent
        raise InputError(f"{path}: {name!r} has a type that is not read ({error})") from error
    if member.shape is None or (known == "O" and h5py.check_string_dtype(member.dtype) is None):
        raise InputError(f"{path}: expected numbers or text in {name!r}, got neither")
    if known == "O":
        check_lengths(path, member)
    return member


def _check_storage(path: Path, dataset: h5py.Dataset, name: str) -> None:
    """Refuse element types and chunks that the file has no bytes for; both are read as a whole."""
    element = dataset.id.get_type().get_size()  # the type on disk may be larger than in memory
    if element > _LARGEST_ELEMENT:
        raise InputError(
            f"{path}: each element of {name!r} claims {element / 2**20:.0f} MiB: the file is "
            "damaged or not to be trusted"
        )
    stored = dataset.id.get_storage_size()
    if dataset.chunks:
        check_expansion(path, element * prod(dataset.chunks), stored, f"a chunk of {name!r}")


def hdf5_text(path: Path, dataset: Any, name: str) -> str:
    """The one string of an HDF5 dataset (scalar, or an array of one)."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.size != 1:
        raise InputError(f"{path}: expected one string in {name!r}, got something else")
    value = dataset[()] if dataset.shape == () else dataset[(0,) * len(dataset.shape)]
    if not isinstance(value, bytes | str):
        raise InputError(f"{path}: expected a string in {name!r}, got {dataset.dtype}")
    return decoded(path, value, name)


def decoded(path: Path, value: bytes | str, name: str) -> str:
    """Text in UTF-8 or, where it is not, in Latin-1, which is logged."""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        logger.info("%s: %r is not UTF-8 and is read as Latin-1", path, name)
        return raw.decode("latin-1")
