"""Parsing of free-form prompts into metadata, and rewriting them in the form used in training."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.metadata.quantities import (
    FLAGS,
    QUANTITIES,
    Reading,
    alternatives,
    is_bare_number,
    literal_end,
    read_bare,
    read_quantity,
    refuse_number,
)
from ctxrecon.metadata.scan_metadata import MAX_FINDINGS, PromptForm, ScanMetadata
from ctxrecon.metadata.text import check_text, read_as, shown
from ctxrecon.metadata.vocabulary import (
    ANATOMIES,
    CONTRASTS,
    FAT_SUPPRESSION,
    FILLERS,
    SEQUENCES,
    SEXES,
)

logger = logging.getLogger(__name__)

_WORDS = {"anatomy": ANATOMIES, "contrast": CONTRASTS, "sequence": SEQUENCES}
_WORD_END = r"(?![*]|(?u:\w))"
_FAT = "fat_suppression"


def _word_pattern(spellings: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern for the spellings, with optional spaces or hyphens between words."""
    longest_first = sorted(map(str.lower, spellings), key=len, reverse=True)
    joined = (r"[\s-]?".join(map(re.escape, re.split(r"[\s_-]+", word))) for word in longest_first)
    return re.compile(rf"({'|'.join(joined)}){_WORD_END}", FLAGS)


_WORD_PATTERNS = {name: _word_pattern(words.spellings) for name, words in _WORDS.items()}
_FAT_PATTERN = _word_pattern(FAT_SUPPRESSION)
_SEX_PATTERN = re.compile(
    rf"(?:sex|gender|geschlecht)(?:\s*[:=]\s*|\s+)({alternatives(SEXES.spellings)}){_WORD_END}",
    FLAGS,
)
_BARE_SEX_PATTERN = _word_pattern(
    word for word in SEXES.spellings if len(word) > 1 and SEXES.canonical(word) != "O"
)
_SEX_KEY = re.compile(r"(sex|gender|geschlecht)\s*[:=]", FLAGS)

_TEXT_KEYS = {
    "anatomy": r"anatomy|body\s?part(?: examined)?|anatomie|körperteil",
    "contrast": r"contrast|kontrast",
    "sequence": r"sequence|sequenz",
    "pathology": r"patholog(?:y|ies)|findings?|pathologien?|befunde?",
    "other": r"other",
}
_TEXT_PATTERNS = {
    name: re.compile(rf"(?:{keys})\s*[:=]\s*(.*)", FLAGS | re.S)
    for name, keys in _TEXT_KEYS.items()
}
_COUNTED = re.compile(r"(\d{1,9})\s+(\S.*)", re.ASCII)

# Characters between understood words, and around unknown words.
_PUNCTUATION = " ()[]|/&+:.-"
_NEGATIONS = {"no", "non", "not", "without", "ohne", "kein", "keine", "nicht"}


