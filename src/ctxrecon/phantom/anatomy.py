"""Anatomies: label maps at a stated resolution, with the findings a radiologist would note."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctxrecon.phantom.person import Person
from ctxrecon.phantom.shown import shown_findings

Window: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True)
class Anatomy:
    """One slice through one subject.

    Attributes:
        name: ``"brain"`` or ``"knee"``.
        labels: Tissue labels, uint8 ``(ny, nx)``, values of
            :class:`ctxrecon.phantom.tissues.Tissue`.
        voxel_mm: Edge length of a pixel of ``labels``, in mm.
        slice: Slice number within the volume, as in fastMRI files (0 is the first); ``None`` in
            planes that fastMRI does not have.
        pathologies: Findings of this slice in the terms of fastMRI+.
        structures: Structure labels for segmentation tasks, uint8 ``(ny, nx)``, values of
            :class:`ctxrecon.phantom.Structure`; ``None`` in old banks without them.
        person: Age and sex; ``None`` for slices of label volumes, whose subjects are unknown.
    """

    name: str
    labels: NDArray[np.uint8]
    voxel_mm: float
    slice: int | None
    pathologies: tuple[str, ...]
    structures: NDArray[np.uint8] | None
    person: Person | None = None

    def mirrored(self) -> Anatomy:
        """Return the anatomy mirrored from left to right."""
        return self._each(lambda values: values[:, ::-1])

    def cropped(self, window: Window) -> Anatomy:
        """Return the part of the anatomy in these rows and columns, with the findings it shows.

        Anatomies of old banks, without structures, keep all findings; see
        :func:`ctxrecon.phantom.shown.shown_findings`.
        """
        part = self._each(lambda values: values[window])
        if not self.pathologies or self.structures is None or part.structures is None:
            return part
        whole, shown = (self.labels, self.structures), (part.labels, part.structures)
        return replace(part, pathologies=shown_findings(self.pathologies, whole, shown))

    def _each(self, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> Anatomy:
        structures = None if self.structures is None else change(self.structures)
        return replace(self, labels=change(self.labels), structures=structures)
