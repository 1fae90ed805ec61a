"""Code shared by the page sections: scores from the rows, sections and claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.paired import Interval, with_interval
from benchmarks.metadata.measured import METRICS, Measured
from benchmarks.metadata.plan import Condition, Pool
from ctxrecon.evaluation import table

BOTH = "knee and brain"
Column = NDArray[np.float64]
# Condition name -> metric -> one value per slice.
Scores = dict[str, dict[str, Column]]
Combine = Callable[[list[Column]], Column]


@dataclass
class Section:
    """One experiment's part of the report.

    Attributes:
        results: Results for the JSON file.
        text: Blocks of Markdown.
        claims: Statement, whether it holds, and the numbers that support the verdict.
        verdict: Sentence for the beginning of the page, or empty.
    """

    results: dict[str, Any] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    claims: list[tuple[str, bool, str]] = field(default_factory=list)
    verdict: str = ""

    def claim(self, statement: str, holds: bool, evidence: str) -> None:
        """Add a claim with its verdict."""
        self.claims.append((statement, holds, evidence))


def scores(
    measured: Measured,
    cells: Iterable[tuple[Pool, str]],
    methods: Iterable[Condition],
    numbers: Sequence[int],
    combine: Combine = np.concatenate,
    names: Sequence[str] = tuple(METRICS),
) -> Scores:
    """Return the scores of each method over ``(pool, mask)`` cells, slice by slice.

    ``combine`` concatenates the cells or averages them for each slice. Metrics that were not
    measured are omitted.
    """
    chosen = list(cells)
    found: Scores = {}
    for method in methods:
        columns = {
            name: combine([measured.column(*cell, method, name, numbers) for cell in chosen])
            for name in names
        }
        found[method.name] = {
            name: column for name, column in columns.items() if not np.isnan(column).any()
        }
    return found


def people_of(
    measured: Measured, cells: Iterable[tuple[Pool, str]], method: Condition, numbers: Sequence[int]
) -> list[str]:
    """Return the person of each slice, cell after cell; unknown people are distinct."""
    return [
        person or f"{pool.name} {number}"
        for pool, mask in cells
        for number, person in zip(
            numbers, measured.words(pool, mask, method, "person", numbers), strict=True
        )
    ]


def evidence_of(estimate: Interval, unit: str) -> str:
    return f"{with_interval(estimate, 3)} {unit}, n = {estimate['n']}"


def verdicts(sections: Iterable[Section]) -> str:
    """Return the table of all claims with their verdicts, all columns as text."""
    found = table(
        ["claim", "holds", "measured"],
        [
            [statement, "**yes**" if holds else "**no**", evidence.replace(" less ", " − ")]
            for section in sections
            for statement, holds, evidence in section.claims
        ],
    )
    return found.replace("---:", "---")
