"""Paired statistics: intervals of mean differences, and telling two groups apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95

Interval = dict[str, float | int | None]
"""``mean``, ``low`` and ``high`` of its interval (``None`` for one value), and ``n``."""


def interval(values: ArrayLike) -> Interval:
    """Mean with its 95 % interval by Student's t: ``x̄ ± t_{0.975, n−1} s/√n``."""
    array = np.asarray(values, dtype=np.float64)
    mean, n = float(array.mean()), len(array)
    if n < 2:
        return {"mean": mean, "low": None, "high": None, "n": n}
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * array.std(ddof=1) / np.sqrt(n))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def paired(one: ArrayLike, other: ArrayLike) -> Interval:
    """Mean of ``one − other``, slice by slice, with its interval."""
    return interval(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64))


def above(estimate: Interval, limit: float = 0.0) -> bool:
    """Whether the whole interval lies above ``limit``."""
    low = estimate["low"]
    return low is not None and low > limit


def roc_area(right: ArrayLike, wrong: ArrayLike) -> float:
    """Area under the ROC curve of calling a case wrong where its number is high.

    It is the probability that a wrong case has a higher number than a right one (ties count half),
    from the sum of ranks (Mann and Whitney, 1947): 0.5 tells nothing, 1 everything.
    """
    right, wrong = np.asarray(right), np.asarray(wrong)
    ranks = stats.rankdata(np.concatenate([right, wrong]))
    above_right = ranks[len(right) :].sum() - len(wrong) * (len(wrong) + 1) / 2
    return float(above_right / (len(right) * len(wrong)))


def share_higher(right: ArrayLike, wrong: ArrayLike) -> float:
    """Share of slices whose wrong case has the higher number than their own right one."""
    difference = np.asarray(wrong) - np.asarray(right)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def with_interval(estimate: Interval, digits: int) -> str:
    """``+0.41 [+0.35, +0.47]`` as text."""
    mean = f"{estimate['mean']:+.{digits}f}"
    if estimate["low"] is None:
        return mean
    return f"{mean} [{estimate['low']:+.{digits}f}, {estimate['high']:+.{digits}f}]"
