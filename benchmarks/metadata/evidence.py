"""Detection of wrong prompts by the evidence of the data.

Each slice is reconstructed without a prompt, and the image is scored under every prompt by
:func:`ctxrecon.inference.evidence.prompt_evidence`. The scores answer two questions. Does the right
prompt score higher than a wrong one of the same slice? And can a single prompt be recognized as
wrong, because its score minus that of no prompt is lower than for right prompts?
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from benchmarks.common import words
from benchmarks.common.paired import (
    Interval,
    above,
    interval,
    paired,
    roc_interval,
    with_interval,
)
from benchmarks.metadata.edits import (
    ALL,
    WRONG_ANATOMY,
    WRONG_CONTRAST,
    WRONG_SLICE,
    WRONG_TIMES,
    applies,
)
from benchmarks.metadata.experiments import Case, Sources
from benchmarks.metadata.plan import BRAIN, KNEE, LADDER_MASKS, PEOPLE, Pool
from benchmarks.metadata.sections import BOTH, Section
from ctxrecon.evaluation import Row, append_rows, table
from ctxrecon.inference.evidence import prompt_evidence
from ctxrecon.measurement import Measurement
from ctxrecon.pipelines import ContextMRIPipeline

EVIDENCE_COLUMNS = ("pool", "mask", "scan", "kind", "prompt", "score", "seconds", "person")
NONE = "no prompt"
WRONG = (WRONG_CONTRAST, WRONG_ANATOMY, WRONG_TIMES, WRONG_SLICE)
"""Prompts that are compared with the right one if a slice's metadata allow it."""

_CHANCE = 0.5
"""ROC area of guesses; a wrong prompt is detected if the whole interval lies above it."""

# Prompt -> slice -> score.
_Scores = dict[str, dict[int, float]]


def evidence_cells(args: argparse.Namespace) -> list[tuple[Pool, str]]:
    """Return the pools and masks of the experiment."""
    pools = (KNEE, BRAIN, *[PEOPLE] * bool(args.people))
    return [(pool, LADDER_MASKS[number]) for pool in pools for number in args.accelerations]


def evidence_batch(
    path: Path,
    rows: list[Row],
    numbers: list[int],
    sources: Sources,
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
    bar: tqdm,
) -> None:
    """Measure the missing rows of ``numbers``; append them to the file and ``rows``."""
    done = {(row["pool"], row["mask"], int(row["scan"]), row["prompt"]) for row in rows}
    for pool, mask in evidence_cells(args):
        bar.set_description(f"evidence, {pool.name}, {mask}")
        for number in numbers:
            cell = (pool.name, mask, number)
            # The empty prompt is written last.
            if (*cell, NONE) in done:
                continue
            found = _rate(sources.sampled(pool, mask, number), pipe, args)
            new = [row for row in found if (*cell, row["prompt"]) not in done]
            for row in new:
                row |= {"pool": pool.name, "mask": mask}
            append_rows(path, EVIDENCE_COLUMNS, new)
            rows += new
        bar.update()


def _rate(case: Case, pipe: ContextMRIPipeline, args: argparse.Namespace) -> list[Row]:
    """Score every prompt of a slice; the rows do not name their cell yet."""
    scan = case.scan
    edits = [edit for edit in (ALL, *WRONG) if applies(edit, scan.metadata[0])]
    started = time.perf_counter()
    scores = prompt_evidence(
        pipe,
        Measurement.from_arrays(scan.kspace, scan.mask, scan.coil_maps),
        [*(case.prompt(edit) for edit in edits), ""],
        num_inference_steps=args.steps,
        num_levels=args.levels,
        generator=torch.Generator().manual_seed(case.seed),
        batch_size=args.batch_size,
    )[0].tolist()
    seconds = f"{time.perf_counter() - started:.2f}"
    own = {name: word for name, word in case.row().items() if name in EVIDENCE_COLUMNS}
    return [
        {**own, "prompt": name, "score": repr(score), "seconds": seconds}
        for name, score in zip([*edits, NONE], scores, strict=True)
    ]


