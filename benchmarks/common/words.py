"""Phrases that report estimates in the text of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def number(value: float, digits: int) -> str:
    """Return a number as text, with a minus sign and without a negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def change(
    estimate: Mapping[str, Any],
    digits: int = 2,
    unit: str = " dB",
    verbs: tuple[str, str] = ("gains", "loses"),
) -> str:
    """Return a difference in words: ``gains 0.12 dB (95 % interval −0.02 to 0.25)``.

    Args:
        estimate: Mean with its interval (:data:`benchmarks.common.paired.Interval`), or with its
            ``standard_error``, which is then reported as ``±``.
        digits: Decimal places.
        unit: Text that follows the number.
        verbs: Verb of a positive and of a negative mean. The loss is reported as a positive number.
    """
    mean = float(estimate["mean"])
    sign = -1 if round(mean, digits) < 0 else 1
    text = f"{verbs[sign < 0]} {number(sign * mean, digits)}"
    error = estimate.get("standard_error")
    if error is not None:
        return f"{text} ± {number(error, digits)}{unit}"
    if estimate.get("low") is None:
        return text + unit
    low, high = sorted((sign * estimate["low"], sign * estimate["high"]))
    return f"{text}{unit} (95 % interval {number(low, digits)} to {number(high, digits)})"


def span(values: Sequence[float], digits: int = 2) -> str:
    """Return ``0.12 to 0.34``, or a single number if both ends read the same."""
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"


def listed(items: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1] if items else ""]))
