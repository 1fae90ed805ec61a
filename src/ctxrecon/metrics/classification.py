"""How well scores separate what is there from what is not, and how sure that number is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ctxrecon.checks import check_number
from ctxrecon.errors import InputError, check_counts


def auroc(scores: ArrayLike, truth: ArrayLike) -> float:
    """Area under the receiver operating characteristic: ``P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)``.

    By ranks (Mann–Whitney), so that ties count half.

    Args:
        scores: ``(n,)``, higher where the finding is likelier.
        truth: ``(n,)`` bool or 0 and 1.

    Returns:
        From 0 to 1; NaN where all are positive or all negative.

    Raises:
        InputError: scores that are not finite, a truth that is neither 0 nor 1, or other shapes.
    """
    s, z = _checked(scores, truth)
    if s.ndim != 1:
        raise InputError(f"expected scores (n,), got shape {s.shape}: use macro_auroc")
    positive = int(z.sum())
    negative = len(z) - positive
    if not positive or not negative:
        return float("nan")
    above = rankdata(s)[z].sum() - positive * (positive + 1) / 2
    return float(above / (positive * negative))


def macro_auroc(scores: ArrayLike, truth: ArrayLike) -> float:
    """Mean of :func:`auroc` over the findings.

    Args:
        scores: ``(n, findings)``.
        truth: likewise.

    Returns:
        The mean over those findings that some have and some have not; NaN where there is none.

    Raises:
        InputError: as :func:`auroc`.
    """
    s, z = _checked(scores, truth)
    if s.ndim != 2:
        raise InputError(f"expected scores (n, findings), got shape {s.shape}")
    areas = [auroc(s[:, each], z[:, each]) for each in range(s.shape[1])]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else float("nan")


def bootstrap_interval(
    statistic: Callable[[NDArray[np.int64]], float],
    people: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic when other people had been scanned.

    People are drawn with replacement, each with all of their slices, since slices of one person
    are alike (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8).

    Example:
        >>> bootstrap_interval(lambda rows: auroc(scores[rows], truth[rows]), people)

    Args:
        statistic: of the rows with these indices; NaN where it is not defined, which leaves that
            resample out.
        people: ``(n,)``, the person of each row: numbers or names.
        level: of the interval.
        resamples: how many.
        seed: of the resamples.

    Returns:
        Both ends; NaN where the statistic is defined for no resample.

    Raises:
        InputError: no rows, a level outside (0, 1), or no resamples.
    """
    check_number("level", level, above=0, below=1)
    check_counts(resamples=resamples)
    names = np.asarray(people)
    if names.ndim != 1 or not len(names):
        raise InputError(f"expected a person for each row, got shape {names.shape}")
    _, owner = np.unique(names, return_inverse=True)
    rows = [np.flatnonzero(owner == one) for one in range(owner.max() + 1)]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        drawn = rng.integers(len(rows), size=len(rows))
        values.append(statistic(np.concatenate([rows[one] for one in drawn])))
    defined = np.array([value for value in values if not np.isnan(value)])
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _checked(scores: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    s, z = np.asarray(scores, np.float64), np.asarray(truth)
    if s.shape != z.shape or not s.size:
        raise InputError(f"expected scores and truth of one shape, got {s.shape} and {z.shape}")
    if not np.isfinite(s).all():
        raise InputError("expected finite scores, got NaN or infinite values")
    if z.dtype != bool and not np.isin(z, (0, 1)).all():
        raise InputError("expected the truth as bool or 0 and 1, got other values")
    return s, z.astype(bool)
