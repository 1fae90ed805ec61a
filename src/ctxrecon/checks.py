"""Validation of the type and range of options."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import torch

from ctxrecon.errors import InputError

# Limits on the layers, heads or iterations, and on the parameters, of a network.
MOST_LAYERS = 1024
_MOST_PARAMETERS = 2**31
# Widths and sizes are only limited by memory, for which the parameters are counted.
_SIZES = re.compile(r"size|dim|width|channels|embed|token|timesteps|shape")
_LARGEST_SIZE = 2**20
_MOST_PIXELS = 2**26

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def is_number(value: Any) -> bool:
    """Return whether a value is one real number; truth values are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    finite: bool = True,
) -> None:
    """Validate that a value is one real number in a range.

    Args:
        name: Name of the option, for the message.
        value: Value to check.
        least: Smallest accepted value.
        above: Exclusive lower bound.
        most: Largest accepted value.
        below: Exclusive upper bound.
        finite: Whether infinite values are rejected.

    Raises:
        InputError: If the value is not a number in the range.

    Example:
        >>> from ctxrecon.checks import check_number
        >>> check_number("eta", 1.5, least=0, most=1)
        Traceback (most recent call last):
        ...
        ctxrecon.errors.InputError: expected eta between 0 and 1, got 1.5
    """
    fits = is_number(value) and not math.isnan(value) and (math.isfinite(value) or not finite)
    for limit, within in (
        (least, lambda v, bound: v >= bound),
        (above, lambda v, bound: v > bound),
        (most, lambda v, bound: v <= bound),
        (below, lambda v, bound: v < bound),
    ):
        fits = fits and (limit is None or within(value, limit))
    if not fits:
        raise InputError(f"expected {_wanted(name, least, above, most, below)}, got {value!r}")


def is_whole(value: Any) -> bool:
    """Return whether a value is one whole number; truth values are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int = 1, most: int | None = None) -> None:
    """Validate that a value is a whole number from ``least`` to ``most``.

    Raises:
        InputError: If the value is not a whole number in the range.
    """
    if not is_whole(value):
        raise InputError(f"expected {name} as a whole number, got {value!r}")
    if value < least or (most is not None and value > most):
        limits = f"{least} or more" if most is None else f"from {least} to {most}"
        raise InputError(f"expected {name} {limits}, got {value}")


def check_flag(name: str, value: Any) -> None:
    """Validate that a value is ``True`` or ``False``.

    Raises:
        InputError: If it is anything else.
    """
    if not isinstance(value, bool):
        raise InputError(f"expected {name} as True or False, got {value!r}")


def as_dtype(dtype: Any) -> torch.dtype:
    """Return the data type of a network, given as a torch type or by name.

    Raises:
        InputError: If it is not float32, bfloat16 or float16.

    Example:
        >>> from ctxrecon.checks import as_dtype
        >>> as_dtype("bfloat16")
        torch.bfloat16
    """
    found = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in _DTYPES.values():
        raise InputError(f"expected dtype as one of {', '.join(_DTYPES)}, got {dtype!r}")
    return found


def as_device(device: Any) -> torch.device:
    """Return an available device, given as a torch device or by name; the CPU for ``None``.

    Raises:
        InputError: If torch does not know the device, or this machine does not have it.
    """
    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"expected device as a name such as 'cpu', 'cuda' or 'cuda:1', got {device!r}"
        ) from error
    try:
        torch.empty(1, device=found).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"the device {str(device)!r} cannot be used on this machine: use 'cpu', or a device "
            "that torch finds"
        ) from error
    return found


def _wanted(
    name: str, least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    """Return what was expected, such as ``eta between 0 and 1`` or ``a positive zeta``."""
    lower = least if least is not None else above
    upper = most if most is not None else below
    if lower is None and upper is None:
        return f"{name} as a number"
    if upper is None:
        if above == 0:
            return f"a positive {name}"
        return f"{name} above {above:g}" if least is None else f"a {name} of {least:g} or more"
    if lower is None:
        return f"{name} of {upper:g} or less" if below is None else f"{name} below {upper:g}"
    if (least is None) == (most is None):
        return f"{name} between {lower:g} and {upper:g}"
    if least is None:
        return f"{name} above {lower:g} and up to {upper:g}"
    return f"{name} in [{lower:g}, {upper:g})"


def check_config(where: str, config: Any, name: str = "") -> None:
    """Validate the numbers in a network's configuration before the network is built.

    Args:
        where: Origin of the configuration, for the message.
        config: Parsed JSON of any depth.
        name: Name of the entry that is being checked.

    Raises:
        InputError: If a number is not finite or is implausibly large; the message names the entry.
    """
    if isinstance(config, dict):
        for key, value in config.items():
            check_config(where, value, str(key))
    elif isinstance(config, list):
        for value in config:
            check_config(where, value, name)
        whole = [value for value in config if is_whole(value)]
        if name == "shape" and math.prod(whole) > _MOST_PIXELS:
            raise InputError(f"{where}: expected shape of up to {_MOST_PIXELS} pixels")
    most = _LARGEST_SIZE if _SIZES.search(name) else MOST_LAYERS
    if is_whole(config) and abs(config) > most:
        raise InputError(f"{where}: expected {name} up to {most}, got {config!s:.20}")
    if isinstance(config, float) and not math.isfinite(config):
        raise InputError(f"{where}: expected {name} as a finite number, got {config}")


def check_parameters(where: str, build: Callable[[], torch.nn.Module]) -> None:
    """Validate that a network is not too large for any memory, without allocating it.

    Args:
        where: Origin of the options, for the message.
        build: Function that builds the network.

    Raises:
        InputError: If the network cannot be built, or has too many parameters.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            size = sum(value.numel() for value in build().parameters())
    except (RuntimeError, OverflowError) as error:
        said = str(error).split("\n")[0]
        raise InputError(f"{where}: the network is too large: {said:.200}") from error
    if size > _MOST_PARAMETERS:
        raise InputError(
            f"{where}: expected up to {_MOST_PARAMETERS:.1e} parameters, got {size:.1e}: lower the "
            "options"
        )
