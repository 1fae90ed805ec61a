"""What any text about a scan must be, and the characters that are read as others."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from ctxrecon.errors import InputError

MAX_LENGTH = 100_000
"""Characters of a prompt or a label; a tokenizer takes about 77 tokens."""

SEPARATORS = ",;，；、"
"""They separate the parts of a prompt, as line breaks do."""

_UMLAUTS = {mark + "\u0308": composed for mark, composed in zip("aouAOU", "äöüÄÖÜ", strict=True)}

# Soft hyphens, zero-width spaces and marks of direction, which come with text copied from pages.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")

# Each character stands for one other, so that positions stay. Full NFKC would make "T²" of "T2".
_READ_AS = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, "‐‑‒–—−"), "-"),
    **dict.fromkeys(map(ord, "’‘ʼ´`"), "'"),
    **dict(zip(map(ord, "ÄÖÜ\N{MICRO SIGN}、_"), "äöü\N{GREEK SMALL LETTER MU}, ", strict=True)),
}


def check_text(name: str, text: Any) -> str:
    """Text that can be shown, stored and tokenized.

    Umlauts become one character, invisible marks of layout are removed.

    Args:
        name: what the text is, for the message.
        text: checked to be a string.

    Raises:
        InputError: no string, a lone surrogate (from bytes that are not UTF-8), a control
            character, or more than :data:`MAX_LENGTH` characters.
    """
    if not isinstance(text, str):
        raise InputError(f"expected the {name} as a string, got {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise InputError(
            f"expected the {name} to have at most {MAX_LENGTH} characters, got {len(text)}: "
            "shorten it"
        )
    for position, character in enumerate(text):
        category = unicodedata.category(character)
        if category == "Cs":
            raise InputError(
                f"expected the {name} in UTF-8, got {shown(text)} with an undecodable byte at "
                f"character {position + 1}: type it in a UTF-8 terminal or save its file as UTF-8"
            )
        if category == "Cc" and not character.isspace():
            raise InputError(
                f"expected the {name} without control characters, got U+{ord(character):04X} at "
                f"character {position + 1} of {shown(text)}: remove it"
            )
    text = _INVISIBLE.sub("", text)
    if "\u0308" in text:
        for decomposed, composed in _UMLAUTS.items():
            text = text.replace(decomposed, composed)
    return text


def shown(text: Any) -> str:
    """How a value is quoted in a message: printable, and cut short."""
    quoted = repr(text).encode("ascii" if _has_surrogate(text) else "utf-8", "backslashreplace")
    words = quoted.decode()
    return words if len(words) <= 120 else f"{words[:100]}… ({len(words)} characters)"


def _has_surrogate(text: Any) -> bool:
    return isinstance(text, str) and bool(re.search("[\ud800-\udfff]", text))


def read_as(text: str) -> str:
    """The text, position by position, with full-width characters, dashes and the like made plain.

    Underscores become spaces, umlauts lower case.
    """
    return text.translate(_READ_AS)
