"""Numbers with names and units in prompts, and interpretations of other notations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from ctxrecon.errors import InputError
from ctxrecon.metadata.text import shown

FLAGS = re.IGNORECASE | re.ASCII  # without ASCII, "ſ" would match "s"
END = r"(?=[\s)\]|]|\.?$|\.\s)"
"""What may follow a number or its unit."""

_PLAIN = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d{1,3})?"
# Groups of digits, with the decimal and thousands separators of various countries.
_GROUPED = r"[-+]?\d+(?:(?:,\ ?|[.']|\ )\d+)*(?:e[-+]?\d{1,3})?"

_TIMES = {
    **dict.fromkeys(("ms", "msec", "msek", "millisecond", "milliseconds", "Millisekunden"), 1),
    **dict.fromkeys(("s", "sec", "sek", "second", "seconds", "Sekunde", "Sekunden"), 1000),
    **dict.fromkeys(
        ("us", "usec", "μs", "μsec", "microsecond", "microseconds", "Mikrosekunden"),
        Decimal("0.001"),
    ),
}
_ANGLES = dict.fromkeys(("°", "deg", "degree", "degrees", "Grad"), 1)
_AGES = dict.fromkeys(("y", "yr", "yrs", "yo", "year", "years", "year old", "years old"), 1)
_AGES |= dict.fromkeys(("Jahr", "Jahre", "jährig"), 1)
_FIELDS = dict.fromkeys(("t", "tesla"), 1) | dict.fromkeys(("mt",), Decimal("0.001"))


@dataclass(frozen=True)
class Quantity:
    """A numeric metadata field and its names in prompts.

    Attributes:
        title: Name in messages.
        names: Regular expression for the names.
        units: Units with their conversion factors.
    """

    title: str
    names: str
    units: dict[str, Any]


QUANTITIES = {
    "slice": Quantity(
        "Slice", r"slice(?:\s+(?:number|no\.?|index))?|Schicht(?:\s?nummer|\s+nr\.?)?", {}
    ),
    "tr": Quantity("TR", r"tr|repetition\s?time|Repetitionszeit", _TIMES),
    "te": Quantity("TE", r"te|echo\s?time|Echozeit", _TIMES),
    "ti": Quantity("TI", r"ti|inversion\s?time|Inversionszeit", _TIMES),
    "flip_angle": Quantity(
        "Flip angle", r"flip[\s-]?angle|flip|fa|Flipwinkel|Kippwinkel|Anregungswinkel", _ANGLES
    ),
    "age": Quantity("Age", r"age|aged|Alter", _AGES),
    "field_strength": Quantity(
        "Field strength",
        r"(?:magnetic\s+)?field(?:\s+strength)?|b0|Feldst(?:ä|ae)rke",
        _FIELDS,
    ),
}
_FOREIGN = ("mm", "cm", "hz", "khz", "mhz", "kg", "ppm", "px", "%")
_UNITS = {unit for quantity in QUANTITIES.values() for unit in quantity.units} | {*_FOREIGN}


def alternatives(words: Iterable[str]) -> str:
    """Return a regular expression that matches any of the words, longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _patterns(quantity: Quantity) -> tuple[re.Pattern[str], re.Pattern[str]]:
    units = alternatives(quantity.units) if quantity.units else "(?!)"
    named = rf"(?P<name>{quantity.names})(?:\s*[\[(]\s*(?P<bracket>{units})\s*[\])])?"
    value = rf"(?P<number>{_PLAIN})(?:\s*(?P<unit>{units}))?{END}"
    return (
        re.compile(rf"{named}(?:\s*[:=]\s*|\s+(?:(?:of|is|von)\s+)?|(?=\d)){value}", FLAGS),
        re.compile(rf"{named}(?P<separator>\s*[:=]\s*|\s+|(?=\d))(?P<word>\S*)", FLAGS),
    )


_PATTERNS = {name: _patterns(quantity) for name, quantity in QUANTITIES.items()}
_FOLLOWING_UNIT = re.compile(rf"\s*(?:{alternatives(_UNITS)}){END}", FLAGS)
_BARE_FIELD = re.compile(rf"({_PLAIN})[\s-]?(t|tesla){END}", FLAGS)
_BARE_AGE = re.compile(
    rf"(\d+)[\s-]?(?:(?:years?|yrs?)[\s-]old|y/?o|Jahre\s?alt|jährige?[rns]?){END}", FLAGS
)
_BARE_NUMBER = re.compile(rf"{_PLAIN}(?:\s*(?:{alternatives(_UNITS)}))?\.?", FLAGS)
_LITERAL = re.compile(rf"({_GROUPED})(?:\s*({alternatives(_UNITS)}){END})?", FLAGS)
_SEVERAL = re.compile(
    rf"(?P<names>t[rei](?:\s*/\s*t[rei])+)(?:\s*[:=]\s*|\s+)"
    rf"(?P<numbers>{_PLAIN}(?:\s*/\s*{_PLAIN})+)(?:\s*(?P<unit>{alternatives(_TIMES)}))?{END}",
    FLAGS,
)


@dataclass(frozen=True)
class Reading:
    """Values read at one position of a prompt.

    Attributes:
        values: Pairs of field and value.
        start: Start position.
        end: End position, exclusive.
        number: Position of a number that further digits may continue, or ``None``.
    """

    values: tuple[tuple[str, Any], ...]
    start: int
    end: int
    number: int | None = None


