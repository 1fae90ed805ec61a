"""What every scan format offers to :func:`ctxrecon.io.read_scan`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.io._arrays import SliceChoice
from ctxrecon.io._choice import Choice
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
        read: the chosen slices of a file, and the matrix ``(coils, coils)`` that prewhitened
            their coils, if any.
        choices: names of the fields of :class:`Choice` that have a meaning for the format.
        crops: whether its files state their readout oversampling.
        holds: whether an open HDF5 file is of this format; for the formats that share HDF5.
    """

    name: str
    suffixes: tuple[str, ...]
    contents: tuple[str | None, ...]
    shape: Callable[[Path, Options], Layout]
    read: Callable[[Path, SliceChoice, Options], tuple[Scan, Tensor | None]]
    choices: tuple[str, ...] = ()
    crops: bool = False
    holds: Callable[[Path, Any], bool] | None = None


def check_options(path: Path, reader: Reader, options: Options, readers: Sequence[Reader]) -> None:
    """Refuse options that say nothing of a file of this format.

    Raises:
        InputError: naming the formats that have what was asked for.
    """
    for item in fields(Choice):
        if item.name in reader.choices or getattr(options.choice, item.name) == item.default:
            continue
        others = [other.name for other in readers if item.name in other.choices]
        raise InputError(
            f"{path} is a {reader.name} file: only {', '.join(others)} files have {item.name}s, "
            f"leave {item.name} out"
        )
    if options.crop_readout and not reader.crops:
        raise InputError(
            f"{path}: a {reader.name} file does not state its readout oversampling: leave "
            "crop_readout out"
        )