class _Parser:
    """Reader of the parts of one prompt, one after another."""

    def __init__(self, prompt: str) -> None:
        self.text = re.sub(r"[^\S\n]+", " ", check_text("prompt", prompt))
        # Text for matching; positions refer to the text, whose own characters are kept.
        self.plain = read_as(self.text)
        self.found: dict[str, Any] = {}
        self.pathologies: list[str] = []
        self.unknown: list[str] = []
        self.in_pathologies = False
        # Field and position of a number without a unit at the end of the previous part.
        self.number: tuple[str, int] | None = None
        self.fat_suppression: list[str] = []

    def read(self) -> tuple[ScanMetadata, tuple[str, ...]]:
        """Return the metadata, and the words that were not understood."""
        for match in re.finditer(r"[^,;\n]+", self.plain):
            part = self.text[match.start() : match.end()]
            if stripped := part.strip(" "):
                start = match.start() + part.index(stripped)
                self._part(start, start + len(stripped))
        if self.found.get("contrast") == "PD" and self.fat_suppression:
            self.found["contrast"] = "PDFS"
        elif self.found.get("contrast") != "PDFS":
            self.unknown += self.fat_suppression
        metadata = ScanMetadata(pathologies=tuple(self.pathologies), **self.found)
        return metadata, tuple(self.unknown)

    def _part(self, start: int, stop: int) -> None:
        """Read a part without separators."""
        key, text = self._text_key(start, stop)
        if key is None and not (self.in_pathologies and _COUNTED.fullmatch(text)):
            self._scan(start, stop)
            return
        self.number = None
        if key == "other":
            self.unknown += [text] if text else []
        elif key in _WORDS:
            known = _WORDS[key].canonical(text)
            self._put(key, known or (text.lower() if key == "anatomy" else text))
            self.in_pathologies = False
        else:
            self.pathologies += _counted(text)
            self.in_pathologies = True

    def _text_key(self, start: int, stop: int) -> tuple[str | None, str]:
        for name, pattern in _TEXT_PATTERNS.items():
            if match := pattern.fullmatch(self.plain, start, stop):
                return name, self.text[match.start(1) : stop].strip()
        return None, self.text[start:stop]

    def _put(self, name: str, value: Any) -> None:
        if self.found.setdefault(name, value) != value:
            title = QUANTITIES[name].title.lower() if name in QUANTITIES else name
            raise InputError(
                f"the prompt states {title} twice, {self.found[name]!s:.60} and {value!s:.60}; "
                "keep one of them"
            )

    def _scan(self, start: int, stop: int) -> None:
        """Store what is understood of a part, and list the rest as unknown."""
        items = self._items(start, stop)
        readings = [item for item in items if isinstance(item, Reading)]
        runs = [item for item in items if not isinstance(item, Reading)]
        self._check_numbers(items)
        if self.in_pathologies and runs:
            self.pathologies += _counted(self.text[start:stop])
            return
        self.in_pathologies = False
        for name, value in (pair for reading in readings for pair in reading.values):
            if name == _FAT:
                self.fat_suppression.append(value)
            else:
                self._put(name, value)
        if not readings:
            self.unknown.append(self.text[start:stop])
            return
        for first, last in runs:
            words = self.text[first:last].strip(_PUNCTUATION + "_")
            if not FILLERS.issuperset(words.lower().split()):
                self.unknown.append(words)

    def _items(self, start: int, stop: int) -> list[Reading | tuple[int, int]]:
        """Return the readings in a part, and the runs ``(start, end)`` of other words between."""
        items: list[Reading | tuple[int, int]] = []
        negated = False
        position = self._skip(start, stop)
        while position < stop:
            reading = None if negated else self._next(position, stop)
            if reading is not None:
                items.append(reading)
                position = self._skip(reading.end, stop)
                continue
            end = self.plain.find(" ", position, stop)
            end = stop if end < 0 else end
            negated |= self.plain[position:end].lower() in _NEGATIONS
            if items and not isinstance(items[-1], Reading):
                items[-1] = (items[-1][0], end)
            else:
                items.append((position, end))
            position = self._skip(end, stop)
        return items

    def _skip(self, position: int, stop: int) -> int:
        while position < stop and self.plain[position] in _PUNCTUATION:
            position += 1
        return position

    def _next(self, position: int, stop: int) -> Reading | None:
        if reading := read_quantity(self.plain, position, stop):
            return reading
        for name, pattern in _WORD_PATTERNS.items():
            if match := pattern.match(self.plain, position, stop):
                return Reading(((name, _WORDS[name].canonical(match[1])),), position, match.end())
        if match := _FAT_PATTERN.match(self.plain, position, stop):
            return Reading(((_FAT, self.text[position : match.end()]),), position, match.end())
        for pattern in (_SEX_PATTERN, _BARE_SEX_PATTERN):
            if match := pattern.match(self.plain, position, stop):
                return Reading((("sex", SEXES.canonical(match[1])),), position, match.end())
        if match := _SEX_KEY.match(self.plain, position, stop):
            raise InputError(
                f"could not read the value of {match[1]} in {shown(self.text[position:stop])}; "
                "expected 'Sex: F', 'Sex: M' or 'Sex: O'"
            )
        return read_bare(self.plain, position, stop)

    def _check_numbers(self, items: list[Reading | tuple[int, int]]) -> None:
        """Reject numbers that do not belong to any quantity, or that continue the previous one."""
        for item in items:
            before, self.number = self.number, None
            if isinstance(item, Reading):
                name = item.values[-1][0]
                if before and before[0] == name and item.number == item.start:
                    refuse_number(name, self.plain, before[1])
                if item.number is not None and item.number != item.start:
                    self.number = (name, item.number)
                continue
            start, end = item
            bare = is_bare_number(self.plain[start:end]) and self.text[start - 1 : start] != "_"
            goes_on = bare or self._is_group(start)
            if before and goes_on and literal_end(self.plain, before[1]) > start:
                refuse_number(before[0], self.plain, before[1])
            if bare:
                refuse_number(None, self.plain, start)

    def _is_group(self, start: int) -> bool:
        """Return whether digits continue others: in ``3,150`` or ``3 150``, not ``20, 3 cysts``."""
        after_comma = re.match(r"\d,", self.plain[max(start - 2, 0) : start])
        return bool(after_comma or re.match(r"\d{3}(?!\S)", self.plain[start : start + 4]))


def parse_prompt(prompt: str) -> tuple[ScanMetadata, tuple[str, ...]]:
    """Parse a prompt in any order and case, complete or not.

    The parser understands the output of :meth:`ScanMetadata.to_prompt`, units (``TR: 3150 ms``,
    ``TR 3.15 s``, ``flip angle 150°``, ``3T``), parts without colons or commas
    (``Knee PDFS TR 3150``, ``t2_tse``), and common synonyms in English and German (``T2FLAIR``,
    ``TSE``, ``PD fat sat``, ``Kopf``, ``Echozeit 33``). The decimal separator is a point, and
    thousands are not separated.

    Args:
        prompt: Text of the prompt.

    Returns:
        The metadata, and the words that were not understood, in order.

    Raises:
        InputError: If the text is not UTF-8 or contains control characters, a number has a decimal
            comma, thousands separators or no name, a named field has an unreadable value
            (``TR: fast``), a field has two different values, or a value is implausible.

    Example:
        >>> from ctxrecon.metadata import parse_prompt
        >>> metadata, unknown = parse_prompt("T2 brain on the new scanner, TR 3.15 s")
        >>> metadata.tr, unknown
        (3150.0, ('on the new scanner',))
    """
    return _Parser(prompt).read()


