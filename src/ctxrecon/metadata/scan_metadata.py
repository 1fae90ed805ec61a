"""Validated metadata of one slice, and its prompt in the form used in training."""

from __future__ import annotations

import math
import operator
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from ctxrecon.errors import InputError
from ctxrecon.metadata.text import SEPARATORS, check_text, shown
from ctxrecon.metadata.vocabulary import ANATOMIES, CONTRASTS, SEQUENCES, SEXES, Words

MAX_FINDINGS = 999
"""Maximum number of findings in one slice; fastMRI+ has at most 19."""

PromptForm = Literal["fastmri", "skm-tea"]


# field -> (title, expected value, plausible range, whether 0 is accepted as well, unit)
_NUMBERS = {
    "tr": ("TR", "a repetition time above 0 ms", (0.01, 1e5), False, "ms"),
    "te": ("TE", "an echo time of 0 ms or more", (1e-3, 1e4), True, "ms"),
    "ti": ("TI", "an inversion time of 0 ms or more", (1e-3, 1e5), True, "ms"),
    "flip_angle": ("flip angle", "an angle in (0, 360] degrees", (1e-3, 360), False, "degrees"),
    "age": ("age", "an age from 0 to 150 years", (1e-3, 150), True, "years"),
    "field_strength": ("field strength", "a field strength above 0 tesla", (1e-3, 25), False, "T"),
}
_MAX_SLICE = 100_000

# Its second echo is the time-reversed steady-state signal at 2 TR - TE.
_ECHO_AFTER_TR = "Qdess"

_DIGITS = 6
"""Significant digits of numbers in prompts; header tables have no more."""


@dataclass(frozen=True)
class ScanMetadata:
    """Metadata of one slice; unknown fields are ``None`` or empty.

    Known words are converted to the spelling of the training prompts (``"AXT2"`` becomes
    ``"T2"``); other words are kept. Equal pathologies are grouped.

    Attributes:
        anatomy: Body part in lower case: ``"knee"``, ``"brain"``, …
        slice: Number of the slice in its volume, counted from 0.
        contrast: ``"PD"``, ``"PDFS"``, ``"T1"``, ``"T1PRE"``, ``"T1POST"``, ``"T2"``, ``"FLAIR"`` …
        pathologies: Findings in the slice, in the words of fastMRI+; a finding that occurs several
            times is listed several times.
        sequence: ``"TurboSpinEcho"``, ``"Flash"``, ``"Qdess"``, …
        tr: Repetition time in ms.
        te: Echo time in ms, below TR (for Qdess, which has an echo after TR, below twice TR).
        ti: Inversion time in ms as stated in the header, also for sequences without inversion.
        flip_angle: Flip angle in degrees; for a turbo spin echo the refocusing angle.
        age: Age in years.
        sex: ``"F"``, ``"M"`` or ``"O"``.
        field_strength: Field strength in tesla.

    Raises:
        InputError: If a value is invalid or implausible.

    Example:
        >>> from ctxrecon.metadata import ScanMetadata
        >>> metadata = ScanMetadata("knee", slice=20, contrast="CORPDFS_FBK", tr=3120, te=33)
        >>> metadata.to_prompt()
        'knee, Slice 20, PDFS, TR: 3120, TE: 33'
    """

    anatomy: str | None = None
    slice: int | None = None
    contrast: str | None = None
    pathologies: tuple[str, ...] = ()
    sequence: str | None = None
    tr: float | None = None
    te: float | None = None
    ti: float | None = None
    flip_angle: float | None = None
    age: float | None = None
    sex: str | None = None
    field_strength: float | None = None

    def __post_init__(self) -> None:
        """Validate every field and convert known words to their canonical spelling."""

        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name, words in (
            ("anatomy", ANATOMIES),
            ("contrast", CONTRASTS),
            ("sequence", SEQUENCES),
        ):
            value = getattr(self, name)
            if value is not None:
                text = _text(name, value)
                text = words.canonical(text) or text
                put(name, text.lower() if name == "anatomy" else text)
        if self.sex is not None:
            sex = SEXES.canonical(self.sex) if isinstance(self.sex, str) else None
            if sex is None:
                raise InputError(f"expected sex as 'F', 'M' or 'O', got {self.sex!r}")
            put("sex", sex)
        if self.slice is not None:
            put("slice", _slice(self.slice))
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None:
                put(name, _number(name, value))
        self._check_echo_time()
        if isinstance(self.pathologies, str):
            raise InputError(
                f"expected pathologies as a tuple of labels, got the string {self.pathologies!r}"
            )
        counts = Counter(_text("pathology", label) for label in self.pathologies)
        if counts.total() > MAX_FINDINGS:
            raise InputError(f"expected at most {MAX_FINDINGS} findings, got {counts.total()}")
        put("pathologies", tuple(counts.elements()))

    def _check_echo_time(self) -> None:
        if self.te is None or self.tr is None:
            return
        latest = 2 * self.tr if self.sequence == _ECHO_AFTER_TR else self.tr
        if self.te >= latest:
            raise InputError(
                f"expected TE below {'twice ' if latest > self.tr else ''}TR, got TE "
                f"{self.te:g} ms and TR {self.tr:g} ms: write thousands as in 'TR: 3150' and "
                "seconds as in 'TR: 3.15 s'"
            )

    def to_prompt(self, form: PromptForm = "fastmri") -> str:
        """Return the prompt in the exact form on which the published weights were trained.

        Unknown fields are omitted. Fields that the published form lacks (age, sex and field
        strength in fastMRI's form) follow at the end, so that
        :func:`ctxrecon.metadata.from_prompt` recovers all fields; numbers are rounded to 6
        significant digits.

        Args:
            form: ``"fastmri"`` for ``knee, Slice 20, PDFS, Pathology: 1 Meniscus Tear, Sequence:
                TurboSpinEcho, TR: 3120, TE: 33, TI: 100, Flip angle: 140``, or ``"skm-tea"`` for
                ``Qdess, Knee, Slice 46, Age: 48, Sex: F, TR: 20.36, TE: 6.428, Flip Angle: 20``.

        Raises:
            InputError: If the form is unknown.

        Example:
            >>> from ctxrecon.metadata import ScanMetadata
            >>> metadata = ScanMetadata("knee", slice=46, sequence="Qdess", tr=20.36, te=6.428)
            >>> metadata.to_prompt("skm-tea")
            'Qdess, Knee, Slice 46, TR: 20.36, TE: 6.428'
        """
        if form not in ("fastmri", "skm-tea"):
            raise InputError(f"expected the prompt form 'fastmri' or 'skm-tea', got {form!r}")
        skm_tea = form == "skm-tea"
        anatomy = self.anatomy
        if anatomy is not None and anatomy in ANATOMIES and skm_tea:
            anatomy = anatomy.capitalize()
        parts = {
            "anatomy": _word("Anatomy", anatomy, ANATOMIES),
            "slice": None if self.slice is None else f"Slice {self.slice}",
            "contrast": _word("Contrast", self.contrast, CONTRASTS),
            "pathology": self._pathology_part(),
            "sequence": _keyed("Sequence", self.sequence),
            "tr": _keyed("TR", self.tr),
            "te": _keyed("TE", self.te),
            "ti": _keyed("TI", self.ti),
            "flip": _keyed("Flip Angle" if skm_tea else "Flip angle", self.flip_angle),
            "age": _keyed("Age", self.age),
            "sex": _keyed("Sex", self.sex),
            "field": _keyed("Field strength", self.field_strength),
        }
        order = "anatomy slice contrast pathology sequence tr te ti flip age sex field"
        if skm_tea:
            parts["sequence"] = _word("Sequence", self.sequence, SEQUENCES)
            order = "sequence anatomy slice age sex pathology tr te flip contrast ti field"
        return ", ".join(part for name in order.split() if (part := parts[name]) is not None)

    def _pathology_part(self) -> str | None:
        if not self.pathologies:
            return None
        counts = Counter(self.pathologies)
        return "Pathology: " + ", ".join(f"{n} {label}" for label, n in counts.items())


