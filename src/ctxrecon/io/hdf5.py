"""Safe reading of untrusted HDF5 files: no links are followed, and stated sizes are validated."""

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

# HDF5 always converts at least one whole element.
_LARGEST_ELEMENT = 16 * 2**20


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; damage detected in the block raises an InputError."""
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
            f"(HDF5 library: {str(error).strip()})"
        ) from error


def _note_bytes_behind(path: Path, start: int) -> None:
    """Warn if a file is longer than it states, as its data may be shifted; HDF5 ignores this."""
    with path.open("rb") as stored:
        stored.seek(start)
        head = stored.read(56)
    if len(head) < 56 or head[8] > 3:
        return
    # Superblock versions 0 and 1 store the address sizes in bytes 13 and 14, versions 2 and 3 in
    # byte 9; only addresses of 8 bytes occur in practice.
    size, place = (head[13], 40 + 4 * (head[8] == 1)) if head[8] < 2 else (head[9], 28)
    end = int.from_bytes(head[place : place + 8], "little")
    behind = path.stat().st_size - end
    if size == 8 and behind > 0:
        logger.warning(
            "%s: %d bytes after its end are ignored: it may be damaged, copy it again",
            path,
            behind,
        )


def hdf5_member(path: Path, group: h5py.Group, name: str) -> Any:
    """Return the dataset or group ``name``; links and external data raise an error."""
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
            f"{path}: the data of {name!r} are in other files, which are not opened: "
            "store them in this file"
        )
    _check_storage(path, member, name)
    try:
        known = member.dtype.kind
    except (TypeError, ValueError) as error:  # HDF5 types without a NumPy equivalent
        raise InputError(f"{path}: {name!r} has an unsupported type ({error})") from error
    if member.shape is None or (known == "O" and h5py.check_string_dtype(member.dtype) is None):
        raise InputError(f"{path}: expected numbers or text in {name!r}, got neither")
    if known == "O":
        check_lengths(path, member)
    return member


def _check_storage(path: Path, dataset: h5py.Dataset, name: str) -> None:
    """Validate that elements and chunks, which HDF5 reads as a whole, fit into the file."""
    element = dataset.id.get_type().get_size()  # may be larger on disk than in memory
    if element > _LARGEST_ELEMENT:
        raise InputError(
            f"{path}: each element of {name!r} states {element / 2**20:.0f} MiB: the file is "
            "damaged or untrustworthy"
        )
    stored = dataset.id.get_storage_size()
    if dataset.chunks:
        check_expansion(path, element * prod(dataset.chunks), stored, f"a chunk of {name!r}")


def hdf5_text(path: Path, dataset: Any, name: str) -> str:
    """Return the single string in an HDF5 dataset (a scalar, or an array of one)."""
    import h5py

    if not isinstance(dataset, h5py.Dataset) or dataset.size != 1:
        raise InputError(f"{path}: expected one string in {name!r}, got something else")
    value = dataset[()] if dataset.shape == () else dataset[(0,) * len(dataset.shape)]
    if not isinstance(value, bytes | str):
        raise InputError(f"{path}: expected a string in {name!r}, got {dataset.dtype}")
    return decoded(path, value, name)


def decoded(path: Path, value: bytes | str, name: str) -> str:
    """Decode text as UTF-8 or, if that fails, as Latin-1, which is logged."""
    raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        logger.info("%s: %r is not UTF-8, so it is read as Latin-1", path, name)
        return raw.decode("latin-1")
