"""Validation of texts about a scan, and characters that are read as equivalents."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from ctxrecon.errors import InputError

MAX_LENGTH = 100_000
"""Maximum number of characters of a prompt or a label; a tokenizer keeps about 77 tokens."""

SEPARATORS = ",;，；、"
"""Characters that separate the parts of a prompt, in addition to line breaks."""

_UMLAUTS = {mark + "\u0308": composed for mark, composed in zip("aouAOU", "äöüÄÖÜ", strict=True)}

# Soft hyphens, zero-width spaces and direction marks, which occur in text copied from web pages.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")

# One character for one, so that positions are kept. Full NFKC would turn "T²" into "T2".
_READ_AS = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **dict.fromkeys(map(ord, "‐‑‒–—−"), "-"),
    **dict.fromkeys(map(ord, "’‘ʼ´`"), "'"),
    **dict(zip(map(ord, "ÄÖÜ\N{MICRO SIGN}、_"), "äöü\N{GREEK SMALL LETTER MU}, ", strict=True)),
}


def check_text(name: str, text: Any) -> str:
    """Validate that a text can be displayed, stored and tokenized, and return it.

    Decomposed umlauts are composed, and invisible layout characters are removed.

    Args:
        name: Name of the text, for the message.
        text: Value to validate.

    Raises:
        InputError: If it is not a string, contains a lone surrogate (from bytes that are not
            UTF-8) or a control character, or has more than :data:`MAX_LENGTH` characters.
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
    """Quote a value for a message: printable and shortened."""
    quoted = repr(text).encode("ascii" if _has_surrogate(text) else "utf-8", "backslashreplace")
    words = quoted.decode()
    return words if len(words) <= 120 else f"{words[:100]}… ({len(words)} characters)"


def _has_surrogate(text: Any) -> bool:
    return isinstance(text, str) and bool(re.search("[\ud800-\udfff]", text))


def read_as(text: str) -> str:
    """Replace full-width characters, dashes and similar ones by plain ones, keeping positions.

    Underscores become spaces, and umlauts lower case.
    """
    return text.translate(_READ_AS)
