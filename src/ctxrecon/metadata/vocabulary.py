"""The words that prompts are made of, and other spellings of them."""

from __future__ import annotations

from functools import cached_property
from typing import Final


class Words(dict[str, tuple[str, ...]]):
    """Canonical words with their other spellings, compared without regard to case."""

    @cached_property
    def spellings(self) -> dict[str, str]:
        """Every lower-case spelling with the canonical word it stands for."""
        return {
            spelling.lower(): word for word, others in self.items() for spelling in (word, *others)
        }

    def canonical(self, text: str) -> str | None:
        """The canonical word for ``text``, or ``None`` when there is none."""
        return self.spellings.get(" ".join(text.lower().split()))


# The canonical words are those of the prompts that the published weights were trained on.
ANATOMIES: Final = Words(
    {
        "knee": (),
        "brain": ("head",),
        "breast": (),
        "prostate": (),
        "spine": (),
        "heart": ("cardiac",),
        "abdomen": (),
        "phantom": (),
    }
)

CONTRASTS: Final = Words(
    {
        "PD": ("CORPD_FBK", "CORPD", "PDW", "PD-weighted", "proton density"),
        "PDFS": (
            "CORPDFS_FBK",
            "CORPDFS",
            "PD FS",
            "PD-FS",
            "FS PD",
            "fat-suppressed PD",
            "fat suppressed PD",
            "fat-saturated PD",
        ),
        "T1": ("AXT1", "T1W", "T1-weighted", "T1 weighted"),
        "T1PRE": ("AXT1PRE", "T1 PRE"),
        "T1POST": ("AXT1POST", "T1 POST", "T1-POST", "T1CE", "contrast-enhanced T1"),
        "T2": ("AXT2", "T2W", "T2-weighted", "T2 weighted"),
        "FLAIR": ("AXFLAIR", "T2FLAIR", "T2-FLAIR", "T2 FLAIR"),
    }
)

SEQUENCES: Final = Words(
    {
        "TurboSpinEcho": ("TSE", "FSE", "turbo spin echo", "fast spin echo"),
        "SpinEcho": ("spin echo",),
        "Flash": ("SPGR", "spoiled gradient echo"),
        "Qdess": ("DESS", "quantitative DESS"),
    }
)

SEXES: Final = Words({"F": ("female",), "M": ("male",), "O": ("other",)})

# fastMRI acquisitions name the plane of the scan, and with it the body part.
FASTMRI_ANATOMY: Final[dict[str, str]] = {
    "CORPD_FBK": "knee",
    "CORPDFS_FBK": "knee",
    "AXT1": "brain",
    "AXT1PRE": "brain",
    "AXT1POST": "brain",
    "AXT2": "brain",
    "AXFLAIR": "brain",
}
