"""Page of the study and its statistics."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common.arguments import recorded_options
from benchmarks.common.held_out import NUM_COILS, SNR, center_fraction
from benchmarks.common.paired import interval, paired, with_interval
from benchmarks.common.people import PersonSlice
from benchmarks.common.record import Record
from benchmarks.common.words import change, listed
from benchmarks.people.options import (
    CEILING,
    CG_SENSE,
    DEFAULT,
    ZERO_FILLED,
    PriorMethod,
    l1_title,
    parse_args,
)
from ctxrecon.evaluation import Row, table

SCORES = {"psnr": ("PSNR (dB)", 2), "ssim": ("SSIM", 3), "nmse": ("NMSE", 4), "lpips": ("LPIPS", 3)}
"""Scores with their names and decimal places in tables."""
L1 = "L1-wavelet, best λ"
ALL = "all"

Values = dict[str, dict[str, np.ndarray]]
"""Scores of shape ``(slices,)`` by method and metric."""


def summarize(
    rows: list[Row],
    chosen: Sequence[PersonSlice],
    methods: Sequence[PriorMethod],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return scores and paired differences at each acceleration, overall and by kind."""
    table_of = {(row["scan"], row["acceleration"], row["method"]): row for row in rows}
    scores = [name for name in SCORES if all(row[name] for row in rows)]
    groups = {ALL: list(range(len(chosen)))}
    for kind in sorted({one.kind for one in chosen}):
        groups[kind] = [place for place, one in enumerate(chosen) if one.kind == kind]
    people = [one.person for one in chosen]
    results: dict[str, Any] = {
        "slices": [{"scan": one.number, "person": one.person, "kind": one.kind} for one in chosen],
        "groups": {
            name: {"slices": len(places), "people": len({people[place] for place in places})}
            for name, places in groups.items()
        },
    }
    for acceleration in args.accelerations:
        label = f"{acceleration:g}"

        def column(method: str, name: str, label: str = label) -> np.ndarray:
            return np.array(
                [float(table_of[str(one.number), label, method][name]) for one in chosen]
            )

        l1 = {weight: column(l1_title(weight), "psnr").mean() for weight in args.l1_weights}
        best = max(l1, key=lambda weight: l1[weight])
        rows_of = {CEILING: CEILING, ZERO_FILLED: ZERO_FILLED, CG_SENSE: CG_SENSE}
        rows_of[L1] = l1_title(best)
        rows_of |= {title: title for method in methods for title in method.titles}
        values = {
            title: {name: column(row, name) for name in scores} for title, row in rows_of.items()
        }
        results[f"x{label}"] = {
            "l1_weight": best,
            "l1_psnr": {f"{weight:g}": float(mean) for weight, mean in l1.items()},
            "methods": {group: _scores(values, places, people) for group, places in groups.items()},
            "differences": {
                group: _differences(values, places, people, pairs_of(methods))
                for group, places in groups.items()
            },
            "seconds": {
                title: float(column(row, "seconds").mean()) for title, row in rows_of.items()
            },
        }
    return results


def pairs_of(methods: Sequence[PriorMethod]) -> list[tuple[str, str]]:
    """Return pairs of titles whose slice-wise difference (first minus second) is reported."""
    first = methods[0].prior
    pairs = [(title, L1) for method in methods for title in method.titles]
    for method in methods:
        twin = PriorMethod(first, method.text, method.prompted, method.samples)
        if method.prior != first:
            pairs += list(zip(method.titles, twin.titles, strict=True))
    for method in methods:
        if method.text != methods[0].text:
            twin = PriorMethod(first, methods[0].text, method.prompted, methods[0].samples)
            pairs.append((method.title, twin.title))
    for method in methods:
        if method.prompted:
            none = PriorMethod(method.prior, method.text, False, method.samples)
            pairs.append((method.title, none.title))
    return pairs + [(method.sample_title, method.title) for method in methods if method.samples > 1]


def _scores(values: Values, places: list[int], people: list[str]) -> dict[str, Any]:
    """Return every mean score with its interval and its position from L1-wavelet to ceiling."""
    clusters = [people[place] for place in places]
    found: dict[str, Any] = {}
    for title, columns in values.items():
        found[title] = {}
        for name, column in columns.items():
            start, end = (float(values[key][name][places].mean()) for key in (L1, CEILING))
            entry = interval(column[places], clusters)
            share = (float(column[places].mean()) - start) / (end - start) if end != start else None
            finite = {key: None if _unbounded(value) else value for key, value in entry.items()}
            found[title][name] = finite | {"share": None if math.isinf(end) else share}
    return found


def _differences(
    values: Values, places: list[int], people: list[str], pairs: list[tuple[str, str]]
) -> dict[str, Any]:
    """Return the paired differences by name of the pair."""
    clusters = [people[place] for place in places]
    return {
        f"{one} less {other}": {
            name: paired(values[one][name][places], values[other][name][places], clusters)
            for name in values[one]
        }
        for one, other in pairs
    }


def _unbounded(value: float | int | None) -> bool:
    return value is not None and not math.isfinite(value)


