"""The baseline and every guidance scale in each cell, for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.held_out import LABEL_VOLUME
from benchmarks.common.paired import above, paired, with_interval
from benchmarks.metadata.experiments import (
    ABLATION_MASK,
    BRAIN,
    L1_WAVELET,
    METRICS,
    Condition,
    Experiment,
    Measured,
    Pool,
)
from benchmarks.metadata.sections import BOTH, Column, Combine, Scores, Section, evidence_of, scores
from ctxrecon.evaluation import summary, table, with_error

AVERAGE = "average of all cells"
MIN_GAIN_DB = 0.4
"""What the best γ is to gain over γ = 0 at uniform1d ×8."""

_LESS_NONE = " less γ = 0"
_BEST = f"best γ{_LESS_NONE}"


def _mean(columns: list[Column]) -> Column:
    return np.mean(columns, axis=0)


def _select(found: Scores, keep: NDArray[np.bool_]) -> Scores:
    return {m: {n: c[keep] for n, c in columns.items()} for m, columns in found.items()}


def _join(parts: Sequence[Scores]) -> Scores:
    return {
        method: {name: np.concatenate([part[method][name] for part in parts]) for name in columns}
        for method, columns in parts[0].items()
    }


def guidance(
    measured: Measured, experiment: Experiment, numbers: list[int], fixed: float
) -> Section:
    """Baseline and every γ in each cell; the paper's Table 1."""
    groups = _groups(measured, experiment, numbers)
    gains = {
        name: _gains(found, experiment.methods, fixed)
        for part in groups.values()
        for name, found in part.items()
    }
    section = Section({"n": len(numbers), "cells": gains})
    cells = list(groups["cells"])
    known = [metric for metric in METRICS if metric in gains[AVERAGE]["differences"][_BEST]]
    for metric in known:
        section.text += [
            f"{metric.upper()}, mean ± standard error:\n",
            _mean_table(gains, cells, metric),
        ]
    for title, names, metrics in (
        ("each cell", [*cells, *groups["pooled"]], known),
        ("procedural brains and label volumes apart", list(groups["kinds"]), ["psnr"]),
    ):
        for metric in metrics:
            section.text += [
                f"Paired differences in {metric.upper()}, mean and 95 % interval, {title}:\n",
                _difference_table(gains, names, metric),
            ]

    for title in (_BEST, f"γ = {fixed:g}{_LESS_NONE}"):
        for name, claim in (
            (
                f"{BOTH}, {ABLATION_MASK}",
                f"{MIN_GAIN_DB} dB or more over γ = 0 at {ABLATION_MASK}, interval clear of 0",
            ),
            (AVERAGE, "over γ = 0 on the average of all cells, interval above 0"),
        ):
            gain = gains[name]["differences"][title]["psnr"]
            needed = MIN_GAIN_DB if name != AVERAGE else 0.0
            gamma = f"best γ (here {gains[name]['best_gamma']:g})"
            section.claim(
                f"{gamma if title == _BEST else f'γ = {fixed:g}'} gains {claim}",
                gain["mean"] >= needed and above(gain),
                evidence_of(gain, "dB"),
            )
    return section


def _groups(
    measured: Measured, experiment: Experiment, numbers: list[int]
) -> dict[str, dict[str, Scores]]:
    """Scores of the cells and their average, of both anatomies, and of each kind of brain."""
    pools, masks, methods = experiment.pools, experiment.masks, experiment.methods

    def of(chosen: list[tuple[Pool, str]], combine: Combine = np.concatenate) -> Scores:
        return scores(measured, chosen, methods, numbers, combine)

    cells = {f"{pool.name}, {mask}": of([(pool, mask)]) for pool in pools for mask in masks}
    averages = {pool: of([(pool, mask) for mask in masks], _mean) for pool in pools}
    kinds = np.array(measured.kinds(BRAIN, ABLATION_MASK, methods[0], numbers))
    split: dict[str, Scores] = {}
    for kind in sorted(set(kinds)):
        title = "label-volume brain" if kind == LABEL_VOLUME else "procedural brain"
        for mask in masks:
            split[f"{title}, {mask}"] = _select(cells[f"{BRAIN.name}, {mask}"], kinds == kind)
        split[f"{title}, average"] = _select(averages[BRAIN], kinds == kind)
    return {
        "cells": {**cells, AVERAGE: _join(list(averages.values()))},
        "pooled": {f"{BOTH}, {mask}": of([(pool, mask) for pool in pools]) for mask in masks},
        "kinds": split,
    }


def _gains(found: Scores, methods: Sequence[Condition], fixed: float) -> dict[str, Any]:
    """Means of each method, and paired differences by their titles."""
    guided = [method for method in methods if method.gamma]
    none = next(method for method in methods if method.gamma == 0)
    best = max(guided, key=lambda method: float(found[method.name]["psnr"].mean()))
    prompted = next(method for method in guided if method.gamma == fixed)
    pairs = {f"γ = {method.gamma:g}{_LESS_NONE}": (method, none) for method in guided}
    pairs[_BEST] = (best, none)
    pairs[f"best γ less {L1_WAVELET.name}"] = (best, L1_WAVELET)
    pairs[f"γ = {fixed:g} less {L1_WAVELET.name}"] = (prompted, L1_WAVELET)
    return {
        "best_gamma": best.gamma,
        "means": {
            _column_name(method): {
                metric: summary(list(column)) for metric, column in found[method.name].items()
            }
            for method in methods
        },
        "differences": {
            title: {
                metric: paired(found[one.name][metric], found[other.name][metric])
                for metric in found[one.name]
            }
            for title, (one, other) in pairs.items()
        },
    }


def _column_name(method: Condition) -> str:
    return method.name if method.gamma is None else f"γ = {method.gamma:g}"


def _mean_table(gains: dict[str, Any], names: list[str], metric: str) -> str:
    methods = list(gains[names[0]]["means"])
    return table(
        ["", *methods],
        [
            [
                name,
                *(with_error(gains[name]["means"][m][metric], METRICS[metric]) for m in methods),
            ]
            for name in names
        ],
    )


def _difference_table(gains: dict[str, Any], names: list[str], metric: str) -> str:
    titles = list(gains[names[0]]["differences"])
    return table(
        ["", *titles],
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