def read_quantity(text: str, position: int, stop: int) -> Reading | None:
    """Read the named value at a position, or return ``None`` if there is none.

    Args:
        text: Whole prompt, see :func:`ctxrecon.metadata.text.read_as`.
        position: Start position.
        stop: End of the part of the prompt.

    Raises:
        InputError: If a quantity is named but its value is unreadable.
    """
    if match := _SEVERAL.match(text, position, stop):
        names = [name.strip().lower() for name in match["names"].split("/")]
        numbers = match["numbers"].split("/")
        if len(names) != len(numbers):
            raise InputError(
                f"expected as many numbers as names in {shown(match[0])}; write for example "
                "'TR: 3120, TE: 33'"
            )
        factor = _factor(_TIMES, match["unit"])
        return Reading(
            tuple((n, _value(n, number, factor)) for n, number in zip(names, numbers, strict=True)),
            position,
            match.end(),
        )
    for name, (pattern, unreadable) in _PATTERNS.items():
        quantity = QUANTITIES[name]
        match = pattern.match(text, position, stop)
        if match and not _FOLLOWING_UNIT.match(text, match.end(), stop):
            unit = match["unit"] or match["bracket"]
            number = None if match["unit"] else match.start("number")
            value = _value(name, match["number"], _factor(quantity.units, unit))
            return Reading(((name, value),), position, match.end(), number)
        refused = unreadable.match(text, position, stop)
        if refused and (refused["separator"].strip() or _like_a_number(refused["word"])):
            start = refused.start("word")
            literal = _LITERAL.match(text, start)
            if literal and not re.fullmatch(_PLAIN, literal[1], FLAGS):
                refuse_number(name, text, start)
            raise InputError(
                f"could not read the value of {refused['name']} in "
                f"{shown(text[position:stop])}; expected for example 'TR: 3120', 'TE: 33 ms', "
                "'Flip angle: 140', 'Sex: F' or 'Slice 20'"
            )
    return None


def read_bare(text: str, position: int, stop: int) -> Reading | None:
    """Read a number whose unit alone identifies it: ``3T``, ``48 years old``."""
    if match := _BARE_FIELD.match(text, position, stop):
        return Reading((("field_strength", float(match[1])),), position, match.end(), position)
    if match := _BARE_AGE.match(text, position, stop):
        return Reading((("age", float(match[1])),), position, match.end(), position)
    return None


def is_bare_number(words: str) -> bool:
    """Return whether the words consist only of a number with or without a unit."""
    return _BARE_NUMBER.fullmatch(words) is not None


def literal_end(text: str, start: int) -> int:
    """Return the end of the digits at ``start``, including groups after a separator."""
    match = _LITERAL.match(text, start)
    return match.end() if match else start


def refuse_number(name: str | None, text: str, start: int) -> NoReturn:
    """Raise an error for the number at ``start`` that suggests its possible meanings.

    Args:
        name: Field to which the number belongs, if any.
        text: Whole prompt.
        start: Position of the number.

    Raises:
        InputError: Always.
    """
    match = _LITERAL.match(text, start)
    literal, unit = (match[1], match[2]) if match else (text[start:].split()[0], None)
    behind = f" {unit}" if unit else ""
    key = f"{QUANTITIES[name].title}: " if name else ""
    meant = [f"{key}{number}{behind}" for number in _meanings(literal, name)]
    got = shown(f"{key}{literal}{behind}")
    if re.fullmatch(_PLAIN, literal, FLAGS):
        raise InputError(
            f"expected the name of a quantity before the number {got}; write for example "
            "'TR: 3120', 'TE: 33 ms', 'Flip angle: 140' or 'Slice 20', or leave it out"
        )
    advice = f"write {' or '.join(map(repr, meant))}" if meant else "write one number, as 'TR: 3.5'"
    raise InputError(
        "expected a number with a decimal point and without thousands separators, "
        f"got {got}; {advice}"
    )


def _meanings(literal: str, name: str | None) -> list[str]:
    """Return possible meanings of digits in groups, most likely first."""
    groups = re.findall(r"\d+", literal)
    marks = [mark.strip() or " " for mark in re.findall(r"(?<=\d)[^\de+-]+(?=\d)", literal)]
    sign = "-" if literal.startswith("-") else ""
    whole = sign + "".join(groups)
    decimal = f"{sign}{''.join(groups[:-1])}.{groups[-1]}".rstrip("0").rstrip(".")
    thousands = 1 <= len(groups[0]) <= 3 and groups[0] != "0"
    if marks and "e" not in literal.lower():
        in_threes = all(len(group) == 3 for group in groups[1:])
        last_is_other = marks[-1] in ",." and marks[-1] not in marks[:-1]
        if len(marks) == 1 and marks[0] == ",":
            found = [whole, decimal] if thousands and in_threes else [decimal]
        elif thousands and in_threes and len({*marks}) == 1:
            found = [whole]
        elif last_is_other and thousands and all(len(group) == 3 for group in groups[1:-1]):
            found = [decimal]
        else:
            found = []
        return [number for number in found if name != "slice" or number == whole]
    return []


def _like_a_number(word: str) -> bool:
    return any(c.isnumeric() for c in word[:2]) or word.lower() in {"nan", "inf", "-inf"}


def _factor(units: dict[str, Any], unit: str | None) -> Any:
    return next((f for word, f in units.items() if word.lower() == (unit or "").lower()), 1)


def _value(name: str, text: str, factor: Any) -> float | int:
    exact = Decimal(text) * factor
    if name == "slice":
        if exact != exact.to_integral_value():
            raise InputError(f"expected the slice as a whole number, got {text}")
        return int(exact)
    return float(exact)
