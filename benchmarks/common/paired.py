"""Paired statistics: intervals of mean differences, and separation of two groups."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ctxrecon.evaluation import summary

LEVEL = 0.95

Interval = dict[str, float | int | None]
"""``mean``, the ends ``low`` and ``high`` of its interval (``None`` for one value), and ``n``."""


def interval(values: ArrayLike, clusters: Sequence[str] | None = None) -> Interval:
    """Return the mean with its 95 % interval by Student's t, ``x̄ ± t_{0.975, G−1} s``.

    ``s`` is the standard error of :func:`ctxrecon.evaluation.summary`, ``G`` counts the clusters.

    Args:
        values: Values of shape ``(n,)``.
        clusters: Cluster of each value, such as the person whose slice it is. Without clusters, or
            with a single one, the values are independent.
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
    """Return the mean of the slice-wise difference ``one − other`` with its interval."""
    difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    return interval(difference, clusters)


def above(estimate: Interval, limit: float = 0.0) -> bool:
    """Return True if the whole interval lies above ``limit``."""
    low = estimate["low"]
    return low is not None and low > limit


def roc_area(right: ArrayLike, wrong: ArrayLike) -> float:
    """Return the area under the ROC curve of detecting wrong cases by a high value.

    It is the probability that a wrong case has a higher value than a right one (ties count half),
    computed from the rank sum (Mann and Whitney, 1947): 0.5 is chance, 1 perfect separation.
    """
    right, wrong = np.asarray(right), np.asarray(wrong)
    ranks = stats.rankdata(np.concatenate([right, wrong]))
    above_right = ranks[len(right) :].sum() - len(wrong) * (len(wrong) + 1) / 2
    return float(above_right / (len(right) * len(wrong)))


def roc_interval(
    right: ArrayLike, wrong: ArrayLike, clusters: Sequence[str] | None = None
) -> Interval:
    """Return :func:`roc_area` of paired cases with its 95 % interval, clipped to [0, 1].

    The standard error is that of the jackknife, ``√((G−1)/G Σ_g (a_g − ā)²)``, with the area
    ``a_g`` without pair (or cluster) ``g``. It vanishes for an area of 0 or 1.

    Args:
        right: Values of the right cases, ``(n,)``.
        wrong: Values of the wrong cases of the same slices, ``(n,)``.
        clusters: Cluster of each pair, such as the person whose slice it is.
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
    """Return the share of slices whose wrong case has a higher value than their right one."""
    difference = np.asarray(wrong) - np.asarray(right)
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def with_interval(estimate: Interval, digits: int) -> str:
    """Return an estimate as text: ``+0.41 [+0.35, +0.47]``."""
    mean = f"{estimate['mean']:+.{digits}f}"
    if estimate["low"] is None:
        return mean
    return f"{mean} [{estimate['low']:+.{digits}f}, {estimate['high']:+.{digits}f}]"
