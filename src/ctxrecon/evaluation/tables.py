"""Means with standard errors, as numbers and in Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Estimate: TypeAlias = "dict[str, float | int | None]"


def summary(values: ArrayLike, clusters: Sequence[str] | None = None) -> Estimate:
    r"""Compute the mean, its standard error, and the number of values.

    Values of one cluster (the slices of one scan) are correlated, so they carry less information
    than independent values. With ``G`` clusters the squared standard error of the mean is

    .. math:: \frac{G}{G-1} \frac{1}{n^2} \sum_g \Big(\sum_{i \in g} (x_i - \bar x)\Big)^2

    (Liang and Zeger, Biometrika 73, 13 (1986), for a mean), which is ``s²/n`` if every value is its
    own cluster. A single cluster contains no information on the variation between clusters; its
    values are assumed to be independent.

    Args:
        values: Values of shape ``(n,)``.
        clusters: Cluster of each value (default: each value is its own cluster).

    Returns:
        ``mean``, ``standard_error`` (``None`` for one value, or if the mean is not finite) and
        ``n``.

    Example:
        >>> from ctxrecon.evaluation import summary, with_error
        >>> with_error(summary([37.0, 38.0, 39.0]), digits=2)
        '38.00 ± 0.58'
    """
    array = np.asarray(values, dtype=np.float64)
    names = range(len(array)) if clusters is None else clusters
    _, owner = np.unique(np.asarray(names), return_inverse=True)
    if owner.max() == 0:
        owner = np.arange(len(array))
    with np.errstate(invalid="ignore"):  # infinite values of both signs
        mean = float(array.mean())
    error = None
    if owner.max() > 0 and np.isfinite(mean):
        sums = np.bincount(owner, array - mean)
        error = float(np.sqrt(len(sums) / (len(sums) - 1) * np.square(sums).sum()) / len(array))
    return {"mean": mean, "standard_error": error, "n": len(array)}


def with_error(entry: Estimate, digits: int, *, sign: bool = False) -> str:
    """Format ``mean ± standard error``."""
    mean = f"{entry['mean']:{'+' if sign else ''}.{digits}f}"
    error = entry["standard_error"]
    return mean if error is None else f"{mean} ± {error:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table whose first column is text and whose other columns are numbers.

    Example:
        >>> from ctxrecon.evaluation import table
        >>> print(table(["method", "PSNR"], [["dds", "38.0"]]))
        | method | PSNR |
        | --- | ---: |
        | dds | 38.0 |
        <BLANKLINE>
    """
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
