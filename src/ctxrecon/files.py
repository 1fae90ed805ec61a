"""What every format shares: checks on files from outside, and writing beside then renaming."""

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

# A file may claim any shape. Compressed or never-written arrays larger than the first figure are
# refused when they claim more than the second figure times the bytes that are really there;
# undersampled k-space compresses by its acceleration, far below that.
_FREE_BYTES = 256 * 2**20
_MAX_EXPANSION = 200


def check_input(path: str | os.PathLike[str]) -> Path:
    """The path of an existing, readable, non-empty regular file; anything else is refused."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: name one scan file in it")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file: copy the scan to one")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path} may not be read: check its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: copy it again")
    return path


def sniff(path: Path) -> str | None:
    """The format that the first bytes of the file show, or ``None`` if they show none."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((name for magic, name in MAGIC.items() if start.startswith(magic)), None)


def check_expansion(
    path: Path, num_bytes: int, stored: int, what: str, *, free: int = _FREE_BYTES
) -> None:
    """Refuse an array that claims far more memory than the file has bytes for it.

    Args:
        path: of the file.
        num_bytes: that are claimed.
        stored: in the file for them.
        what: is claimed.
        free: bytes that any file may claim: compressed zeros take next to nothing.

    Raises:
        InputError: the array is not to be made.
    """
    if num_bytes > free and num_bytes > _MAX_EXPANSION * max(stored, 1):
        large = num_bytes >= 2**30
        size = f"{num_bytes / 2**30:.1f} GiB" if large else f"{num_bytes / 2**20:.0f} MiB"
        raise InputError(
            f"{path}: {what} claims {size} but the file stores only "
            f"{stored} bytes of it: the file is damaged or not to be trusted"
        )


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """The JSON object in a file from outside.

    Args:
        path: of the file.
        what: it should hold, such as ``"the settings of a run"``.
        remedy: what to do where it does not.

    Raises:
        InputError: a file that cannot be read, or that holds something else.
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
        raise InputError(f"{path} holds no JSON object, it is not {what}: {remedy}")
    return found


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuse a file that could not be written, before the work whose result it is to hold.

    A temporary file is created beside it and removed again, as :func:`written_beside` does.

    Raises:
        InputError: the folder is not there or may not be written, no file can be created in it,
            the path is a folder or a device, or the file that is there is write-protected.
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
    """A temporary name in the same folder, renamed to ``path`` when the block succeeds.

    So ``path`` is either as it was before or complete, never half-written. The temporary name
    keeps the suffix because some writers choose the format by it.

    Raises:
        InputError: what :func:`check_output` refuses, or a disk that is full.
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
    """Write what JSON can hold, beside the file and then renamed."""
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _check_target(path: Path) -> None:
    if "\0" in str(path):
        raise InputError(f"cannot write {str(path)!r}: its name holds a NUL, name another file")
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
        raise InputError(f"cannot write {path}: it is a folder or a device, name a file")
    # A rename would replace it whatever its permissions.
    if not found.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise InputError(
            f"cannot write {path}: the file is write-protected, name another or change its "
            "permissions"
        )


def _temporary(path: Path) -> Path:
    # The end of a name that is near the longest that a file system takes.
    return path.with_name(f".{secrets.token_hex(8)}-{path.name[-40:]}")


def _remove(temporary: Path) -> None:
    with suppress(OSError):  # such as on a read-only file system, where it was never created
        temporary.unlink()


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {error.strerror or error}, name another place for it")
