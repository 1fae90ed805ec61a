"""Selection among the measurements in a raw data file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError


@dataclass(frozen=True)
class Choice:
    """One of each kind of repeated measurement, counted from 0 among those in the file.

    Attributes:
        repetition: Repetition of the whole scan.
        contrast: Echo or other contrast.
        phase: Cardiac phase.
        set: Set, such as a velocity encoding.
        average: Average, or ``None`` for the mean of all.
        group: Name of the measurement in a file that contains several.
    """

    repetition: int = 0
    contrast: int = 0
    phase: int = 0
    set: int = 0
    average: int | None = None
    group: str | None = None


def nth(path: Path, values: np.ndarray, number: int, what: str) -> int:
    """Return the ``number``-th distinct value.

    Raises:
        InputError: If there are fewer distinct values.
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
