"""Conversion of header values in units other than those of the standard."""

from __future__ import annotations

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)


class _Limits(NamedTuple):
    tr: float
    te: float
    ti: float


class Times(NamedTuple):
    """TR, TE and TI in ms, ``None`` if unknown."""

    tr: float | None
    te: float | None
    ti: float | None


# Smallest plausible TR, TE and TI in ms. Some gradient echoes are read out 0.03 ms after the pulse
# every 0.5 ms; headers of inversion sequences may state the TR of their readouts.
_LEAST = _Limits(0.2, 0.02, 10.0)
_LEAST_OF_SPIN_ECHO = _Limits(20.0, 1.0, 10.0)
# In gauss, equal to 0.5 T; smaller numbers might be in mT.
_LEAST_GAUSS = 5000.0


def in_milliseconds(times: Times, *, spin_echo: bool, source: str) -> Times:
    """Return times in ms; times that the header states in seconds are converted with a warning.

    Args:
        times: Times in the header.
        spin_echo: Whether the sequence refocuses, so that its times are not fractions of a ms.
        source: Origin of the values, for the log.
    """
    least = _LEAST_OF_SPIN_ECHO if spin_echo else _LEAST
    if times.ti is not None and 0 < times.ti < least.ti:
        least = least._replace(tr=_LEAST_OF_SPIN_ECHO.tr)  # TI in s implies TR in s
    return Times(
        *(
            value if value is None or not 0 < value < limit else _converted(name, value, source)
            for name, value, limit in zip(times._fields, times, least, strict=True)
        )
    )


def _converted(name: str, seconds: float, source: str) -> float:
    logger.warning(
        "%s: %s of %g ms is implausible, %g s is assumed", source, name.upper(), seconds, seconds
    )
    return seconds * 1000


def in_tesla(value: float | None, *, source: str) -> float | None:
    """Return a field strength in tesla; one in gauss is converted with a warning."""
    if value is None or value < _LEAST_GAUSS:
        return value
    logger.warning("%s: a field of %g T is implausible, gauss is assumed", source, value)
    return value / 10_000
