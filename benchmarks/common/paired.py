"""Paired statistics: intervals of mean differences, and telling two groups apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ctxrecon.evaluation import summary

LEVEL = 0.95

Interval = dict[str, float | int | None]
"""``mean``, ``low`` and ``high`` of its interval (``None`` for one value), and ``n``."""


def interval(values: ArrayLike, clusters: Sequence[str] | None = None) -> Interval:
    """Mean with its 95 % interval by Student's t: ``x̄ ± t_{0.975, G−1} s``.

    Args:
        values: ``(n,)``.
        clusters: of each value, such as the person whose slice it is. The standard error ``s`` is
            that of :func:`ctxrecon.evaluation.summary`, and ``G`` counts the clusters; each value
            is one of its own if they are not given, or if there is only one.
    """
    entry = summary(values, clusters)
    mean, error, n = entry["mean"], entry["standard_error"], entry["n"]
    if error is None or mean is None or n is None:
        return {"mean": mean, "low": None, "high": None, "n": n}
    groups = len(set(clusters or ()))
    freedom = (groups if groups > 1 else n) - 1
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * error)
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def paired(one: ArrayLike, other: ArrayLike, clusters: Sequence[str] | None = None) -> Interval:
    """Mean of ``one − other``, slice by slice, with its interval."""
    difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return interval(difference, clusters)


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