def page(record: Record) -> str:
    """Return the page: a verdict, the setting, and for each acceleration scores and differences."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    text = ["# Held-out people\n", _verdict(args, results), _explanation(args, results)]
    for acceleration in args.accelerations:
        entry = results[f"x{acceleration:g}"]
        text += [
            f"## uniform1d ×{acceleration:g}, {center_fraction(acceleration):.0%} center\n",
            _table_of_scores(entry),
            "PSNR (dB) by kind of slice:\n",
            _table_of_kinds(entry),
            "Paired differences with 95 % intervals; columns without a metric show PSNR in dB:\n",
            _table_of_differences(entry),
        ]
    highest = max(args.accelerations)
    text.append(f"![A T2 slice at ×{highest:g}]({results['figure']})\n")
    return "\n".join(text)


def _verdict(args: argparse.Namespace, results: dict[str, Any]) -> str:
    """Return the gains of the first prior over L1-wavelet, and of its prompt, in words."""
    found = results[f"x{args.accelerations[0]:g}"]["differences"][ALL]
    over = next(pair for pair in found if pair.endswith(f" less {L1}"))
    prior = over.split(",")[0]
    prompted = [pair for pair in found if pair.startswith(f"{prior}, prompt less {prior}, no")]
    lines = []
    for pair, subject in (
        (over, f"In PSNR, “{over.removesuffix(f' less {L1}')}”"),
        *((one, "Its prompt") for one in prompted),
    ):
        each = [
            f"{change(results[f'x{factor:g}']['differences'][ALL][pair]['psnr'])} at ×{factor:g}"
            for factor in args.accelerations
        ]
        against = f" over “{L1}”" if pair == over else ""
        lines.append(f"{subject} {listed(each)}{against}.")
    return "\n".join(lines) + "\n"


def _table_of_scores(entry: dict[str, Any]) -> str:
    found = entry["methods"][ALL]
    names = list(found[CEILING])
    return table(
        ["method", *(SCORES[name][0] for name in names), "seconds"],
        [
            [
                title,
                *(_with_share(scores[name], SCORES[name][1], title) for name in names),
                "" if title == CEILING else f"{entry['seconds'][title]:.1f}",
            ]
            for title, scores in found.items()
        ],
    )


def _table_of_kinds(entry: dict[str, Any]) -> str:
    kinds = [group for group in entry["methods"] if group != ALL]
    return table(
        ["method", *kinds],
        [
            [title, *(_with_share(entry["methods"][k][title]["psnr"], 2, title) for k in kinds)]
            for title in entry["methods"][ALL]
        ],
    )


def _table_of_differences(entry: dict[str, Any]) -> str:
    by_group = entry["differences"]
    names = [name for name in next(iter(by_group[ALL].values())) if name in ("psnr", "ssim")]
    kinds = [group for group in by_group if group != ALL]
    return table(
        ["difference", *(SCORES[name][0] for name in names), *kinds],
        [
            [
                pair.replace(" less ", " − "),
                *(with_interval(values[name], SCORES[name][1]) for name in names),
                *(with_interval(by_group[kind][pair]["psnr"], 2) for kind in kinds),
            ]
            for pair, values in by_group[ALL].items()
        ],
    )


def _with_share(scores: dict[str, Any], digits: int, title: str) -> str:
    """Return a score with its position from L1-wavelet to the ceiling: ``36.22 (41%)``."""
    if scores["mean"] is None:
        return "∞"
    text = f"{scores['mean']:.{digits}f}"
    if title in (CEILING, L1) or scores["share"] is None:
        return text
    return f"{text} ({scores['share']:.0%})"


def _explanation(args: argparse.Namespace, results: dict[str, Any]) -> str:
    """Return the description of setting, ceiling and intervals."""
    groups = results["groups"]
    kinds = ", ".join(
        f"{entry['slices']} {name} ({entry['people']} people)"
        for name, entry in groups.items()
        if name != ALL
    )
    best = ", ".join(
        f"{results[f'x{acceleration:g}']['l1_weight']:g} at ×{acceleration:g}"
        for acceleration in args.accelerations
    )
    ways = ", ".join(
        "the default of `load_prior` (PnP-ADMM)" if text == DEFAULT else f"`{text}`"
        for text in args.methods
    )
    whole, backbone = groups[ALL], results["settings"]["lpips"]
    lpips = f" LPIPS uses the backbone `{backbone}`; lower is better." if backbone else ""
    return f"""\
{whole["slices"]} slices of {whole["people"]} people outside the training data of the priors:
{kinds}. {NUM_COILS} simulated coils with known maps,
complex noise of {1 / SNR:.0%} of the bright signal, a different mask for each slice; magnitude
images have a smooth random phase. Metrics are slice-wise on magnitudes, against the unmodified
image. Priors: {ways}, {args.steps} steps, {args.dtype}; γ = 1 with the prompt and 0 without it.
L1-wavelet uses the best λ of {len(args.l1_weights)} by the mean PSNR of these same slices ({best}),
which a user cannot know; the other methods run at their defaults.{lpips}

**Ceiling.** The references are noisy, and the noise of samples that were not measured cannot be
predicted. The mean squared error of the magnitude is therefore at least (1 − s) v, where s is the
sampled share of k-space and v the noise variance of the reference's magnitude. The variance is
estimated from the finest diagonal Haar detail, separately inside and outside the body, and averaged
over the image. SSIM and LPIPS of the ceiling are those of the reference with noise of that size.
Known coil maps and the empty background carry a little information about that noise, so the ceiling
is not a strict bound. Percentages in brackets are the position from L1-wavelet (0 %) to the ceiling
(100 %).

**Intervals.** 95 % intervals by Student's t with the slices of one person as a cluster. With only
three or four people they are wide and approximate.
"""
