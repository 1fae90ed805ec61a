"""Separation of positive and negative cases by scores, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ctxrecon.checks import check_number
from ctxrecon.errors import InputError, check_counts


def auroc(scores: ArrayLike, truth: ArrayLike) -> float:
    r"""Compute the area under the receiver operating characteristic.

    .. math::

        \mathrm{AUROC} = P(s^+ > s^-) + \tfrac{1}{2} P(s^+ = s^-)

    It is computed from ranks (Mann–Whitney), so that ties count half.

    Example:
        >>> from ctxrecon.metrics import auroc
        >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
        0.75

    Args:
        scores: Scores of shape ``(n,)``, higher for more likely findings.
        truth: True labels of shape ``(n,)``, bool or 0 and 1.

    Returns:
        Area from 0 to 1; NaN if all cases are positive or all are negative.

    Raises:
        InputError: If scores are not finite, labels are not 0 or 1, or shapes do not match.
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
    """Compute the mean of :func:`auroc` over the findings.

    Example:
        >>> from ctxrecon.metrics import macro_auroc
        >>> macro_auroc([[0.1, 0.9], [0.8, 0.2]], [[0, 1], [1, 0]])
        1.0

    Args:
        scores: Scores of shape ``(n, findings)``, higher for more likely findings.
        truth: True labels of shape ``(n, findings)``, bool or 0 and 1.

    Returns:
        Mean over the findings with both positive and negative cases; NaN if there is none.

    Raises:
        InputError: If scores are not finite, labels are not 0 or 1, or shapes do not match.
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
    """Compute a bootstrap percentile interval of a statistic over persons.

    Persons are drawn with replacement, each with all of their slices, since slices of one person
    are similar (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 8).

    Example:
        >>> import numpy as np
        >>> from ctxrecon.metrics import auroc, bootstrap_interval
        >>> scores, truth = np.array([0.1, 0.2, 0.7, 0.9]), np.array([0, 0, 1, 1])
        >>> people = ["A", "B", "C", "D"]
        >>> bootstrap_interval(lambda rows: auroc(scores[rows], truth[rows]), people)
        (1.0, 1.0)

    Args:
        statistic: Function of row indices; resamples for which it returns NaN are ignored.
        people: Person of each row, numbers or names of shape ``(n,)``.
        level: Confidence level.
        resamples: Number of resamples.
        seed: Random seed.

    Returns:
        Lower and upper end; NaN if the statistic is defined for no resample.

    Raises:
        InputError: If there are no rows or resamples, or the level lies outside (0, 1).
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
