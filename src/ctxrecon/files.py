"""Checks on untrusted files, and atomic writing, shared by all file formats."""

from __future__ import annotations

import json
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)

MAGIC = {
    b"\x93NUMPY": "NumPy .npy",
    b"PK\x03\x04": "NumPy .npz",
    b"\x89HDF\r\n\x1a\n": "HDF5 .h5",
    b"MATLAB": "MATLAB .mat",
}

# A file may state any shape. Compressed or sparse arrays that are larger than the first limit are
# rejected if their stated size exceeds the stored bytes by more than the second limit. Undersampled
# k-space compresses only by its acceleration factor.
_FREE_BYTES = 256 * 2**20
_MAX_EXPANSION = 200


def check_input(path: str | os.PathLike[str]) -> Path:
    """Validate that a path is an existing, readable, non-empty regular file, and return it."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: give one scan file in it")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: copy the scan to one")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} is not readable: check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: copy it again")
    return path


def sniff(path: Path) -> str | None:
    """Return the file's format according to its first bytes, or ``None`` if it is unknown."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)


def check_expansion(
    path: Path, num_bytes: int, stored: int, what: str, *, free: int = _FREE_BYTES
) -> None:
    """Validate that the stated size of an array is plausible for the bytes stored for it.

    Args:
        path: File.
        num_bytes: Stated size in bytes.
        stored: Number of bytes stored in the file.
        what: Name of the array, for the message.
        free: Size in bytes that is always accepted, because zeros compress to almost nothing.

    Raises:
        InputError: If the size is implausible, so that the array must not be allocated.
    """
    if num_bytes > free and num_bytes > _MAX_EXPANSION * max(stored, 1):
        large = num_bytes >= 2**30
        size = f"{num_bytes / 2**30:.1f} GiB" if large else f"{num_bytes / 2**20:.0f} MiB"
        raise InputError(
            f"{path}: {what} states {size} but the file stores only "
            f"{stored} bytes of it: the file is damaged or untrustworthy"
        )


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object from an untrusted file.

    Args:
        path: File.
        what: Expected content, such as ``"the settings of a run"``, for the message.
        remedy: Advice for the message.

    Raises:
        InputError: If the file cannot be read, or does not contain a JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise InputError(f"{path} is damaged (nested too deeply): {remedy}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged, not valid JSON ({error!s:.80}): {remedy}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} does not contain {what} as a JSON object: {remedy}")
    return found


def check_output(path: str | os.PathLike[str]) -> None:
    """Validate that a file can be written, before its content is computed.

    Creates and removes a temporary file next to it, as :func:`written_beside` does.

    Raises:
        InputError: If the folder does not exist or is not writable, the path is a folder or a
            device, or an existing file is write-protected.
    """
    path = Path(path)
    _check_target(path)
    temporary = _temporary(path)
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        _remove(temporary)


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder that is renamed to ``path`` on success.

    The file at ``path`` is therefore either unchanged or complete, never partially written. The
    temporary name keeps the suffix, because some writers choose the format by it.

    Raises:
        InputError: If the file cannot be written (see :func:`check_output`), or the disk is full.
    """
    path = Path(path)
    _check_target(path)
    temporary = _temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        _remove(temporary)


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write JSON content atomically."""
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _check_target(path: Path) -> None:
    if "\0" in str(path):
        raise InputError(f"cannot write {str(path)!r}: its name contains NUL, give another name")
    try:
        if not path.parent.is_dir():
            raise InputError(
                f"cannot write {path}: the folder {path.parent} does not exist, create it"
            )
        found = path.stat() if path.exists() else None
    except OSError as error:
        raise _cannot_write(path, error) from error
    if found is None:
        return
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"cannot write {path}: it is a folder or a device, give a file")
    # Renaming would replace the file despite its permissions.
    if not found.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise InputError(
            f"cannot write {path}: the file is write-protected, change its permissions or give "
            "another file"
        )


def _temporary(path: Path) -> Path:
    # Keeps only the end of the name, because file systems limit its length.
    return path.with_name(f".{secrets.token_hex(8)}-{path.name[-40:]}")


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # for example on a read-only file system, where it was not created
        temporary.unlink()


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {error.strerror or error}, give another path")
