"""Which of the measurements in a file of raw data is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError


@dataclass(frozen=True)
class Choice:
    """One of each kind of repeated measurement, counted from 0 among those that a file holds.

    Attributes:
        repetition: of the whole scan.
        contrast: echo, or other contrast.
        phase: of the cardiac cycle.
        set: such as a velocity encoding.
        average: one of the averages; ``None`` is the mean of all.
        group: name of the measurement, in a file that holds several.
    """

    repetition: int = 0
    contrast: int = 0
    phase: int = 0
    set: int = 0
    average: int | None = None
    group: str | None = None


def nth(path: Path, values: np.ndarray, number: int, what: str) -> int:
    """The ``number``-th of the values that occur.

    Raises:
        InputError: there are fewer.
    """
    present = np.unique(values)
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise InputError(f"{path}: expected {what} as a whole number, got {number!r}")
    if not 0 <= number < len(present):
        raise InputError(
            f"{path} holds {len(present)} {what}{'s' * (len(present) != 1)}, numbered from 0: "
            f"there is no {what} {number}"
        )
    return int(present[number])
