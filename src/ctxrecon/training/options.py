"""Construction of networks and samplers from text such as ``varnet:cascades=4:width=12``."""

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
    """Build an object described by text, with new weights.

    Args:
        argument: Command-line argument of the text, such as ``"--network"``.
        text: Name and options.
        kinds: Classes by name.
        settled: Options determined elsewhere, which the text must not contradict.

    Raises:
        InputError: If a name or option is unknown, a value has the wrong type or is out of range,
            or the network is too large.
    """
    name, options = split_options(text)
    if name not in kinds:
        raise InputError(f"unknown {argument} {name!r}: expected one of {', '.join(kinds)}")
    known = inspect.signature(kinds[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise InputError(
                f"{argument} {text}: {name} has no option {option!r}, expected one of "
                f"{', '.join(known)}"
            )
        _check_value(f"{argument} {text}", option, value, str(known[option].annotation))
    for option, value in (settled or {}).items():
        if options.setdefault(option, value) != value:
            raise InputError(
                f"{argument} {text}: {option} is already {value} by another option, omit one of "
                "them"
            )
    if odd := [option for option in options if option not in known]:
        raise InputError(f"{argument} {text}: {name} accepts no {odd[0]}, omit it")
    needed = [key for key, item in known.items() if item.default is item.empty]
    if missing := [option for option in needed if option not in options]:
        raise InputError(f"{argument} {text}: {name} needs {missing[0]}, set {missing[0]}=...")
    if "shape" not in known:  # the size of masks is that of the images
        check_parameters(f"{argument} {text}", lambda: kinds[name](**options))
    return kinds[name](**options)


def _check_value(where: str, option: str, value: Any, annotation: str) -> None:
    """Validate the type of an option's value and the size of numbers."""
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
