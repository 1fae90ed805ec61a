"""What an anatomy is: a label map at a stated resolution, with what a radiologist would note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctxrecon.phantom.person import Person

Window: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True)
class Anatomy:
    """One slice through one subject.

    Attributes:
        name: ``"brain"`` or ``"knee"``.
        labels: ``(ny, nx)`` uint8, values of :class:`ctxrecon.phantom.tissues.Tissue`.
        voxel_mm: edge length of a pixel of ``labels``, in mm.
        slice: slice number within the volume, as in a fastMRI file (0 is the first); ``None``
            in planes that fastMRI does not have.
        pathologies: findings of this slice in the words of fastMRI+.
        structures: ``(ny, nx)`` uint8, values of :class:`ctxrecon.phantom.Structure`, for
            segmentation tasks; ``None`` from a bank of before they were noted.
        person: age and sex, where they are known: slices of label volumes have none, as their
            shape belongs to somebody whose age nobody noted.
    """

    name: str
    labels: NDArray[np.uint8]
    voxel_mm: float
    slice: int | None
    pathologies: tuple[str, ...]
    structures: NDArray[np.uint8] | None
    person: Person | None = None

    def mirrored(self) -> Anatomy:
        """The same from left to right."""
        return self._each(lambda values: values[:, ::-1])

    def cropped(self, window: Window) -> Anatomy:
        """The part of it in these rows and columns."""
        return self._each(lambda values: values[window])

    def _each(self, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Anatomy:
        structures = None if self.structures is None else change(self.structures)
        return replace(self, labels=change(self.labels), structures=structures)
