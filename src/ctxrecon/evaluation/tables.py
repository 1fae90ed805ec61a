"""Means with their standard errors, as numbers and in Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Estimate: TypeAlias = "dict[str, float | int | None]"


def summary(values: ArrayLike, clusters: Sequence[str] | None = None) -> Estimate:
    """Mean, standard error of the mean, and number of values.

    Values of one cluster (the slices of one scan) are alike, so they count less than as many
    independent ones. With ``G`` clusters the squared standard error of the mean is

        ``G/(G−1) · Σ_g (Σ_{i∈g} (x_i − x̄))² / n²``

    (Liang and Zeger, Biometrika 73, 13 (1986), for a mean), which is ``s²/n`` when every value is
    a cluster of its own. Within a single cluster nothing is known of the spread between clusters,
    and the values are taken as independent.

    Args:
        values: ``(n,)``.
        clusters: that of each value; each its own if not given.

    Returns:
        ``mean``, ``standard_error`` (``None`` for one value) and ``n``.
    """
    array = np.asarray(values, dtype=np.float64)
    names = range(len(array)) if clusters is None else clusters
    _, owner = np.unique(np.asarray(names), return_inverse=True)
    if owner.max() == 0:
        owner = np.arange(len(array))
    sums = np.bincount(owner, array - array.mean())
    error = None
    if len(sums) > 1:
        error = float(np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(array))
    return {"mean": float(array.mean()), "standard_error": error, "n": len(array)}


def with_error(entry: Estimate, digits: int, *, sign: bool = False) -> str:
    """``mean ± standard error`` as text."""
    mean = f"{entry['mean']:{'+' if sign else ''}.{digits}f}"
    error = entry["standard_error"]
    return mean if error is None else f"{mean} ± {error:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