def _text(name: str, value: Any) -> str:
    text = " ".join(check_text(name, value).split()) if isinstance(value, str) else ""
    if not text:
        raise InputError(f"expected {name} as words, got {value!r}; leave it out if unknown")
    if any(mark in text for mark in SEPARATORS):
        raise InputError(
            f"expected {name} without commas or semicolons, which separate the parts of a prompt, "
            f"got {shown(value)}"
        )
    return text


def _slice(value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise InputError(f"expected the slice as a whole number, got {value!r}") from None
    if number < 0:
        raise InputError(f"expected a slice number of 0 or more, got {Decimal(number):.6g}")
    if number > _MAX_SLICE:  # the number may be too large for a float
        raise InputError(
            f"expected a slice number of at most {_MAX_SLICE}, got {Decimal(number):.6g}"
        )
    return number


def _number(name: str, value: Any) -> float:
    title, expected, (least, largest), zero, unit = _NUMBERS[name]
    if isinstance(value, (bool, str)):
        raise InputError(f"expected {title} as a number, got {shown(value)}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"expected {title} as a number, got {shown(value)}") from None
    if not math.isfinite(number):
        raise InputError(f"expected {title} as a finite number, got {number}")
    if not (least <= number <= largest or (zero and number == 0)):
        raise InputError(
            f"expected {title} to be {expected}, got {number:g}; plausible are {least:g} to "
            f"{largest:g} {unit}"
        )
    return number + 0.0  # turns -0.0 into 0.0


def format_number(value: float) -> str:
    """Format a number without exponent, rounded to 6 significant digits: ``3120``, ``6.428``."""
    return f"{Decimal(f'{value:.{_DIGITS}g}'):f}"


def _keyed(key: str, value: float | str | None) -> str | None:
    if value is None:
        return None
    return f"{key}: {value if isinstance(value, str) else format_number(value)}"


def _word(key: str, value: str | None, words: Words) -> str | None:
    """Return a known word alone, as in training, and others with their key for parsing."""
    if value is None or words.canonical(value) in words:
        return value
    return f"{key}: {value}"
