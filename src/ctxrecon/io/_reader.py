"""Interface that each scan format implements for :func:`ctxrecon.io.read_scan`."""

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
"""Shape (slices, coils, ny, nx) and dtype of the k-space, and further entries of the summary."""


@dataclass(frozen=True)
class Options:
    """Options of :func:`ctxrecon.io.read_scan` in addition to the slices."""

    crop_readout: bool | None = None
    prewhiten: bool = True
    choice: Choice = field(default_factory=Choice)


@dataclass(frozen=True)
class Reader:
    """One scan format.

    Attributes:
        name: Name of the format.
        suffixes: File suffixes, in lower case.
        contents: File contents that :func:`ctxrecon.files.sniff` reports for the format.
        shape: Function that returns the layout of a file without reading samples.
        read: Function that reads the selected slices of a file and adds notes on the processing;
            it returns the scan and the prewhitening matrix ``(coils, coils)`` or ``None``.
        choices: Names of the fields of :class:`Choice` that apply to the format.
        crops: Whether files state their readout oversampling.
        reads_whole: Function that returns whether reading a slice requires reading or decompressing
            the whole file.
        holds: Function that returns whether an open HDF5 file has this format, for the formats
            that share HDF5.
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
