"""The pages of the tables of segmentation."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.common.arguments import recorded_options
from benchmarks.common.paired import Interval, interval, paired, with_interval
from benchmarks.common.record import Record
from benchmarks.tasks.methods import INFO, METHODS
from benchmarks.tasks.options import parse_args
from ctxrecon.evaluation import table

Row = dict[str, Any]

_IMAGE = {"λ₃ = 0": ".0997", "λ₃ = 0.1": ".0961", "λ₃ = 0.5": ".0882", "λ₃ = 1": ".0943",
          "λ₃ = 10": ".1088"}  # fmt: skip
_SAMPLES = {
    "K = 1": ".1369 / .9547", "K = 2": ".1146 / .9535", "K = 4": ".0936 / .9576",
    "K = 8": ".0869 / .9562", "K = 16": ".0872 / .9563",
}  # fmt: skip


def segmentation(record: Record) -> str:
    """GED and Dice of every method; InfoMRI's Table III."""
    rows, args = record["results"]["rows"], _options(record)
    lines = []
    for row in rows:
        less = ""
        anchor = _row(rows, INFO.title, row["acceleration"])
        if anchor is not None and anchor is not row:
            less = with_interval(paired(row["scores"]["ged"], anchor["scores"]["ged"]), 3)
        lines.append(
            [
                row["title"],
                f"{row['acceleration']:g}",
                _mean(row, "ged"),
                less,
                _mean(row, "dice"),
                _mean(row, "dice_majority"),
                _mean(row, "diversity"),
                f"{row['parameters']:.2f}",
                _published("segmentation", row, rows),
            ]
        )
    heads = ["", "×", "GED", f"GED less {INFO.title}'s", "Dice", "Dice of majorities"]
    heads += ["diversity", "M params", "published GED / DSC"]
    diversity = np.mean(rows[0]["scores"]["reference_diversity"])
    text = [
        "# Segmentation straight from k-space\n",
        _caption(args),
        _OF_RATERS.format(f"{diversity:.3f}"),
        _PUBLISHED,
        table(heads, lines),
    ]
    if any(row["title"] == INFO.title for row in rows):
        text.append("![Raters and samples](tasks_segmentation_samples.png)\n")
    return "\n".join(text)


def calibration(record: Record) -> str:
    """ECE and Brier score; Table X."""
    rows, args = record["results"]["rows"], _options(record)
    lines = [
        [
            row["title"],
            f"{row['acceleration']:g}",
            _shown(row["calibration"]["ece"], 4),
            _shown(row["calibration"]["brier"], 4),
            _published("calibration", row, rows),
        ]
        for row in rows
    ]
    text = ["# Calibration of the probability of a pixel\n", _caption(args)]
    text += [
        "The probability is the mean over the samples; every rater's mark counts. Both are of all "
        "pixels together, with intervals of the jackknife over people.\n",
        _PUBLISHED,
        table(["", "×", "ECE", "Brier score", "published ECE / Brier"], lines),
    ]
    return "\n".join(text)


def loss_weights(record: Record) -> str:
    """GED over the weights of the loss; Table XI."""
    args = _options(record)
    text = ["# Weights of InfoMRI's loss\n", _caption(args)]
    text += [
        "λ₂ is relative to the bound of the likelihood, in which it is 1; how the published one, "
        "50, is normalized is not known, so its numbers (1: .7087, 5: .5884, 10: .2388, 50: .0943, "
        "100: .0953) belong to none of these. While one weight varies the other is 1.\n",
        _of_one_model(record["results"]["rows"], "published GED", _IMAGE),
    ]
    return "\n".join(text)


def samples(record: Record) -> str:
    """GED and Dice over the number of samples; Table XII."""
    text = ["# Number of samples\n", _caption(_options(record))]
    text += [
        "The estimate of GED has no bias for two samples or more; of one there are no pairs, and "
        "it stands for a method that never varies. Seconds are of a slice, with other work on the "
        "machine.\n",
        _of_one_model(record["results"]["rows"], "published GED / DSC", _SAMPLES, seconds=True),
    ]
    return "\n".join(text)


def accelerations(record: Record) -> str:
    """GED and Dice of one model from 1x to 32x; Figure 15."""
    rows = record["results"]["rows"]
    lines = [
        [f"{row['acceleration']:g}", *(_mean(row, name) for name in ("ged", "dice", "diversity"))]
        for row in rows
    ]
    text = ["# One model at every acceleration\n", _caption(_options(record))]
    text += [
        "Published: the loss is negligible up to about ×10.\n",
        table(["×", "GED", "Dice", "diversity"], lines),
    ]
    return "\n".join(text)