def from_prompt(prompt: str, *, strict: bool = False) -> ScanMetadata:
    """Parse a prompt into metadata; the tolerant inverse of :meth:`ScanMetadata.to_prompt`.

    Args:
        prompt: Text of the prompt, in any form that :func:`parse_prompt` understands.
        strict: Whether to reject words that are not understood; otherwise they are ignored with a
            warning.

    Raises:
        InputError: If :func:`parse_prompt` raises it, or for unknown words if ``strict``.

    Example:
        >>> from ctxrecon.metadata import from_prompt
        >>> metadata = from_prompt("Knee PDFS, TR 3150 ms, TE: 33")
        >>> metadata.contrast, metadata.tr, metadata.te
        ('PDFS', 3150.0, 33.0)
    """
    metadata, unknown = parse_prompt(prompt)
    if unknown:
        listed = ", ".join(map(shown, unknown))
        if strict:
            raise InputError(
                f"could not read {listed} in the prompt {shown(prompt)}; write for example "
                "'knee, Slice 20, PDFS, TR: 3120, TE: 33'"
            )
        _warn_once(f"ignored in the metadata, not understood in the prompt: {listed}")
    return metadata


def canonical_prompt(prompt: str, form: PromptForm | None = None) -> str:
    """Rewrite a prompt in the order and spelling on which the prior was trained.

    Words that are not understood are kept at the end, with one warning per distinct prompt. A
    warning also names words that do not occur in any training prompt.

    Args:
        prompt: Text of the prompt, in any form that :func:`parse_prompt` understands.
        form: Form of :meth:`ScanMetadata.to_prompt` (default: ``"skm-tea"`` for the Qdess
            sequence, which only that data set has, otherwise ``"fastmri"``).

    Raises:
        InputError: If :func:`parse_prompt` raises it.

    Example:
        >>> from ctxrecon.metadata import canonical_prompt
        >>> canonical_prompt("TE 33 ms, TR 3.15 s, PD fat sat knee")
        'knee, PDFS, TR: 3150, TE: 33'
    """
    metadata, unknown = parse_prompt(prompt)
    if form is None:
        form = "skm-tea" if metadata.sequence == "Qdess" else "fastmri"
    _warn_of_unseen(metadata, unknown)
    written = metadata.to_prompt(form)
    parts = [written] if written else []
    # A bare part must not be read as one more pathology, nor as another field.
    bare = not _ends_in_pathologies(metadata, form)
    parts += [
        part if bare and _is_unknown(part, metadata.contrast) else f"Other: {part}"
        for part in unknown
    ]
    return ", ".join(parts)


def _warn_of_unseen(metadata: ScanMetadata, unknown: tuple[str, ...]) -> None:
    if unknown:
        _warn_once(
            f"not understood in the prompt: {', '.join(map(shown, unknown))}; kept at its end as "
            "free text, which the prior has not seen in training"
        )
    values = {name: getattr(metadata, name) for name in _WORDS}
    unseen = [f"{name} {shown(v)}" for name, v in values.items() if v and v not in _WORDS[name]]
    if unseen:
        _warn_once(f"the prior has not seen in training: {', '.join(unseen)}")


@lru_cache(maxsize=1024)
def _warn_once(message: str) -> None:
    """Warn only once, not for every slice, sample and command with the same prompt."""
    logger.warning(message)


def _is_unknown(part: str, contrast: str | None) -> bool:
    beside = "PD, " if contrast == "PD" else ""  # fat suppression turns PD into PDFS
    try:
        return parse_prompt(beside + part)[1] == (part,)
    except InputError:
        return False


def _ends_in_pathologies(metadata: ScanMetadata, form: PromptForm) -> bool:
    if not metadata.pathologies:
        return False
    last = metadata.to_prompt(form).rsplit(", ", 1)[-1].removeprefix("Pathology: ")
    return _COUNTED.fullmatch(last) is not None


def _counted(text: str) -> list[str]:
    """Repeat a counted label: ``"2 Meniscus Tear"`` twice, one without a number once."""
    match = _COUNTED.fullmatch(text)
    if match is None:
        return [] if text.lower() == "none" else [text]
    if not 1 <= int(match[1]) <= MAX_FINDINGS:
        raise InputError(
            f"expected the number of findings from 1 to {MAX_FINDINGS}, got {shown(text)}; "
            "leave out what is not seen"
        )
    return [match[2]] * int(match[1])
