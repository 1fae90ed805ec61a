"""What every scan format offers to :func:`ctxrecon.io.read_scan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from ctxrecon.io._arrays import SliceChoice
from ctxrecon.io._choice import Choice
from ctxrecon.io._notes import Notes
from ctxrecon.scan import Scan

Layout: TypeAlias = "tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]"
"""(slices, coils, ny, nx) and dtype of the k-space, and what else the file states."""


@dataclass(frozen=True)
class Options:
    """What the caller of :func:`ctxrecon.io.read_scan` asks for, beside the slices."""

    crop_readout: bool | None = None
    prewhiten: bool = True
    choice: Choice = field(default_factory=Choice)


@dataclass(frozen=True)
class Reader:
    """One scan format.

    Attributes:
        name: of the format.
        suffixes: of its files, in lower case.
        contents: what :func:`ctxrecon.files.sniff` finds in its files.
        shape: the layout of a file, reading no samples.
        read: the chosen slices of a file, with notes of what is done, and the matrix
            ``(coils, coils)`` that prewhitened their coils, if any.
        choices: names of the fields of :class:`Choice` that have a meaning for the format.
        crops: whether its files state their readout oversampling.
        reads_whole: whether a slice of a file takes reading, or decompressing, all of it.
        holds: whether an open HDF5 file is of this format; for the formats that share HDF5.
    """

    name: str
    suffixes: tuple[str, ...]
    contents: tuple[str | None, ...]
    shape: Callable[[Path, Options], Layout]
    read: Callable[[Path, SliceChoice, Options, Notes], tuple[Scan, Tensor | None]]
    choices: tuple[str, ...] = ()
    crops: bool = False
    reads_whole: Callable[[Path, Options], bool] = lambda path, options: False
    holds: Callable[[Path, Any], bool] | None = None
