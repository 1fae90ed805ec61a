"""Rows of reconstructions by pool, mask, method and scan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.metadata.plan import Condition, Experiment, Pool, cells
from ctxrecon.evaluation import Row

METRICS = {"psnr": 2, "ssim": 4, "nmse": 4, "lpips": 4}
"""Metrics and their decimal places; ``lpips`` is empty if its weights are missing."""
COLUMNS = (
    *("pool", "mask", "scan", "kind", "method", *METRICS),
    *("residual", "spread", "seconds", "person", "findings"),
)


class Measured:
    """Rows by pool, mask, method and scan."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: dict[tuple[str, str, str], dict[int, Row]] = {}
        self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows; a later row of the same case replaces an earlier one."""
        for row in rows:
            key = (row["pool"], row["mask"], row["method"])
            self._rows.setdefault(key, {})[int(row["scan"])] = row

    def missing(
        self, pool: Pool, mask: str, method: Condition, numbers: Iterable[int]
    ) -> list[int]:
        """Return those of ``numbers`` without a row."""
        rows = self._rows.get((pool.name, mask, method.name), {})
        return [number for number in numbers if number not in rows]

    def begun(self, experiment: Experiment) -> Experiment:
        """Return the experiment restricted to prompts, γ and masks with measurements.

        A prompt counts if it has at least one row; a γ and a mask count if all of these prompts
        have rows.
        """

        def any_rows(mask: str, method: Condition) -> bool:
            return any((pool.name, mask, method.name) in self._rows for pool in experiment.pools)

        def all_edits(mask: str, gamma: float) -> bool:
            return all(any_rows(mask, experiment.method(edit, gamma)) for edit in edits)

        masks, gammas = experiment.masks, experiment.gammas
        edits = [
            edit
            for edit in experiment.edits
            if any(any_rows(mask, experiment.method(edit, g)) for mask in masks for g in gammas)
        ]
        masks = tuple(mask for mask in masks if any(all_edits(mask, g) for g in gammas))
        if not (edits and masks):
            return replace(experiment, masks=(), methods=())
        gammas = [gamma for gamma in gammas if all(all_edits(mask, gamma) for mask in masks)]
        methods = [
            method
            for method in experiment.methods
            if (method.gamma in gammas and method.edit in edits)
            or (not method.gamma and (not method.prior or any_rows(masks[0], method)))
        ]
        return replace(experiment, masks=masks, methods=tuple(methods))

    def complete(self, experiment: Experiment, count: int) -> list[int]:
        """Return the scans below ``count`` that are complete for every pool, mask and method."""
        numbers = set(range(count))
        for pool, mask, method in cells(experiment):
            numbers -= set(self.missing(pool, mask, method, numbers))
        return sorted(numbers)

    def column(
        self, pool: Pool, mask: str, method: Condition, name: str, numbers: Iterable[int]
    ) -> NDArray[np.float64]:
        """Return one value of each scan, NaN if it was not measured."""
        rows = self._rows[pool.name, mask, method.name]
        return np.array([float(rows[number][name] or "nan") for number in numbers])

    def words(
        self, pool: Pool, mask: str, method: Condition, name: str, numbers: Iterable[int]
    ) -> list[str]:
        """Return one text column of each scan, such as its kind; empty if the rows lack it."""
        rows = self._rows[pool.name, mask, method.name]
        return [rows[number].get(name, "") for number in numbers]
