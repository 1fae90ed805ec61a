"""What every scan format offers to :func:`ctxrecon.io.read_scan`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from ctxrecon.errors import InputError
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
        holds: whether an open HDF5 file is of this format; for the formats that share HDF5.
    """

    name: str
    suffixes: tuple[str, ...]
    contents: tuple[str | None, ...]
    shape: Callable[[Path, Options], Layout]
    read: Callable[[Path, SliceChoice, Options, Notes], tuple[Scan, Tensor | None]]
    choices: tuple[str, ...] = ()
    crops: bool = False
    holds: Callable[[Path, Any], bool] | None = None

    def read_checked(
        self, path: Path, slices: SliceChoice, options: Options, notes: Notes
    ) -> tuple[Scan, Tensor | None]:
        """:attr:`read`, once the options have a meaning for the format.

        Raises:
            InputError: a choice that the format does not have, or a readout that it cannot crop.
        """
        self._check(path, options)
        if options.crop_readout and not self.crops:
            raise InputError(
                f"{path}: a {self.name} file does not state its readout oversampling: leave "
                "crop_readout out"
            )
        return self.read(path, slices, options, notes)

    def shape_checked(self, path: Path, options: Options) -> Layout:
        """:attr:`shape`, once the choice has a meaning for the format.

        Raises:
            InputError: a choice that the format does not have.
        """
        self._check(path, options)
        return self.shape(path, options)

    def _check(self, path: Path, options: Options) -> None:
        for item in fields(Choice):
            if item.name not in self.choices and getattr(options.choice, item.name) != item.default:
                there = ", ".join(self.choices) or "nothing to choose from"
                raise InputError(
                    f"{path}: a {self.name} file has no {item.name}s, it has {there}: leave "
                    f"{item.name} out"
                )
