"""Whether an output replaces an input."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ctxrecon.io import bart


def overwrites(
    output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]
) -> Path | None:
    """The first of the ``inputs`` that writing ``output`` would replace, or ``None``.

    A file is the same by another path, a symbolic or a hard link; a BART array is two files.
    """
    written = _files_of(Path(output))
    for name in inputs:
        if any(_same_file(one, other) for one in written for other in _files_of(Path(name))):
            return Path(name)
    return None


def _files_of(path: Path) -> list[Path]:
    """The files of a name: two of a BART array, else the one."""
    if bart.is_bart(path):
        return [bart.data_file(path), bart.header_file(path)]
    return [path]


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet, or cannot be looked at
        return os.path.realpath(one) == os.path.realpath(other)
