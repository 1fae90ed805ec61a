"""Structures for segmentation tasks, and their location in anatomies."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ctxrecon.phantom.tissues import Tissue


class Structure(IntEnum):
    """Label of each structure in an anatomy's segmentation."""

    NONE = 0
    MASS = 1
    """Mass including its necrotic core."""
    EDEMA = 2
    """Edema around a mass."""
    VENTRICLES = 3
    """Ventricles without the choroid plexus."""
    DEEP_GRAY_MATTER = 4
    CARTILAGE = 5
    MENISCUS = 6
    """Meniscus including its tears."""


_OF_TISSUES = {
    Tissue.DEEP_GRAY_MATTER: Structure.DEEP_GRAY_MATTER,
    Tissue.CARTILAGE: Structure.CARTILAGE,
    Tissue.MENISCUS: Structure.MENISCUS,
    Tissue.MENISCUS_TEAR: Structure.MENISCUS,
}
DEEP_GRAY_LABELS = (10, 11, 12, 13, 26, 27, 49, 50, 51, 52, 58, 59, 80, 81, 82)
"""FreeSurfer labels of deep gray matter, including its hypointensities."""
_OF_FREESURFER = {
    Structure.VENTRICLES: (4, 5, 14, 15, 43, 44),
    Structure.DEEP_GRAY_MATTER: DEEP_GRAY_LABELS,
}


def add_tissues(structures: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Add the structures that are whole tissues to a segmentation, where it has none yet.

    Args:
        structures: Structure labels ``(ny, nx)``, values of :class:`Structure`.
        labels: Tissue labels ``(ny, nx)``, values of :class:`~ctxrecon.phantom.Tissue`.
    """
    table = np.zeros(256, np.uint8)
    for tissue, structure in _OF_TISSUES.items():
        table[tissue] = structure
    return np.where(structures == Structure.NONE, table[labels], structures)


def of_freesurfer(labels: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return the segmentation of a slice of FreeSurfer labels."""
    found = np.zeros(labels.shape, np.uint8)
    for structure, values in _OF_FREESURFER.items():
        found[np.isin(labels, values)] = structure
    return found