def bimodal(record: Record) -> str:
    """GED where half of the raters include the edema."""
    args, rows = _options(record), record["results"]["rows"]
    bound = np.array(rows[0]["scores"]["ged"])
    lines = []
    for row in rows:
        values = np.array(row["scores"]["ged"])
        less = "" if row is rows[0] else with_interval(paired(values, bound), 3)
        others = [_mean(row, name) for name in ("dice", "diversity", "reference_diversity")]
        lines.append([row["title"], _mean(row, "ged"), less, *others])
    text = [
        "# Two opinions: a mass with or without its edema\n",
        f"{args.test_scans} held-out people of {args.resolution}² with a field of view of half of "
        "the head, T1 after contrast agent, variable-density masks ×4. Half of the raters mark "
        "the mass alone, A, the others the edema with it, B ⊃ A, without other differences. A "
        "method that always gives the same has a GED of ½ d(A, B) at least, a perfect sampler 0, "
        "and draws of independent pixels lie between. Here exactly half of the 16 raters have "
        "either opinion, which lowers all numbers by d(A, B) / 30. "
        f"{args.steps} steps of {args.batch_size}; in brackets 95 % intervals over people.\n",
        table(
            ["", "GED", "less the first row", "Dice", "diversity", "that of raters"],
            lines,
        ),
        "![Raters and samples](tasks_bimodal_samples.png)\n",
    ]
    return "\n".join(text)


_PUBLISHED = (
    "Published numbers are of QUBIQ's prostates at four accelerations, from low to high, that the "
    "text lost; they are beside the same place of ours, for the order of the methods alone.\n"
)
_OF_RATERS = (
    "GED is the generalized energy distance to the raters, its estimate without bias; the raters' "
    "own diversity is {}. Dice is the mean over single samples and single raters.\n"
)


def _options(record: Record) -> argparse.Namespace:
    return parse_args(recorded_options(record["command"]))


def _caption(args: argparse.Namespace) -> str:
    times = len(args.seeds)
    trained = "once" if times == 1 else f"{times} times, and scores averaged"
    return (
        f"Phantom {args.target.replace('_', ' ')}, {args.test_scans} held-out people of "
        f"{args.resolution}², each with 16 raters; every stage of every model was trained "
        f"{trained}, with {args.scans} scans for {args.steps} steps of {args.batch_size} for "
        "each acceleration, InfoMRI once for all of them together. In brackets 95 % intervals over "
        "people.\n"
    )


def _of_one_model(
    rows: Sequence[Row], head: str, published: Mapping[str, str], *, seconds: bool = False
) -> str:
    lines = []
    for row in rows:
        line = [row["title"], *(_mean(row, name) for name in ("ged", "dice", "dice_majority"))]
        line += [_mean(row, "diversity")]
        line += [f"{row['seconds']:.2f}"] if seconds else []
        lines.append([*line, published.get(row["title"], "")])
    heads = ["", "GED", "Dice", "Dice of majorities", "diversity", *["s"] * seconds, head]
    return table(heads, lines)


def _row(rows: Sequence[Row], title: str, acceleration: float) -> Row | None:
    return next(
        (row for row in rows if (row["title"], row["acceleration"]) == (title, acceleration)), None
    )


def _published(name: str, row: Row, rows: Sequence[Row]) -> str:
    """The number in the same place of the paper's four accelerations."""
    known = {method.title: method.published for method in METHODS}
    values = known.get(row["title"], {}).get(name, ())
    places = sorted({one["acceleration"] for one in rows})
    ends = {0: 0, len(places) - 1: -1} if len(places) < len(values) else {}
    place = places.index(row["acceleration"])
    place = ends.get(place, place)
    return values[place] if values and place < len(values) else ""


def _mean(row: Row, metric: str) -> str:
    if metric not in row["scores"]:
        return ""
    return _shown(interval(row["scores"][metric]), 3)


def _shown(estimate: Interval | Mapping[str, float], digits: int) -> str:
    mean = f"{estimate['mean']:.{digits}f}"
    low = estimate.get("low")
    return mean if low is None else f"{mean} [{low:.{digits}f}, {estimate['high']:.{digits}f}]"
