"""Findings of a slice that a part of it shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ctxrecon.phantom.structures import Structure
from ctxrecon.phantom.tissues import Tissue

STRUCTURES = {
    "Mass": Structure.MASS,
    "Extra-axial mass": Structure.MASS,
    "Edema": Structure.EDEMA,
    "Enlarged ventricles": Structure.VENTRICLES,
}
"""Structure of each finding that is one."""
TISSUES = {
    "Nonspecific white matter lesion": Tissue.WHITE_MATTER_LESION,
    "Global label: Small vessel chronic white matter ischemic change": Tissue.WHITE_MATTER_LESION,
    "Nonspecific lesion": Tissue.WHITE_MATTER_LESION,
    "Posttreatment change": Tissue.WHITE_MATTER_LESION,
    "Encephalomalacia": Tissue.INFARCT,
    "Lacunar infarct": Tissue.INFARCT,
    "Meniscus Tear": Tissue.MENISCUS_TEAR,
    "Cartilage - Partial Thickness loss/defect": Tissue.CARTILAGE_DEFECT,
    "Cartilage - Full Thickness loss/defect": Tissue.CARTILAGE_DEFECT,
    "Bone-Fracture/Contusion/dislocation": Tissue.BONE_EDEMA,
    "Bone- Subchondral edema": Tissue.BONE_EDEMA,
    "Bone - Lesion": Tissue.MASS,
    "Soft Tissue Lesion": Tissue.MASS,
}
"""Tissue of each finding with one that healthy anatomies do not have."""
_ENOUGH = 12
"""Fine pixels with which a finding is visible; smaller ones have to be shown completely."""
_MOST = 0.9
"""Share of the body that a part has to show to be described by findings of unknown place."""

Maps: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Tissue labels and structure labels ``(ny, nx)``."""


def shown_findings(findings: Sequence[str], whole: Maps, part: Maps) -> tuple[str, ...]:
    """Return the findings of a slice that a part of it shows.

    Findings with a structure or tissue of their own, such as masses, lesions and meniscus tears,
    are shown by a part with at least 12 of their pixels, or with all of them. Others, such as an
    effusion, cannot be told from healthy tissue by their labels, and count as shown by a part with
    at least 90 % of the body's pixels. Two findings of one tissue are not told apart.

    Args:
        findings: Findings of the slice.
        whole: Labels of the slice.
        part: Labels of the part.
    """
    return tuple(name for name in findings if _is_shown(name, whole, part))


def _is_shown(name: str, whole: Maps, part: Maps) -> bool:
    if name in STRUCTURES:
        shown, drawn = (_count(structures, STRUCTURES[name]) for _, structures in (part, whole))
    elif name in TISSUES:
        shown, drawn = (_count(labels, TISSUES[name]) for labels, _ in (part, whole))
    else:
        return bool(np.count_nonzero(part[0]) >= _MOST * np.count_nonzero(whole[0]))
    return shown >= max(1, min(_ENOUGH, drawn))


def _count(labels: NDArray[np.uint8], value: int) -> int:
    return int(np.count_nonzero(labels == value))
