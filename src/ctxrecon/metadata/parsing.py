"""Prompts as people write them → metadata, and → the form the prior was trained on."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.metadata.scan_metadata import MAX_FINDINGS, PromptForm, ScanMetadata
from ctxrecon.metadata.vocabulary import ANATOMIES, CONTRASTS, SEQUENCES, SEXES

logger = logging.getLogger(__name__)

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?"
_END = r"(?=\s|$)"
_FLAGS = re.IGNORECASE | re.ASCII  # else "ſ" would match "s"

# field -> (names, units with their factors)
_TIMES = {"ms": 1, "msec": 1, "s": 1000, "sec": 1000}
_QUANTITIES: dict[str, tuple[str, dict[str, int]]] = {
    "slice": (r"slice(?:\s+(?:number|no\.?|index))?", {}),
    "tr": (r"tr|repetition time", _TIMES),
    "te": (r"te|echo time", _TIMES),
    "ti": (r"ti|inversion time", _TIMES),
    "flip_angle": (r"flip[\s-]?angle|flip|fa", {"°": 1, "deg": 1, "degree": 1, "degrees": 1}),
    "age": (r"age", {"y": 1, "yr": 1, "years": 1, "year": 1}),
    "field_strength": (r"field(?:\s+strength)?|b0", {"t": 1, "tesla": 1}),
}
_TITLES = {"flip_angle": "flip angle", "field_strength": "field strength"}


def _alternatives(words: dict[str, Any]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _quantity_pattern(names: str, units: dict[str, int]) -> re.Pattern[str]:
    unit = rf"(?:\s*({_alternatives(units)}))?" if units else "()"
    return re.compile(rf"(?:{names})(?:\s*[:=]\s*|\s+|(?=\d))({_NUMBER}){unit}{_END}", _FLAGS)


_QUANTITY_PATTERNS = {
    name: _quantity_pattern(names, units) for name, (names, units) in _QUANTITIES.items()
}
_WORDS = {
    "anatomy": ANATOMIES.spellings,
    "contrast": CONTRASTS.spellings,
    "sequence": SEQUENCES.spellings,
}
_WORD_PATTERNS = {
    name: re.compile(rf"({_alternatives(words)}){_END}", _FLAGS) for name, words in _WORDS.items()
}
_SEX_WORDS = SEXES.spellings
_SEX_PATTERN = re.compile(
    rf"(?:sex|gender)(?:\s*[:=]\s*|\s+)({_alternatives(_SEX_WORDS)}){_END}", _FLAGS
)
_BARE_SEX_PATTERN = re.compile(rf"(female|male){_END}", _FLAGS)
_BARE_FIELD_PATTERN = re.compile(rf"({_NUMBER})\s*(?:t|tesla){_END}", _FLAGS)

_TEXT_KEYS = {
    "anatomy": r"anatomy|body part",
    "contrast": r"contrast",
    "sequence": r"sequence",
    "pathology": r"patholog(?:y|ies)|findings?",
    "other": r"other",
}
_TEXT_PATTERNS = {
    name: re.compile(rf"(?:{keys})\s*[:=]\s*(.*)", _FLAGS | re.S)
    for name, keys in _TEXT_KEYS.items()
}
_VALUE_KEY = re.compile(
    rf"(?:^|\s)({'|'.join(names for names, _ in _QUANTITIES.values())}|sex|gender)\s*[:=]", _FLAGS
)
_COUNTED = re.compile(r"(\d{1,9})\s+(\S.*)", re.ASCII)


def parse_prompt(prompt: str) -> tuple[ScanMetadata, tuple[str, ...]]:
    """Read a prompt in any order, case and completeness.

    Understood are the forms of :meth:`ScanMetadata.to_prompt`, units (``TR: 3150 ms``, ``TR 3.15
    s``, ``flip angle 150°``, ``3T``), parts without a colon or a comma (``Knee PDFS TR 3150``) and
    usual other names (``T2FLAIR``, ``TSE``, ``fat-suppressed PD``).

    Returns:
        The metadata and the parts that were not understood, in their order.

    Raises:
        InputError: when a named field has a value that cannot be read (``TR: fast``), when a
            field is given twice with different values, or when a value is impossible.
    """
    if not isinstance(prompt, str):
        raise InputError(f"expected the prompt as a string, got {type(prompt).__name__}")
    found: dict[str, Any] = {}
    pathologies: list[str] = []
    unknown: list[str] = []
    in_pathologies = False

    def put(name: str, value: Any) -> None:
        if found.setdefault(name, value) != value:
            raise InputError(
                f"the prompt gives {_TITLES.get(name, name)} twice, {found[name]} and {value}; "
                "keep one of them"
            )

    for part in re.split(r"[,;\n]", prompt):
        part = " ".join(part.split())
        if not part:
            continue
        key, text = _split_text_key(part)
        if key == "other":
            unknown += [text] if text else []
        elif key in _WORDS:
            put(key, _WORDS[key].get(text.lower(), text.lower() if key == "anatomy" else text))
            in_pathologies = False
        elif key == "pathology":
            pathologies += _counted(text)
            in_pathologies = True
        elif in_pathologies and _COUNTED.fullmatch(part):
            pathologies += _counted(part)
        elif (values := _scan(part)) is not None:
            for name, value in values:
                put(name, value)
            in_pathologies = False
        elif in_pathologies:
            pathologies += _counted(part)
        else:
            unknown.append(part)
    return ScanMetadata(pathologies=tuple(pathologies), **found), tuple(unknown)


def from_prompt(prompt: str, *, strict: bool = False) -> ScanMetadata:
    """Inverse of :meth:`ScanMetadata.to_prompt`, tolerant of how people write.

    Args:
        prompt: see :func:`parse_prompt`.
        strict: refuse parts that are not understood; otherwise they are logged and left out.

    Raises:
        InputError: as :func:`parse_prompt`, and for unknown parts when ``strict``.
    """
    metadata, unknown = parse_prompt(prompt)
    if unknown:
        listed = ", ".join(repr(part) for part in unknown)
        if strict:
            raise InputError(
                f"could not read {listed} in the prompt {prompt!r}; write for example "
                "'knee, Slice 20, PDFS, TR: 3120, TE: 33'"
            )
        logger.warning("left out of the metadata, not understood in the prompt: %s", listed)
    return metadata


def canonical_prompt(prompt: str, form: PromptForm | None = None) -> str:
    """A person's prompt in the order and spelling that the prior was trained on.

    What is not understood follows at the end, so nothing that was written is lost.

    Args:
        prompt: see :func:`parse_prompt`.
        form: as in :meth:`ScanMetadata.to_prompt`; by default ``"skm-tea"`` for the Qdess
            sequence, which only that data set has, and ``"fastmri"`` otherwise.

    Raises:
        InputError: as :func:`parse_prompt`.
    """
    metadata, unknown = parse_prompt(prompt)
    if form is None:
        form = "skm-tea" if metadata.sequence == "Qdess" else "fastmri"
    written = metadata.to_prompt(form)
    parts = [written] if written else []
    if unknown:
        logger.info("kept at the end of the prompt, not understood: %s", ", ".join(unknown))
    # A bare part must not read as one more pathology, nor as a field that it was kept from being.
    bare = not _ends_in_pathologies(metadata, form)
    parts += [part if bare and _is_unknown(part) else f"Other: {part}" for part in unknown]
    return ", ".join(parts)


def _is_unknown(part: str) -> bool:
    try:
        return parse_prompt(part)[1] == (part,)
    except InputError:
        return False


def _ends_in_pathologies(metadata: ScanMetadata, form: PromptForm) -> bool:
    if not metadata.pathologies:
        return False
    last = metadata.to_prompt(form).rsplit(", ", 1)[-1].removeprefix("Pathology: ")
    return _COUNTED.fullmatch(last) is not None


def _split_text_key(part: str) -> tuple[str | None, str]:
    for name, pattern in _TEXT_PATTERNS.items():
        if match := pattern.fullmatch(part):
            return name, match[1].strip()
    return None, part


def _counted(text: str) -> list[str]:
    """``"2 Meniscus Tear"`` → the label twice; without a number once."""
    match = _COUNTED.fullmatch(text)
    if match is None:
        return [] if text.lower() == "none" else [text]
    if not 1 <= int(match[1]) <= MAX_FINDINGS:
        raise InputError(
            f"expected the number of findings from 1 to {MAX_FINDINGS}, got {text!r}; "
            "leave out what is not seen"
        )
    return [match[2]] * int(match[1])


def _scan(part: str) -> list[tuple[str, Any]] | None:
    """Every field in a part without commas, or ``None`` when any of it is not understood."""
    values: list[tuple[str, Any]] = []
    position = 0
    while position < len(part):
        step = _next_value(part, position)
        if step is None:
            if key := _VALUE_KEY.search(part):
                raise InputError(
                    f"could not read the value of {key[1]} in {part!r}; expected for example "
                    "'TR: 3120', 'TE: 33 ms', 'Flip angle: 140', 'Sex: F' or 'Slice 20'"
                )
            return None
        name, value, position = step
        values.append((name, value))
        while position < len(part) and part[position] == " ":
            position += 1
    return values


def _next_value(part: str, position: int) -> tuple[str, Any, int] | None:
    for name, pattern in _QUANTITY_PATTERNS.items():
        if match := pattern.match(part, position):
            factor = _QUANTITIES[name][1].get((match[2] or "").lower(), 1)
            return name, _value(name, match[1], factor), match.end()
    for name, pattern in _WORD_PATTERNS.items():
        if match := pattern.match(part, position):
            return name, _WORDS[name][match[1].lower()], match.end()
    for pattern in (_SEX_PATTERN, _BARE_SEX_PATTERN):
        if match := pattern.match(part, position):
            return "sex", _SEX_WORDS[match[1].lower()], match.end()
    if match := _BARE_FIELD_PATTERN.match(part, position):
        return "field_strength", float(match[1]), match.end()
    return None


def _value(name: str, text: str, factor: int) -> float | int:
    exact = Decimal(text) * factor
    if name == "slice":
        if exact != exact.to_integral_value():
            raise InputError(f"expected the slice as a whole number, got {text}")
        return int(exact)
    return float(exact)
