"""The mode of written files."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def with_umask_mode(path: str | os.PathLike[str]) -> None:
    """Give a written file, or every file in a folder, the mode of a newly created one.

    Libraries that write through a private temporary file, as safetensors does from 0.8 on, leave
    files that only their owner can read, whatever the umask.

    Args:
        path: a file, or a folder whose files are all changed, also in its subfolders.
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
    """Mode of a file that is created in ``folder`` now.

    The umask itself can only be read by changing it, which other threads would notice.
    """
    probe = folder / f".{secrets.token_hex(8)}"
    descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)
        probe.unlink()
