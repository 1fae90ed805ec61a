"""The rows of reconstructions, by pool, mask, method and scan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.metadata.plan import Condition, Experiment, Pool, cells
from ctxrecon.evaluation import Row

METRICS = {"psnr": 2, "ssim": 4, "nmse": 4, "lpips": 4}
"""Metrics with the digits that tables show; ``lpips`` is empty where its weights are missing."""
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
        """Those of ``numbers`` without a row."""
        rows = self._rows.get((pool.name, mask, method.name), {})
        return [number for number in numbers if number not in rows]

    def begun(self, experiment: Experiment) -> Experiment:
        """The experiment without prompts, γ and masks that nothing was measured of yet.

        A prompt counts where there is one row of it; a γ and a mask where there are rows of all of
        those prompts.
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
        """The scans of each pool, up to ``count``, that every mask and method has done."""
        numbers = set(range(count))
        for pool, mask, method in cells(experiment):
            numbers -= set(self.missing(pool, mask, method, numbers))
        return sorted(numbers)

    def column(
        self, pool: Pool, mask: str, method: Condition, name: str, numbers: Iterable[int]
    ) -> NDArray[np.float64]:
        """One number of each scan; NaN where it was not measured."""
        rows = self._rows[pool.name, mask, method.name]
        return np.array([float(rows[number][name] or "nan") for number in numbers])

    def words(
        self, pool: Pool, mask: str, method: Condition, name: str, numbers: Iterable[int]
    ) -> list[str]:
        """One word of each scan, its kind say; empty where the rows do not have it."""
        rows = self._rows[pool.name, mask, method.name]
        return [rows[number].get(name, "") for number in numbers]
