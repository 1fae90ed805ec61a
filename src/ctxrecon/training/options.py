"""Networks and samplers from text, such as ``varnet:cascades=4:width=12``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from ctxrecon.checks import MOST_LAYERS, check_parameters
from ctxrecon.errors import InputError
from ctxrecon.options import split_options

_EXPECTED: dict[str, tuple[str, tuple[type, ...]]] = {
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
    "str": ("a word", (str,)),
    "tuple[float, float]": ("two numbers as [0.1,0.5]", (list,)),
}


def build_from_text(
    argument: str, text: str, kinds: Mapping[str, Any], settled: Mapping[str, Any] | None = None
) -> Any:
    """Build what a text names, with new weights.

    Args:
        argument: that the text was given by, such as ``"--network"``.
        text: a name and its options.
        kinds: classes by their names.
        settled: options that do not come from the text, which may not differ from it.

    Raises:
        InputError: an unknown name or option, a value of another type or out of its range, or a
            network that is too large.
    """
    name, options = split_options(text)
    if name not in kinds:
        raise InputError(f"unknown {argument} {name!r}: expected one of {', '.join(kinds)}")
    known = inspect.signature(kinds[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise InputError(
                f"{argument} {text}: {name} has no option {option!r}, expected some of "
                f"{', '.join(known)}"
            )
        _check_value(f"{argument} {text}", option, value, str(known[option].annotation))
    for option, value in (settled or {}).items():
        if options.setdefault(option, value) != value:
            raise InputError(
                f"{argument} {text}: {option} is {value} by another option already, leave it out "
                "here or there"
            )
    if odd := [option for option in options if option not in known]:
        raise InputError(f"{argument} {text}: {name} takes no {odd[0]}, leave it out")
    needed = [key for key, item in known.items() if item.default is item.empty]
    if missing := [option for option in needed if option not in options]:
        raise InputError(f"{argument} {text}: {name} needs {missing[0]}, give {missing[0]}=...")
    if "shape" not in known:  # of masks: their size is that of the images
        check_parameters(f"{argument} {text}", lambda: kinds[name](**options))
    return kinds[name](**options)


def _check_value(where: str, option: str, value: Any, annotation: str) -> None:
    """Refuse a value of another type than the option's, and a number without measure."""
    kind = annotation.removesuffix(" | None")
    if kind not in _EXPECTED or (value is None and kind != annotation):
        return
    wanted, types = _EXPECTED[kind]
    fits = isinstance(value, types) and (kind == "bool" or not isinstance(value, bool))
    numbers = value if isinstance(value, list) else [value]
    if kind.startswith("tuple"):
        fits = fits and len(numbers) == 2 and all(type(item) in (int, float) for item in numbers)
    if not fits:
        raise InputError(f"{where}: expected {option} as {wanted}, got {value!r}")
    for item in numbers:
        if isinstance(item, int | float) and not math.isfinite(item):
            raise InputError(f"{where}: expected {option} as {wanted}, got {item}")
        if isinstance(item, int) and abs(item) > MOST_LAYERS:
            raise InputError(f"{where}: expected {option} up to {MOST_LAYERS}, got {item}")
