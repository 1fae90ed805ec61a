"""The words that prompts are made of, and other spellings of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Final


class Words(dict[str, tuple[str, ...]]):
    """Canonical words with their other spellings.

    They are compared without regard to case, spaces, hyphens and underscores.

    Args:
        trained: the words of the training prompts. The tokenizer of the shipped prior is learned
            from these and their spellings, so they must not change.
        written: further spellings, also of words that no training prompt has.
    """

    def __init__(
        self,
        trained: Mapping[str, tuple[str, ...]],
        written: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__(trained)
        self._written = dict(written or {})

    @cached_property
    def spellings(self) -> dict[str, str]:
        """Every spelling in lower case with the canonical word it stands for."""
        return {
            spelling.lower(): word
            for words in (self, self._written)
            for word, others in words.items()
            for spelling in (word, *others)
        }

    @cached_property
    def _squeezed(self) -> dict[str, str]:
        return {_squeeze(spelling): word for spelling, word in self.spellings.items()}

    def canonical(self, text: str) -> str | None:
        """The canonical word for ``text``, or ``None`` when there is none."""
        return self._squeezed.get(_squeeze(text))


def _squeeze(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text.lower())


# The first words are those of the prompts that the published weights were trained on.
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
    },
    {
        "knee": ("knees", "Knie", "Kniegelenk"),
        "brain": (
            *("cerebrum", "cerebral", "cranial", "cranium", "skull", "Kopf", "Gehirn", "Hirn"),
            *("Schädel", "Schaedel", "Neurocranium"),
        ),
        "breast": ("Mamma", "mammary"),
        "prostate": ("Prostata",),
        "spine": ("spinal", "Wirbelsäule", "Wirbelsaeule", "LWS", "BWS", "HWS"),
        "heart": ("Herz", "kardial"),
        "abdomen": ("abdominal", "Bauch"),
        "phantom": ("phantoms",),
    },
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
    },
    {
        "PD": (
            *("PDWI", "PD weighting", "proton density weighted", "proton weighted"),
            *("Protonendichte", "Protonendichte gewichtet", "protonengewichtet", "PD gewichtet"),
            "PD Wichtung",
        ),
        "PDFS": ("PDW FS", "FS PDW", "PD weighted FS"),
        "T1": ("T1WI", "T1 weighting", "T1 gewichtet", "T1 Wichtung"),
        "T1PRE": ("pre-contrast T1", "T1 pre contrast", "T1 native", "T1 nativ"),
        "T1POST": (
            *("post-contrast T1", "T1 post contrast", "T1 contrast-enhanced", "T1+C", "T1 +C"),
            *("T1 Gd", "T1+Gd", "T1 gadolinium", "T1 KM", "T1+KM", "T1 mit KM"),
            "T1 mit Kontrastmittel",
        ),
        "T2": ("T2WI", "T2 weighting", "T2 gewichtet", "T2 Wichtung"),
        "FLAIR": ("FLAIR T2",),
        "T2*": ("T2 star", "T2*W", "T2* weighted", "T2 star weighted", "T2* gewichtet"),
    },
)

SEQUENCES: Final = Words(
    {
        "TurboSpinEcho": ("TSE", "FSE", "turbo spin echo", "fast spin echo"),
        "SpinEcho": ("spin echo",),
        "Flash": ("SPGR", "spoiled gradient echo"),
        "Qdess": ("DESS", "quantitative DESS"),
    },
    {
        "SpinEcho": ("SE",),
        "Flash": ("spoiled GRE", "fast low angle shot"),
        "MPRAGE": ("MP RAGE",),
        "SPACE": (),
        "HASTE": ("SSFSE", "single-shot TSE"),
        "EPI": ("echo planar imaging", "echo planar"),
        "bSSFP": ("TrueFISP", "FIESTA", "balanced SSFP"),
        "GRE": ("gradient echo", "gradient recalled echo", "Gradientenecho"),
    },
)

SEXES: Final = Words(
    {"F": ("female",), "M": ("male",), "O": ("other",)},
    {
        "F": ("woman", "weiblich", "Frau", "w"),
        "M": ("man", "männlich", "maennlich", "Mann"),
        "O": ("divers", "diverse"),
    },
)

FAT_SUPPRESSION: Final = (
    *("FS", "fat sat", "fat saturated", "fat saturation", "fat suppressed", "fat suppression"),
    *("SPAIR", "SPIR", "fettgesättigt", "fettgesaettigt", "fettsupprimiert", "fettunterdrückt"),
    *("fettunterdrueckt", "Fettsättigung", "Fettunterdrückung"),
)
"""What makes PDFS of PD; no training prompt has it with another contrast."""

FILLERS: Final = frozenset(
    {
        *("a", "an", "the", "of", "at", "in", "on", "by", "from", "and", "with", "using", "is"),
        *(
            "mri",
            "mr",
            "mrt",
            "scan",
            "scans",
            "image",
            "images",
            "imaging",
            "acquisition",
            "scanner",
        ),
        *("weighted", "sequence", "contrast", "patient", "old"),
        *("ein", "eine", "einer", "eines", "der", "die", "das", "des", "am", "bei", "im", "und"),
        *("mit", "bild", "bilder", "aufnahme", "sequenz", "gewichtet", "gewichtete", "patientin"),
    }
)
"""Words that say nothing about a scan."""

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
