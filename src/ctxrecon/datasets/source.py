"""What a kind of raw volume has to say of itself to be prepared."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.files import check_input
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metadata.scan_metadata import PromptForm


class Slice(NamedTuple):
    """A slice of a volume.

    Attributes:
        image: ``(ny, nx)`` of any scale, complex or the magnitude.
        metadata: what its prompt tells.
        subject: the person, where known.
        weight: how often it is to be drawn, relative to other slices.
        origin: source and licence, where known.
    """

    image: NDArray[np.complex64] | NDArray[np.float32]
    metadata: ScanMetadata
    subject: str | None = None
    weight: float = 1.0
    origin: str | None = None


class LeftOut(NamedTuple):
    """Slices of a person who was not asked for.

    Attributes:
        subject: the person.
    """

    subject: str


MIN_SIZE = 16
"""Smallest edge of a prepared image; the phantom makes no smaller ones either."""


class VolumeSource(ABC):
    """A kind of raw volume. It is sent to other processes, so it must be picklable.

    Attributes:
        kind: name in ``settings.json``.
        suffixes: endings of the file names, lower case, the longest first.
        prompt_form: form in which the prompts of its slices are stored.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    prompt_form: ClassVar[PromptForm] = "fastmri"

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything but the volume that decides what is made of it, as JSON holds it."""

    @abstractmethod
    def slices(self, path: Path) -> Iterator[Slice | LeftOut | None]:
        """The slices of one volume in order, ``None`` for one without signal.

        All are of one size, and either all complex or all magnitudes; either all or none name
        their subject.

        Raises:
            InputError: the volume cannot be read.
        """

    def find(self, path: Path) -> list[tuple[str, Path]]:
        """The volumes that an input stands for, each with the name of its shard.

        Raises:
            InputError: the input is of another kind.
        """
        return [(self.name(path), path)]

    def files(self, path: Path) -> list[Path]:
        """The files that a volume is read from, existing and not empty.

        Raises:
            InputError: one cannot be read.
        """
        return [check_input(path)]

    def num_bytes(self, path: Path) -> int:
        """Bytes of these files, by which a volume that has changed is recognised."""
        return sum(file.stat().st_size for file in self.files(path))

    def name(self, path: Path) -> str:
        """The file's name without its suffix, which names the shard."""
        lower = path.name.lower()
        for suffix in self.suffixes:
            if lower.endswith(suffix):
                return path.name[: -len(suffix)]
        raise InputError(
            f"{path}: expected a file {' or '.join(self.suffixes)}, got "
            f"{path.suffix or 'no extension'}"
        )


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size of the images to make, ``(ny, nx)``, refused when it cannot be one."""
    ny, nx = size
    if min(ny, nx) < MIN_SIZE:
        raise InputError(f"expected a size of at least {MIN_SIZE} × {MIN_SIZE}, got {ny} × {nx}")
    return ny, nx


def central(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[slice, slice]:
    """The centre ``size`` of images ``(…, ny, nx)``, around pixel ``n // 2``; none is padded."""
    (ny, nx), (size_y, size_x) = shape[-2:], size
    if size_y > ny or size_x > nx:
        raise InputError(
            f"{path}: its images of {ny} × {nx} are smaller than the size {size_y} × {size_x}, and "
            "nothing is padded: prepare it into another folder with a smaller --size"
        )
    first_y, first_x = ny // 2 - size_y // 2, nx // 2 - size_x // 2
    return slice(first_y, first_y + size_y), slice(first_x, first_x + size_x)


def digest(path: Path) -> str:
    """What a table is recognised by in ``settings.json``: the SHA-256 of its content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
