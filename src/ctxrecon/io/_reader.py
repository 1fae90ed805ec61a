"""What every scan format offers to :func:`ctxrecon.io.read_scan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.io._arrays import SliceChoice
from ctxrecon.scan import Scan

Layout: TypeAlias = "tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]"
"""(slices, coils, ny, nx) and dtype of the k-space, and what else the file states."""


@dataclass(frozen=True)
class Options:
    """What the caller of :func:`ctxrecon.io.read_scan` asks for, beside the slices."""

    crop_readout: bool | None = None
    prewhiten: bool = True
    repetition: int = 0
    contrast: int = 0

    def asked(self) -> tuple[str, ...]:
        """The names of the options that are not at their defaults."""
        return tuple(
            field.name for field in fields(self) if getattr(self, field.name) != field.default
        )


@dataclass(frozen=True)
class Reader:
    """One scan format.

    Attributes:
        name: of the format.
        suffixes: of its files, in lower case.
        content: what :func:`ctxrecon.files.sniff` finds in its files.
        shape: the layout of a file, reading no samples.
        read: the chosen slices of a file, and the matrix ``(coils, coils)`` that prewhitened
            their coils, if any.
        options: names of the :class:`Options` that have a meaning for the format.
        holds: whether an open HDF5 file is of this format; for the formats that share HDF5.
    """

    name: str
    suffixes: tuple[str, ...]
    content: str | None
    shape: Callable[[Path], Layout]
    read: Callable[[Path, SliceChoice, Options], tuple[Scan, Tensor | None]]
    options: frozenset[str] = frozenset()
    holds: Callable[[Path, Any], bool] | None = None


def check_options(path: Path, reader: Reader, options: Options, readers: list[Reader]) -> None:
    """Refuse options that say nothing of a file of this format."""
    for name in options.asked():
        if name == "prewhiten" or name in reader.options:
            continue
        if name == "crop_readout":
            if options.crop_readout:
                raise InputError(
                    f"{path}: a {reader.name} file does not state its readout oversampling: "
                    "leave crop_readout out"
                )
            continue
        others = ", ".join(other.name for other in readers if name in other.options)
        raise InputError(f"{path} is a {reader.name} file: {name} is for files of {others} only")
