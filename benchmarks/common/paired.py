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


def roc_interval(
    right: ArrayLike, wrong: ArrayLike, clusters: Sequence[str] | None = None
) -> Interval:
    """:func:`roc_area` of cases that come in pairs, with its 95 % interval.

    The standard error is that of the jackknife, ``√((G−1)/G Σ_g (a_g − ā)²)`` with the area ``a_g``
    without pair, or cluster, ``g``; an area of 0 or 1 has none. The interval ends at 0 and 1.

    Args:
        right: ``(n,)``.
        wrong: ``(n,)``, of the same slices.
        clusters: of each pair, such as the person whose slice it is.
    """
    one, other = np.asarray(right), np.asarray(wrong)
    names = range(len(one)) if clusters is None else clusters
    _, owner = np.unique(np.asarray(names), return_inverse=True)
    count = int(owner.max()) + 1
    entry: Interval = {"mean": roc_area(one, other), "low": None, "high": None, "n": len(one)}
    if count < 2:
        return entry
    left = np.array([roc_area(one[owner != g], other[owner != g]) for g in range(count)])
    error = np.sqrt((count - 1) / count * np.square(left - left.mean()).sum())
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)
    mean = roc_area(one, other)
    return entry | {"low": max(mean - half, 0.0), "high": min(mean + half, 1.0)}


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
