"""The structures that segmentation tasks look for, and where anatomies have them."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ctxrecon.phantom.tissues import Tissue


class Structure(IntEnum):
    """Value of each structure in an anatomy's segmentation."""

    NONE = 0
    MASS = 1
    """With its necrotic core."""
    EDEMA = 2
    """Around a mass."""
    VENTRICLES = 3
    """Without the choroid plexus."""
    DEEP_GRAY_MATTER = 4
    CARTILAGE = 5
    MENISCUS = 6
    """With its tears."""


_OF_TISSUES = {
    Tissue.DEEP_GRAY_MATTER: Structure.DEEP_GRAY_MATTER,
    Tissue.CARTILAGE: Structure.CARTILAGE,
    Tissue.MENISCUS: Structure.MENISCUS,
    Tissue.MENISCUS_TEAR: Structure.MENISCUS,
}
_OF_FREESURFER = {
    Structure.VENTRICLES: (4, 5, 14, 15, 43, 44),
    Structure.DEEP_GRAY_MATTER: (10, 11, 12, 13, 26, 49, 50, 51, 52, 58),
}


def add_tissues(structures: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A segmentation with the structures that are whole tissues, where it has none yet.

    Args:
        structures: ``(ny, nx)``, values of :class:`Structure`.
        labels: likewise, values of :class:`~ctxrecon.phantom.Tissue`.
    """
    table = np.zeros(256, np.uint8)
    for tissue, structure in _OF_TISSUES.items():
        table[tissue] = structure
    return np.where(structures == Structure.NONE, table[labels], structures)


def of_freesurfer(labels: NDArray[np.int16]) -> NDArray[np.uint8]:
    """The segmentation of a slice of a label volume, whose values are FreeSurfer's."""
    found = np.zeros(labels.shape, np.uint8)
    for structure, values in _OF_FREESURFER.items():
        found[np.isin(labels, values)] = structure
    return found
