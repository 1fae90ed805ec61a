"""What a prompt is made of in each experiment: parts left out, and parts that are wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom.brain_findings import BRAIN_FINDINGS
from ctxrecon.phantom.knee_findings import KNEE_FINDINGS
from ctxrecon.phantom.protocols import protocol_counts
from ctxrecon.training.prompts import MR_PARAMETERS, without

ALL = "all metadata"
NO_PARAMETERS = "− MR parameters"
NO_CONTRAST = "− contrast"
NO_SLICE = "− slice"
PATHOLOGY = "pathology only"
WRONG_PATHOLOGY = "wrong pathology only"
WRONG_FIELD = "wrong field strength"
WRONG_CONTRAST = "wrong contrast"
WRONG_TIMES = "wrong TR and TE"

_FINDINGS = {"brain": BRAIN_FINDINGS, "knee": KNEE_FINDINGS}
# The two field strengths of the real protocols, nominally 1.5 T and 3 T.
_OTHER_FIELD = {1.49: 2.89, 2.89: 1.49}
# T1 before the contrast agent is T1: the phantom computes both by one equation.
_SAME_CONTRAST = {"T1PRE": "T1"}

Edit = Callable[[ScanMetadata, np.random.Generator], ScanMetadata]


def wrong_pathology(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """Only findings, each swapped for another one of this anatomy that the slice does not show."""
    counts = Counter(metadata.pathologies)
    others = [
        name for name in _FINDINGS[metadata.anatomy or "brain"] if name not in metadata.pathologies
    ]
    names = rng.choice(np.array(others), size=len(counts), replace=False)
    swapped = dict(zip(names.tolist(), counts.values(), strict=True))
    return ScanMetadata(pathologies=tuple(Counter(swapped).elements()))


def wrong_field(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """3 T for 1.5 T, and the other way round."""
    return replace(metadata, field_strength=_OTHER_FIELD[metadata.field_strength or 1.49])


def wrong_contrast(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """A real protocol of another contrast of this anatomy at this field strength.

    Drawn as often as it occurs. T1 with and without the word PRE count as one contrast.
    """

    def group(one: ScanMetadata) -> str | None:
        return _SAME_CONTRAST.get(one.contrast or "", one.contrast)

    counts = {
        one: count
        for one, count in protocol_counts().items()
        if (one.anatomy, one.field_strength) == (metadata.anatomy, metadata.field_strength)
        and group(one) != group(metadata)
    }
    weights = np.array(list(counts.values()), dtype=np.float64)
    protocol = list(counts)[rng.choice(len(counts), p=weights / weights.sum())]
    return replace(protocol, slice=metadata.slice, pathologies=metadata.pathologies)


def wrong_times(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """TR and TE each doubled or halved, any of the four ways that keep TE below TR."""
    tr, te = metadata.tr, metadata.te
    if tr is None or te is None:
        raise ValueError(f"expected TR and TE in the metadata, got {metadata}")
    ways = [(tr * a, te * b) for a in (0.5, 2.0) for b in (0.5, 2.0) if te * b < tr * a]
    tr, te = ways[rng.integers(len(ways))]
    return replace(metadata, tr=round(tr, 3), te=round(te, 3))


EDITS: dict[str, Edit] = {
    ALL: lambda metadata, rng: metadata,
    NO_PARAMETERS: lambda metadata, rng: without(metadata, *MR_PARAMETERS),
    NO_CONTRAST: lambda metadata, rng: without(metadata, *MR_PARAMETERS, "contrast"),
    NO_SLICE: lambda metadata, rng: without(metadata, *MR_PARAMETERS, "contrast", "slice"),
    PATHOLOGY: lambda metadata, rng: ScanMetadata(pathologies=metadata.pathologies),
    WRONG_PATHOLOGY: wrong_pathology,
    WRONG_FIELD: wrong_field,
    WRONG_CONTRAST: wrong_contrast,
    WRONG_TIMES: wrong_times,
}
"""Name to what it makes of the true metadata; whatever is random comes from the generator."""


def edited_prompt(name: str, metadata: ScanMetadata, seed: int) -> str:
    """The prompt of one slice after the edit ``name``; ``seed`` is the slice's own."""
    return EDITS[name](metadata, np.random.default_rng(seed)).to_prompt()
