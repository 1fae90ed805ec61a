"""Detection of outputs that would replace an input."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ctxrecon.io import bart


def overwrites(
    output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]
) -> Path | None:
    """Return the first of the ``inputs`` that writing ``output`` would replace, or ``None``.

    Recognizes the same file by another path, a symbolic link or a hard link. A BART array consists
    of two files.

    Args:
        output: File to write.
        inputs: Files to preserve.

    Example:
        >>> from ctxrecon.io import overwrites
        >>> overwrites("scan.hdr", ["scan.cfl"]).name
        'scan.cfl'
        >>> overwrites("image.npy", ["scan.npy"]) is None
        True
    """
    written = _files_of(Path(output))
    for name in inputs:
        if any(_same_file(one, other) for one in written for other in _files_of(Path(name))):
            return Path(name)
    return None


def _files_of(path: Path) -> list[Path]:
    """Return the files of a name: both files of a BART array, else the file itself."""
    if bart.is_bart(path):
        return [bart.data_file(path), bart.header_file(path)]
    return [path]


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # a file does not exist yet, or is not accessible
        return os.path.realpath(one) == os.path.realpath(other)
