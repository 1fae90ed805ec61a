"""Interface of the kinds of raw volumes that can be prepared."""

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
    """Slice of a volume.

    Attributes:
        image: Complex or magnitude image ``(ny, nx)``, of arbitrary scale.
        metadata: Metadata from which the prompt is built.
        subject: Identifier of the person, if known.
        weight: Sampling weight relative to other slices.
        origin: Source and license, if known.
    """

    image: NDArray[np.complex64] | NDArray[np.float32]
    metadata: ScanMetadata
    subject: str | None = None
    weight: float = 1.0
    origin: str | None = None


class LeftOut(NamedTuple):
    """Marker for slices of a person who is not selected.

    Attributes:
        subject: Identifier of the person.
    """

    subject: str


MIN_SIZE = 16
"""Minimum edge of a prepared image, which is also that of the phantom."""


class VolumeSource(ABC):
    """Kind of raw volume. It is sent to other processes, so it must be picklable.

    Attributes:
        kind: Name in ``settings.json``.
        suffixes: Endings of the file names in lower case, the longest first.
        prompt_form: Form in which the prompts of the slices are stored.
    """

    kind: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    prompt_form: ClassVar[PromptForm] = "fastmri"

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return all settings except the volume that affect the result, as JSON values."""

    @abstractmethod
    def slices(self, path: Path) -> Iterator[Slice | LeftOut | None]:
        """Yield the slices of a volume in order, and ``None`` for each slice without signal.

        All slices have the same size and are either all complex or all magnitudes; either all or
        none name their subject.

        Raises:
            InputError: If the volume cannot be read.
        """

    def find(self, path: Path) -> list[tuple[str, Path]]:
        """Return the volumes of an input, each with the name of its shard.

        Raises:
            InputError: If the input is of another kind.
        """
        return [(self.name(path), path)]

    def files(self, path: Path) -> list[Path]:
        """Return the existing, non-empty files from which a volume is read.

        Raises:
            InputError: If one cannot be read.
        """
        return [check_input(path)]

    def num_bytes(self, path: Path) -> int:
        """Return the total size of these files in bytes, by which changed volumes are detected."""
        return sum(file.stat().st_size for file in self.files(path))

    def name(self, path: Path) -> str:
        """Return the file name without its suffix, which names the shard."""
        lower = path.name.lower()
        for suffix in self.suffixes:
            if lower.endswith(suffix):
                return path.name[: -len(suffix)]
        raise InputError(
            f"{path}: expected a file {' or '.join(self.suffixes)}, got "
            f"{path.suffix or 'no extension'}"
        )


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """Validate and return the image size ``(ny, nx)``."""
    ny, nx = size
    if min(ny, nx) < MIN_SIZE:
        raise InputError(f"expected a size of at least {MIN_SIZE} × {MIN_SIZE}, got {ny} × {nx}")
    return ny, nx


def central(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the central window of images ``(…, ny, nx)`` around pixel ``n // 2``; no padding."""
    (ny, nx), (size_y, size_x) = shape[-2:], size
    if size_y > ny or size_x > nx:
        raise InputError(
            f"{path}: its images of {ny} × {nx} are smaller than the size {size_y} × {size_x}, and "
            "are not padded: prepare it into another folder with a smaller --size"
        )
    first_y, first_x = ny // 2 - size_y // 2, nx // 2 - size_x // 2
    return slice(first_y, first_y + size_y), slice(first_x, first_x + size_x)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, which identifies a table in ``settings.json``."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
