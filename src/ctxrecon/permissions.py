"""Permissions of written files."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def with_umask_mode(path: str | os.PathLike[str]) -> None:
    """Give a written file, or every file in a folder, the mode of a newly created file.

    Libraries that write through a private temporary file, such as safetensors since 0.8, create
    files that only their owner can read, regardless of the umask.

    Args:
        path: File, or folder whose files are changed, including those in subfolders.
    """
    path = Path(path)
    files = [found for found in path.rglob("*") if found.is_file()] if path.is_dir() else [path]
    modes: dict[Path, int] = {}
    for file in files:
        if file.is_symlink():
            continue
        if file.parent not in modes:
            modes[file.parent] = _new_file_mode(file.parent)
        if file.stat().st_mode & 0o777 != modes[file.parent]:
            file.chmod(modes[file.parent])


def _new_file_mode(folder: Path) -> int:
    """Return the mode of a file newly created in ``folder``.

    The umask cannot be read without changing it, which would affect other threads.
    """
    probe = folder / f".{secrets.token_hex(8)}"
    descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)
        probe.unlink()
