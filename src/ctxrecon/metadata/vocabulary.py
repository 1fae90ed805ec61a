"""Vocabulary of the prompts, with synonyms and other spellings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Final


class Words(dict[str, tuple[str, ...]]):
    """Canonical words with their other spellings.

    Words are compared regardless of case, spaces, hyphens and underscores.

    Args:
        trained: Words of the training prompts and their spellings. The tokenizer of the shipped
            prior was trained on these, so they must not change.
        written: Further spellings, including words that do not occur in training prompts.
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
        """Every spelling in lower case, with its canonical word."""
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
        """Return the canonical word for ``text``, or ``None`` if it is unknown."""
        return self._squeezed.get(_squeeze(text))


def _squeeze(text: str) -> str:
    return re.sub(r"[\s_-]+", "", text.lower())


# The first words are those of the prompts on which the published weights were trained.
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
"""Words that turn PD into PDFS; training prompts combine them with no other contrast."""

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
"""Words without information about a scan."""

# fastMRI acquisition names state the plane of the scan, which implies the body part.
FASTMRI_ANATOMY: Final[dict[str, str]] = {
    "CORPD_FBK": "knee",
    "CORPDFS_FBK": "knee",
    "AXT1": "brain",
    "AXT1PRE": "brain",
    "AXT1POST": "brain",
    "AXT2": "brain",
    "AXFLAIR": "brain",
}
