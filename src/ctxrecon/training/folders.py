"""Atomic creation and removal of folders."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ctxrecon.errors import InputError
from ctxrecon.permissions import with_umask_mode

_LEFT_BEHIND = re.compile(r"\..+\.(partial|old)|\.[0-9a-f]{16}-.+")
"""Names of files being written or removed, here and by ``written_beside``."""


@contextmanager
def folder_beside(final: Path) -> Iterator[Path]:
    """Create an empty hidden folder that replaces ``final`` when the block ends.

    Args:
        final: Folder to be written; an existing one is replaced.

    Raises:
        InputError: If the files cannot be written.
    """
    beside = final.with_name(f".{final.name}.partial")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        with_umask_mode(beside)
        old = _hidden(final) if final.exists() else None
        beside.rename(final)
        if old is not None:
            shutil.rmtree(old)
    except OSError as error:
        raise InputError(f"cannot write {final}: {error.strerror or error}") from error
    except SafetensorError as error:  # for example on a full disk
        raise InputError(f"cannot write {final}: {error}") from error


def check_folder(folder: Path) -> None:
    """Validate that a folder can be written or created, without changing anything.

    Raises:
        InputError: If it cannot, with the reason of the file system.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"cannot write to {folder}: {existing} is a file, specify a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror or error}") from error


def check_output(path: Path) -> None:
    """Create the folder of an output file in advance.

    Raises:
        InputError: If it cannot be written, or the path is itself a folder.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, specify a file")
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, after renaming it so that no incomplete folder is visible."""
    shutil.rmtree(_hidden(folder))


def _hidden(folder: Path) -> Path:
    """Rename a folder to a hidden name and return it."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    return folder.rename(old)


def remove_left_behind(folder: Path) -> None:
    """Remove partial output of a killed run; no other process may be writing to the folder."""
    for path in folder.iterdir():
        if not _LEFT_BEHIND.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
