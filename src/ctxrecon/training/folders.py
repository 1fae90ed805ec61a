"""Folders that are there whole or not at all, and what a killed run leaves of them."""

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
"""Names of what is being written or removed, here and by ``written_beside``."""


@contextmanager
def folder_beside(final: Path) -> Iterator[Path]:
    """An empty folder under a hidden name, which takes the place of ``final`` when the block ends.

    Args:
        final: the folder to be written; what is there before is replaced.

    Raises:
        InputError: the files cannot be written.
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
    except SafetensorError as error:  # of a full disk, among others
        raise InputError(f"cannot write {final}: {error}") from error


def check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written, or made; nothing is changed.

    Raises:
        InputError: with what the file system says.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"cannot write into {folder}: {existing} is a file, name a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}") from error


def check_output(path: Path) -> None:
    """Make the folder of a file that is to be written, before the work.

    Raises:
        InputError: it cannot be written, or the path is a folder itself.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder, name a file")
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder: first its name, so that nobody finds a part of it."""
    shutil.rmtree(_hidden(folder))


def _hidden(folder: Path) -> Path:
    """Rename a folder to a hidden name, and give that."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    return folder.rename(old)


def remove_left_behind(folder: Path) -> None:
    """Remove what a killed run was writing or removing; nobody else may be writing there."""
    for path in folder.iterdir():
        if not _LEFT_BEHIND.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
