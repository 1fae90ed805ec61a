"""Edits of the prompt in the experiments: omitted and wrong parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ctxrecon.metadata import ScanMetadata
from ctxrecon.metadata.scan_metadata import PromptForm
from ctxrecon.phantom.brain import NUM_SLICES as BRAIN_SLICES
from ctxrecon.phantom.brain_findings import BRAIN_FINDINGS
from ctxrecon.phantom.knee import NUM_SLICES as KNEE_SLICES
from ctxrecon.phantom.knee_findings import KNEE_FINDINGS
from ctxrecon.phantom.protocols import protocol_counts
from ctxrecon.training.prompts import DEMOGRAPHICS, MR_PARAMETERS, without

ALL = "all metadata"
NO_DEMOGRAPHICS = "− age and sex"
NO_PARAMETERS = "− MR parameters"
NO_CONTRAST = "− contrast"
NO_SLICE = "− slice"
ALL_WRONG_PATHOLOGY = "all with wrong pathology"
PATHOLOGY = "pathology only"
WRONG_PATHOLOGY = "wrong pathology only"
WRONG_FIELD = "wrong field strength"
WRONG_CONTRAST = "wrong contrast"
WRONG_TIMES = "wrong TR and TE"
WRONG_ANATOMY = "wrong anatomy"
WRONG_SLICE = "wrong slice"

_FINDINGS = {"brain": BRAIN_FINDINGS, "knee": KNEE_FINDINGS}
# The two field strengths of the real protocols, nominally 1.5 T and 3 T.
_OTHER_FIELD = {1.49: 2.89, 2.89: 1.49}
_OTHER_ANATOMY = {"brain": "knee", "knee": "brain"}
_SLICES = {"brain": BRAIN_SLICES, "knee": KNEE_SLICES}
# T1 before the contrast agent equals T1: the phantom computes both by the same equation.
_SAME_CONTRAST = {"T1PRE": "T1"}

Edit = Callable[[ScanMetadata, np.random.Generator], ScanMetadata]


def swapped_pathology(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """Replace each finding by another one of this anatomy that the slice does not show."""
    counts = Counter(metadata.pathologies)
    others = [
        name for name in _FINDINGS[metadata.anatomy or "brain"] if name not in metadata.pathologies
    ]
    names = rng.choice(np.array(others), size=len(counts), replace=False)
    swapped = dict(zip(names.tolist(), counts.values(), strict=True))
    return replace(metadata, pathologies=tuple(Counter(swapped).elements()))


def _only_findings(metadata: ScanMetadata) -> ScanMetadata:
    return ScanMetadata(pathologies=metadata.pathologies)


def wrong_field(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """Swap 1.5 T and 3 T."""
    return replace(metadata, field_strength=_OTHER_FIELD[metadata.field_strength or 1.49])


def wrong_contrast(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """Replace the protocol by a real one of another contrast, anatomy and field strength kept.

    Protocols are drawn by their frequency. T1 with and without the word PRE count as one contrast.
    If the TR is unknown, only the word for the contrast is replaced.
    """
    of_field = metadata.tr is not None

    def group(one: ScanMetadata) -> str | None:
        return _SAME_CONTRAST.get(one.contrast or "", one.contrast)

    counts = {
        one: count
        for one, count in protocol_counts().items()
        if one.anatomy == metadata.anatomy
        and (one.field_strength == metadata.field_strength or not of_field)
        and group(one) != group(metadata)
    }
    weights = np.array(list(counts.values()), dtype=np.float64)
    protocol = list(counts)[rng.choice(len(counts), p=weights / weights.sum())]
    if not of_field:
        return replace(metadata, contrast=protocol.contrast)
    kept = ("slice", "pathologies", *DEMOGRAPHICS)
    return replace(protocol, **{name: getattr(metadata, name) for name in kept})


def wrong_anatomy(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """Swap knee and brain, and remove findings, which would reveal the anatomy."""
    return replace(metadata, anatomy=_OTHER_ANATOMY[metadata.anatomy or "brain"], pathologies=())


def wrong_slice(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """Replace the slice number by one at least a third of the volume away."""
    number = metadata.slice
    if number is None:
        raise ValueError(f"expected a slice number in the metadata, got {metadata}")
    count = _SLICES[metadata.anatomy or "brain"]
    far = [other for other in range(count) if 3 * abs(other - number) >= count]
    return replace(metadata, slice=int(rng.choice(far)))


def wrong_times(metadata: ScanMetadata, rng: np.random.Generator) -> ScanMetadata:
    """Double or halve TR and TE, in any of the four combinations with TE below TR."""
    tr, te = metadata.tr, metadata.te
    if tr is None or te is None:
        raise ValueError(f"expected TR and TE in the metadata, got {metadata}")
    ways = [(tr * a, te * b) for a in (0.5, 2.0) for b in (0.5, 2.0) if te * b < tr * a]
    tr, te = ways[rng.integers(len(ways))]
    return replace(metadata, tr=round(tr, 3), te=round(te, 3))


_TAKEN_AWAY = (*MR_PARAMETERS, *DEMOGRAPHICS)
"""Age and sex are removed with the MR parameters, because the paper's Figure 4 has neither."""

EDITS: dict[str, Edit] = {
    ALL: lambda metadata, rng: metadata,
    NO_DEMOGRAPHICS: lambda metadata, rng: without(metadata, *DEMOGRAPHICS),
    NO_PARAMETERS: lambda metadata, rng: without(metadata, *_TAKEN_AWAY),
    NO_CONTRAST: lambda metadata, rng: without(metadata, *_TAKEN_AWAY, "contrast"),
    NO_SLICE: lambda metadata, rng: without(metadata, *_TAKEN_AWAY, "contrast", "slice"),
    ALL_WRONG_PATHOLOGY: swapped_pathology,
    PATHOLOGY: lambda metadata, rng: _only_findings(metadata),
    WRONG_PATHOLOGY: lambda metadata, rng: _only_findings(swapped_pathology(metadata, rng)),
    WRONG_FIELD: wrong_field,
    WRONG_CONTRAST: wrong_contrast,
    WRONG_TIMES: wrong_times,
    WRONG_ANATOMY: wrong_anatomy,
    WRONG_SLICE: wrong_slice,
}
"""Edits of the true metadata by name; randomness comes from the generator."""


def edited_prompt(
    name: str, metadata: ScanMetadata, seed: int, form: PromptForm = "fastmri"
) -> str:
    """Return the prompt of one slice after the edit ``name``; ``seed`` belongs to the slice."""
    return EDITS[name](metadata, np.random.default_rng(seed)).to_prompt(form)


def applies(name: str, metadata: ScanMetadata) -> bool:
    """Return True if the metadata contain the field that the edit ``name`` changes."""
    needed = {WRONG_TIMES: ("tr", "te"), WRONG_SLICE: ("slice",), WRONG_FIELD: ("field_strength",)}
    return all(getattr(metadata, field) is not None for field in needed.get(name, ()))
