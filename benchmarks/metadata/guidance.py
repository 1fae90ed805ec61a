"""Page section on the baseline and every guidance scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.held_out import LABEL_VOLUME
from benchmarks.common.paired import Interval, above, paired, with_interval
from benchmarks.common.words import change
from benchmarks.metadata.measured import METRICS, Measured
from benchmarks.metadata.plan import (
    ABLATION_MASK,
    LADDER_MASKS,
    PEOPLE,
    Condition,
    Experiment,
    Pool,
)
from benchmarks.metadata.plan import L1_WAVELET as L1
from benchmarks.metadata.sections import (
    BOTH,
    Column,
    Combine,
    Scores,
    Section,
    evidence_of,
    people_of,
    scores,
)
from ctxrecon.evaluation import summary, table

AVERAGE = "average of all cells"
MIN_GAIN_DB = 0.4
"""Gain over γ = 0 that the best γ must reach at uniform1d ×8."""
STRONGEST_USEFUL = 3.0
"""The γ above which PSNR decreases in the paper."""

_LESS_NONE = " less γ = 0"
_BEST = f"best γ{_LESS_NONE}"


@dataclass(frozen=True)
class _Group:
    """Scores of some slices, and the person of each slice."""

    scores: Scores
    people: list[str]

    def where(self, keep: NDArray[np.bool_]) -> _Group:
        """Return the scores of a subset of the slices."""
        return _Group(
            {m: {n: c[keep] for n, c in columns.items()} for m, columns in self.scores.items()},
            [person for person, kept in zip(self.people, keep, strict=True) if kept],
        )


_Groups = dict[str, _Group]


def guidance(
    measured: Measured, experiment: Experiment, numbers: list[int], fixed: float
) -> Section:
    """Return the section on baseline and every γ in each cell (the paper's Table 1)."""
    groups = _groups(measured, experiment, numbers)
    gains = {
        name: _gains(found, experiment.methods, fixed)
        for part in groups.values()
        for name, found in part.items()
    }
    real = experiment.pools == (PEOPLE,)
    section = Section({"n": len(numbers), "cells": gains})
    section.verdict = _verdict(gains, real, fixed)
    cells = list(groups["cells"])
    known = [metric for metric in METRICS if metric in gains[AVERAGE]["differences"][_BEST]]
    for metric in known:
        section.text += [
            f"{metric.upper()}, mean ± standard deviation over the slices:\n",
            _mean_table(gains, cells, metric),
        ]
    kinds = "by kind" if real else "by kind of brain (procedural, label volume)"
    for title, names, metrics in (
        ("by cell", [*cells, *groups["pooled"]], known),
        (kinds, list(groups["kinds"]), ["psnr"]),
    ):
        for metric in metrics:
            section.text += [
                f"Paired differences of {metric.upper()} with 95 % intervals, {title}:\n",
                _difference_table(gains, names, metric),
            ]
    own = [f"{pool.name}, {mask}" for pool in experiment.pools for mask in experiment.masks]
    by_mask = groups["pooled"] or groups["cells"]
    at = dict(zip(experiment.masks, [*groups["pooled"]] or own, strict=True))
    less, more = (_best_gain(by_mask[at[mask]], experiment) for mask in LADDER_MASKS.values())
    lead = paired(less, more, by_mask[at[ABLATION_MASK]].people)
    _claims(section, gains, own, at, lead, experiment, fixed)
    return section


def _verdict(gains: dict[str, Any], real: bool, fixed: float) -> str:
    """Return the gains of the prompt on average and at the ablation mask, in words."""
    name = f"γ = {fixed:g}{_LESS_NONE}"
    where = f"{PEOPLE.name if real else BOTH}, {ABLATION_MASK}"
    average = change(gains[AVERAGE]["differences"][name]["psnr"])
    text = f"The prompt (γ = {fixed:g}) {average} on the average of all cells"
    if where in gains:
        text += f" and {change(gains[where]['differences'][name]['psnr'])} at {ABLATION_MASK}"
    return f"{text}{' on real people' if real else ''}."


def _claims(
    section: Section,
    gains: dict[str, Any],
    cells: list[str],
    at: dict[str, str],
    lead: Interval,
    experiment: Experiment,
    fixed: float,
) -> None:
    """Add verdicts on Table 1 and Figure 2b: the gain, its size, the best γ and the spread.

    Args:
        section: Section that receives the verdicts.
        gains: Gains of every group.
        cells: Names of the groups of one pool and mask.
        at: Name of the group of all pools by mask.
        lead: Gain at uniform1d ×4 less gain at ×8.
        experiment: Experiment of the results.
        fixed: Guidance scale γ fixed in advance.
    """

    def gain(name: str, title: str = _BEST) -> dict[str, Any]:
        return gains[name]["differences"][title]["psnr"]

    def claim(statement: str, holds: bool, evidence: str) -> None:
        where = f"{PEOPLE.name}: " if experiment.pools == (PEOPLE,) else ""
        section.claim(where + statement, holds, evidence)

    for title in (_BEST, f"γ = {fixed:g}{_LESS_NONE}"):
        for name, wanted in (
            (
                at[ABLATION_MASK],
                f"{MIN_GAIN_DB} dB or more over γ = 0 at {ABLATION_MASK}, interval clear of 0",
            ),
            (AVERAGE, "over γ = 0 on the average of all cells, interval above 0"),
        ):
            found = gain(name, title)
            needed = MIN_GAIN_DB if name != AVERAGE else 0.0
            gamma = f"best γ (here {gains[name]['best_gamma']:g})"
            claim(
                f"{gamma if title == _BEST else f'γ = {fixed:g}'} gains {wanted}",
                found["mean"] >= needed and above(found),
                evidence_of(found, "dB"),
            )
    clear = [above(gain(name)) for name in cells]
    claim(
        "the best γ gains over γ = 0 with every mask and anatomy (Table 1)",
        all(clear),
        f"{sum(clear)} of {len(clear)} intervals above 0",
    )
    best = gains[AVERAGE]["best_gamma"]
    if max(experiment.gammas) > 1:
        claim(
            "γ of 2 to 3 is best (Table 1, average of all cells)",
            2 <= best <= STRONGEST_USEFUL,
            f"γ = {best:g} is",
        )
    stronger = max(experiment.gammas)
    title = f"γ = {stronger:g} less γ = {STRONGEST_USEFUL:g}"
    if title in gains[AVERAGE]["differences"]:
        fall = gain(AVERAGE, title)
        claim(
            f"PSNR falls beyond γ = {STRONGEST_USEFUL:g} (Figure 2b, average of all cells)",
            fall["high"] is not None and fall["high"] < 0,
            f"γ = {stronger:g}: {evidence_of(fall, 'dB')}",
        )
    for other in (method.name for method in experiment.methods if method.prior):
        found, same = (gain(AVERAGE, f"{one} less {other}") for one in ("best γ", "γ = 0"))
        claim(
            f"the best γ gains over {other}, another prior (Table 1, average of all cells)",
            above(found),
            f"{evidence_of(found, 'dB')}; without a prompt {evidence_of(same, 'dB')}",
        )
    less, more = (gain(at[mask]) for mask in LADDER_MASKS.values())
    claim(
        "metadata gain more at uniform1d ×4 than at ×8 (Table 1)",
        above(lead),
        f"×4 {evidence_of(less, 'dB')}; ×8 {evidence_of(more, 'dB')}; "
        f"×4 less ×8 {evidence_of(lead, 'dB')}",
    )
    for metric in ("ssim", "lpips"):
        if metric not in gains[AVERAGE]["means"]["γ = 0"]:
            continue
        pairs = [
            (
                gains[name]["means"][f"γ = {gains[name]['best_gamma']:g}"][metric]["deviation"],
                gains[name]["means"]["γ = 0"][metric]["deviation"],
            )
            for name in cells
        ]
        lower = sum(one <= none for one, none in pairs)
        claim(
            f"{metric.upper()} varies no more over the slices with the best γ than with γ = 0 "
            "(Table 1, most cells)",
            2 * lower > len(pairs),
            f"in {lower} of {len(pairs)} cells; standard deviations "
            + ", ".join(f"{one:.4f} and {none:.4f}" for one, none in pairs),
        )


def _groups(measured: Measured, experiment: Experiment, numbers: list[int]) -> dict[str, _Groups]:
    """Return the cells and their average, all pools of each mask, and kinds of the last pool."""
    pools, masks, methods = experiment.pools, experiment.masks, experiment.methods

    def of(chosen: list[tuple[Pool, str]], combine: Combine = np.concatenate) -> _Group:
        found = scores(measured, chosen, methods, numbers, combine)
        own = chosen[:1] if combine is _mean else chosen
        return _Group(found, people_of(measured, own, methods[0], numbers))

    cells = {f"{pool.name}, {mask}": of([(pool, mask)]) for pool in pools for mask in masks}
    averages = {pool: of([(pool, mask) for mask in masks], _mean) for pool in pools}
    pooled = {f"{BOTH}, {mask}": of([(pool, mask) for pool in pools]) for mask in masks}
    last = pools[-1]
    kinds = np.array(measured.words(last, masks[0], methods[0], "kind", numbers))
    split: _Groups = {}
    for kind in sorted(set(kinds)):
        title = _kind_title(kind, last)
        for mask in masks:
            split[f"{title}, {mask}"] = cells[f"{last.name}, {mask}"].where(kinds == kind)
        split[f"{title}, average"] = averages[last].where(kinds == kind)
    return {
        "cells": {**cells, AVERAGE: _join(list(averages.values()))},
        "pooled": pooled if len(pools) > 1 else {},
        "kinds": split,
    }


def _kind_title(kind: str, pool: Pool) -> str:
    if pool is PEOPLE:
        return kind
    return "label-volume brain" if kind == LABEL_VOLUME else "procedural brain"


def _mean(columns: list[Column]) -> Column:
    return np.mean(columns, axis=0)


def _join(parts: Sequence[_Group]) -> _Group:
    return _Group(
        {
            method: {
                name: np.concatenate([part.scores[method][name] for part in parts])
                for name in columns
            }
            for method, columns in parts[0].scores.items()
        },
        [person for part in parts for person in part.people],
    )


def _gains(group: _Group, methods: Sequence[Condition], fixed: float) -> dict[str, Any]:
    """Return the means of each method and the paired differences by title."""
    found = group.scores
    guided = [method for method in methods if method.gamma]
    best, none = _best(group, methods)
    prompted = next(method for method in guided if method.gamma == fixed)
    pairs = {f"γ = {method.gamma:g}{_LESS_NONE}": (method, none) for method in guided}
    pairs[_BEST] = (best, none)
    pairs[f"best γ less {L1.name}"] = (best, L1)
    pairs[f"γ = {fixed:g} less {L1.name}"] = (prompted, L1)
    useful = [method for method in guided if method.gamma == STRONGEST_USEFUL]
    for one in useful:
        pairs |= {
            f"γ = {method.gamma:g} less γ = {one.gamma:g}": (method, one)
            for method in guided
            if (method.gamma or 0) > STRONGEST_USEFUL
        }
    for other in (method for method in methods if method.prior):
        pairs[f"γ = 0 less {other.name}"] = (none, other)
        pairs[f"best γ less {other.name}"] = (best, other)
    return {
        "best_gamma": best.gamma,
        "means": {
            _column_name(method): {
                metric: summary(column, group.people) | {"deviation": _deviation(column)}
                for metric, column in found[method.name].items()
            }
            for method in methods
        },
        "differences": {
            title: {
                metric: paired(found[one.name][metric], found[other.name][metric], group.people)
                for metric in found[one.name]
            }
            for title, (one, other) in pairs.items()
        },
    }


def _best(group: _Group, methods: Sequence[Condition]) -> tuple[Condition, Condition]:
    """Return the method with the best γ > 0 by mean PSNR, and the one with γ = 0."""
    guided = [method for method in methods if method.gamma]
    none = next(method for method in methods if method.gamma == 0)
    return max(guided, key=lambda method: float(group.scores[method.name]["psnr"].mean())), none


def _best_gain(group: _Group, experiment: Experiment) -> Column:
    """Return the PSNR gain of the best γ over γ = 0 for each slice."""
    best, none = _best(group, experiment.methods)
    return group.scores[best.name]["psnr"] - group.scores[none.name]["psnr"]


def _deviation(column: Column) -> float | None:
    """Return the standard deviation over the slices."""
    return float(column.std(ddof=1)) if len(column) > 1 else None


def _column_name(method: Condition) -> str:
    return method.name if method.gamma is None or method.prior else f"γ = {method.gamma:g}"


def _mean_table(gains: dict[str, Any], names: list[str], metric: str) -> str:
    def cell(entry: dict[str, Any]) -> str:
        digits = METRICS[metric]
        mean, deviation = f"{entry['mean']:.{digits}f}", entry["deviation"]
        return mean if deviation is None else f"{mean} ± {deviation:.{digits}f}"

    methods = list(gains[names[0]]["means"])
    return table(
        ["cell", *methods],
        [[name, *(cell(gains[name]["means"][m][metric]) for m in methods)] for name in names],
    )


def _difference_table(gains: dict[str, Any], names: list[str], metric: str) -> str:
    titles = list(gains[names[0]]["differences"])
    return table(
        ["cell", *(title.replace(" less ", " − ") for title in titles)],
        [
            [
                name,
                *(
                    with_interval(gains[name]["differences"][title][metric], METRICS[metric])
                    + (f" (γ = {gains[name]['best_gamma']:g})" if title == _BEST else "")
                    for title in titles
                ),
            ]
            for name in names
        ],
    )
