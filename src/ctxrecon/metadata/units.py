"""Values of headers that are in another unit than their standard asks for."""

from __future__ import annotations

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)


class _Limits(NamedTuple):
    tr: float
    te: float
    ti: float


class Times(NamedTuple):
    """TR, TE and TI in ms, ``None`` where they are not known."""

    tr: float | None
    te: float | None
    ti: float | None


# Least plausible TR, TE and TI in ms. Of gradient echoes, some are read out 0.03 ms after the pulse
# every 0.5 ms; headers of those that invert may state the TR of their readouts.
_LEAST = _Limits(0.2, 0.02, 10.0)
_LEAST_OF_SPIN_ECHO = _Limits(20.0, 1.0, 10.0)
# In gauss, 0.5 T and more; smaller numbers may as well be in mT.
_LEAST_GAUSS = 5000.0


def in_milliseconds(times: Times, *, spin_echo: bool, source: str) -> Times:
    """Times in ms, also where the header has them in seconds, with a warning in the log.

    Args:
        times: of the header.
        spin_echo: whether the sequence refocuses: then its times are no fractions of a ms.
        source: of the values, for the log.
    """
    least = _LEAST_OF_SPIN_ECHO if spin_echo else _LEAST
    if times.ti is not None and 0 < times.ti < least.ti:
        least = least._replace(tr=_LEAST_OF_SPIN_ECHO.tr)  # who writes TI in s writes TR in s
    return Times(
        *(
            value if value is None or not 0 < value < limit else _converted(name, value, source)
            for name, value, limit in zip(times._fields, times, least, strict=True)
        )
    )


def _converted(name: str, seconds: float, source: str) -> float:
    logger.warning(
        "%s: %s of %g ms cannot be, taken as %g s", source, name.upper(), seconds, seconds
    )
    return seconds * 1000


def in_tesla(value: float | None, *, source: str) -> float | None:
    """A field strength in tesla, also where the header has it in gauss, with a warning."""
    if value is None or value < _LEAST_GAUSS:
        return value
    logger.warning("%s: a field of %g T cannot be, taken as gauss", source, value)
    return value / 10_000
