"""What an anatomy is: a label map at a stated resolution, with what a radiologist would note."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ctxrecon.phantom.person import Person


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
        structures: ``(ny, nx)`` uint8 finer segmentation (FreeSurfer labels of a label volume,
            else equal to ``labels``), for segmentation tasks.
        person: age and sex, where they are known: slices of label volumes have none, as their
            shape belongs to somebody whose age nobody noted.
    """

    name: str
    labels: NDArray[np.uint8]
    voxel_mm: float
    slice: int | None
    pathologies: tuple[str, ...]
    structures: NDArray[np.uint8]
    person: Person | None = None
