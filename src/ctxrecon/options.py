"""Names with options in one string, ``"dds:data_weight=50:eta=0.5"``, of solvers and networks."""

from __future__ import annotations

import json
from typing import Any

from ctxrecon.errors import InputError


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """Split a name and its options, whose values are numbers or words.

    Args:
        text: Name with options, such as ``"dds:data_weight=50:image=l1_wavelet"``.

    Raises:
        InputError: If an option has no value, or a value that is not a number or word.

    Example:
        >>> from ctxrecon.options import split_options
        >>> split_options("dds:data_weight=50:image=l1_wavelet")
        ('dds', {'data_weight': 50, 'image': 'l1_wavelet'})
    """
    if not isinstance(text, str):
        raise InputError(f"expected a name with options as text, got {type(text).__name__}")
    name, *pairs = text.split(":")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if value.isidentifier():
            options[key] = {"true": True, "false": False}.get(value.lower(), value)
            continue
        try:
            options[key] = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(
                f"expected the options of {name} as {name}:option=number:option=number, "
                f"got {text!r}"
            ) from None
    return name, options