def evidence(rows: list[Row], args: argparse.Namespace) -> Section | None:
    """Return how well wrong prompts are detected, or ``None`` for too few slices."""
    section = Section({"n": 0, "cells": {}})
    body = []
    for mask in dict.fromkeys(mask for _, mask in evidence_cells(args)):
        pools = [pool for pool, its in evidence_cells(args) if its == mask]
        groups: dict[str, tuple[Pool, ...]] = {pool.name: (pool,) for pool in pools}
        groups[BOTH] = (KNEE, BRAIN)
        for name, members in groups.items():
            for wrong in WRONG:
                entry = _compare(rows, members, mask, wrong, args.scans)
                if entry is None:
                    continue
                section.results["cells"][f"{name}, {mask}, {wrong}"] = entry
                section.results["n"] = max(section.results["n"], entry["n"] // len(members))
                body.append(
                    [
                        f"{name}, {mask}, {wrong}",
                        str(entry["n"]),
                        with_interval(entry["right_less_wrong"], 1),
                        with_interval(entry["right_less_none"], 1),
                        _share(entry["right_wins"]),
                        _share(entry["roc_area"]),
                    ]
                )
                if len(members) > 1 or name == PEOPLE.name:
                    area = entry["roc_area"]
                    section.claim(
                        f"the evidence of the data tells a {wrong}, {name}, {mask}",
                        above(area, _CHANCE),
                        f"ROC area {_share(area)}, right one preferred in "
                        f"{entry['right_wins']['mean']:.0%}, n = {entry['n']}",
                    )
    if not body:
        return None
    section.verdict = _verdict(section.results["cells"])
    header = ["cell", "n", "right − wrong (nats)", "right − none (nats)"]
    header += ["right prompt preferred", "ROC area"]
    section.text += [
        "Columns show the mean difference of the log evidence with its 95 % interval; the share of "
        "slices whose right prompt has more evidence than the wrong one; and the area under the "
        "ROC curve of detecting a wrong prompt by a low evidence relative to no prompt, with one "
        "threshold for all slices (jackknife over slices, or people). Chance is 0.5 for the last "
        "two; a wrong prompt counts as detected if the whole interval of its area lies above it.\n",
        table(header, body),
    ]
    return section


def _verdict(cells: dict[str, Any]) -> str:
    """Return which wrong prompts are detected on all phantoms, and on real people, in words."""
    groups: dict[str, dict[str, Interval]] = {}
    for name, one in cells.items():
        group, mask, wrong = name.split(", ")
        if group in (BOTH, PEOPLE.name):
            groups.setdefault(f"{group}, {mask}", {})[wrong] = one["roc_area"]
    return "\n".join(
        f"For {name}, the evidence of the data {_detected(areas)}."
        for name, areas in groups.items()
    )


def _detected(areas: dict[str, Interval]) -> str:
    """Return the wrong prompts that are detected and those that are not, with their ROC areas."""
    named: dict[bool, list[str]] = {True: [], False: []}
    for wrong, area in areas.items():
        mean = words.number(float(area["mean"] or 0), 2)
        named[above(area, _CHANCE)].append(f"{wrong} (ROC area {mean})")
    yes, no = words.listed(named[True]), words.listed(named[False])
    if not yes:
        return f"does not detect {no}"
    return f"detects {yes}, but not {no}" if no else f"detects {yes}"


def _compare(
    rows: list[Row], pools: Sequence[Pool], mask: str, wrong: str, count: int
) -> dict[str, Any] | None:
    """Compare right and wrong prompts; return ``None`` for fewer than two slices with both."""
    right_, wrong_, none_ = ([] for _ in range(3))
    people: list[str] = []
    for pool in pools:
        scores, owners = _scores_of(rows, pool, mask)
        for number in sorted(scores.get(wrong, {})):
            if number < count and number in scores.get(NONE, {}):
                right_.append(scores[ALL][number])
                wrong_.append(scores[wrong][number])
                none_.append(scores[NONE][number])
                people.append(owners[number])
    if len(right_) < 2:
        return None
    own, other, none = (np.array(values, dtype=np.float64) for values in (right_, wrong_, none_))
    return {
        "n": len(own),
        "right_less_wrong": paired(own, other, people),
        "right_less_none": paired(own, none, people),
        "right_wins": _as_share(interval(_wins(own, other), people)),
        "roc_area": roc_interval(none - own, none - other, people),
    }


def _as_share(estimate: Interval) -> Interval:
    """Clip the interval to [0, 1]."""
    low, high = estimate["low"], estimate["high"]
    return {
        **estimate,
        "low": None if low is None else max(low, 0.0),
        "high": None if high is None else min(high, 1.0),
    }


def _wins(own: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 where the first value is higher and ½ where they are equal."""
    return (own > other) + 0.5 * (own == other)


def _scores_of(rows: list[Row], pool: Pool, mask: str) -> tuple[_Scores, dict[int, str]]:
    """Return the scores of a cell and the person of each slice."""
    scores: _Scores = {}
    owners: dict[int, str] = {}
    for row in rows:
        if (row["pool"], row["mask"]) == (pool.name, mask):
            number = int(row["scan"])
            scores.setdefault(row["prompt"], {})[number] = float(row["score"])
            owners[number] = row["person"] or f"{pool.name} {number}"
    return scores, owners


def _share(estimate: dict[str, Any]) -> str:
    """Return an estimate as ``0.81 [0.74, 0.88]``."""
    mean = f"{estimate['mean']:.3f}"
    if estimate["low"] is None:
        return mean
    return f"{mean} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
