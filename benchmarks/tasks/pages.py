"""Pages of the segmentation tables."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.common.arguments import recorded_options
from benchmarks.common.paired import Interval, interval, paired, with_interval
from benchmarks.common.record import Record
from benchmarks.common.words import change, listed, span
from benchmarks.tasks.methods import INFO, METHODS
from benchmarks.tasks.options import parse_args
from ctxrecon.evaluation import table

Row = dict[str, Any]

_IMAGE = {"λ₃ = 0": ".0997", "λ₃ = 0.1": ".0961", "λ₃ = 1": ".0943"}
_SAMPLES = {
    "K = 1": ".1369 / .9547", "K = 2": ".1146 / .9535", "K = 4": ".0936 / .9576",
    "K = 8": ".0869 / .9562", "K = 16": ".0872 / .9563",
}  # fmt: skip


def segmentation(record: Record) -> str:
    """Return the page on GED and Dice of every method (analogue of InfoMRI's Table III)."""
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
    heads = ["method", "×", "GED", f"GED difference from {INFO.title}", "Dice"]
    heads += ["Dice of majority votes", "diversity", "parameters (10⁶)", "published GED / Dice"]
    diversity = np.mean(rows[0]["scores"]["reference_diversity"])
    ged = [
        (row["title"], row["acceleration"], float(np.mean(row["scores"]["ged"]))) for row in rows
    ]
    text = [
        "# Segmentation from undersampled k-space\n",
        _lowest("GED", ged),
        *_scattered(rows, float(diversity)),
        _caption(args),
        _OF_RATERS.format(f"{diversity:.3f}"),
        _PUBLISHED,
        table(heads, lines),
    ]
    if any(row["title"] == INFO.title for row in rows):
        text.append("![Raters and samples](tasks_segmentation_samples.png)\n")
    return "\n".join(text)


def _scattered(rows: Sequence[Row], of_raters: float) -> list[str]:
    """Return a warning about methods whose samples overlap far less with raters than raters do."""
    scattered: dict[str, list[float]] = {}
    for row in rows:
        dice = float(np.mean(row["scores"]["dice"]))
        diverse = float(np.mean(row["scores"]["diversity"])) > of_raters
        if diverse and dice < (1 - of_raters) / 2:
            scattered.setdefault(row["title"], []).append(dice)
    return [
        f"The samples of “{title}” differ more from each other than the raters do, and GED rewards "
        f"that: its mean Dice is only {span(dice)}. Read its GED together with Dice; such samples "
        "are no segmentations.\n"
        for title, dice in scattered.items()
    ]


def calibration(record: Record) -> str:
    """Return the page on ECE and Brier score (analogue of Table X)."""
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
    ece = [(row["title"], row["acceleration"], row["calibration"]["ece"]["mean"]) for row in rows]
    text = ["# Calibration of pixel probabilities\n", _lowest("ECE", ece, 4), _caption(args)]
    text += [
        "The probability of a pixel is the mean over the samples, and it is compared with every "
        "rater. The expected calibration error (ECE) and the Brier score are computed over all "
        "pixels together, with jackknife intervals over people; lower is better.\n",
        _PUBLISHED,
        table(["method", "×", "ECE", "Brier score", "published ECE / Brier score"], lines),
    ]
    return "\n".join(text)


def loss_weights(record: Record) -> str:
    """Return the page on GED against the weights of the loss (analogue of Table XI)."""
    args, rows = _options(record), record["results"]["rows"]
    best = min(rows, key=lambda row: float(np.mean(row["scores"]["ged"])))
    text = ["# Weights of InfoMRI's loss\n"]
    text += [f"The GED is lowest with {best['title']}: {_mean(best, 'ged')}.\n", _caption(args)]
    text += [
        "λ₂ is relative to the bound of the likelihood, where it is 1. The normalization of the "
        "published weight, 50, is unknown, so the published numbers (1: .7087, 5: .5884, "
        "10: .2388, 50: .0943, 100: .0953) cannot be assigned to these rows. While λ₂ varies, λ₃ "
        "is 0.1; while λ₃ varies, λ₂ is 1.\n",
        _of_one_model(rows, "published GED", _IMAGE),
    ]
    return "\n".join(text)


def samples(record: Record) -> str:
    """Return the page on GED and Dice against the number of samples (analogue of Table XII)."""
    rows = record["results"]["rows"]
    ends = " and ".join(f"{_mean(row, 'ged')} with {row['title']}" for row in (rows[0], rows[-1]))
    text = ["# Number of samples\n", f"The GED is {ends}.\n", _caption(_options(record))]
    text += [
        "The estimate of the GED is unbiased for two or more samples. A single sample has no pairs "
        "and is rated like a method without variation. Times are per slice on a machine that also "
        "ran other work.\n",
        _of_one_model(rows, "published GED / Dice", _SAMPLES, seconds=True),
    ]
    return "\n".join(text)


def accelerations(record: Record) -> str:
    """Return the page on one model at ×1 to ×32 (analogue of Figure 15)."""
    rows = record["results"]["rows"]
    lines = [
        [f"{row['acceleration']:g}", *(_mean(row, name) for name in ("ged", "dice", "diversity"))]
        for row in rows
    ]
    ends = " and ".join(
        f"{_mean(row, 'ged')} at ×{row['acceleration']:g}" for row in (rows[0], rows[-1])
    )
    text = ["# One model at every acceleration\n", f"The GED of one model is {ends}.\n"]
    text += [
        _caption(_options(record)),
        "In the publication, the loss is negligible up to about ×10.\n",
        table(["×", "GED", "Dice", "diversity"], lines),
    ]
    return "\n".join(text)


def bimodal(record: Record) -> str:
    """Return the page on GED if half of the raters include the edema."""
    args, rows = _options(record), record["results"]["rows"]
    bound = np.array(rows[0]["scores"]["ged"])
    lines = []
    for row in rows:
        known = row["acceleration"] is None
        difference = paired(np.array(row["scores"]["ged"]), bound)
        less = "" if row is rows[0] else with_interval(difference, 3)
        others = [_mean(row, name) for name in ("dice", "diversity", "reference_diversity")]
        place = "" if known else f"{row['acceleration']:g}"
        lines.append([row["title"], place, _mean(row, "ged"), less, *others])
    text = [
        "# Two opinions: a mass with or without its edema\n",
        "\n".join(_of_opinions(rows)) + "\n",
        f"{args.test_scans} held-out people, {args.resolution}², field of view of half the head, "
        "T1 after contrast agent, variable-density masks. Half of the 16 raters mark only "
        "the mass (A), the others the mass with its edema (B ⊃ A); there are no other differences. "
        "The generalized energy distance (GED, lower is better) to the raters is at least "
        "½ d(A, B) for a method that always returns the same segmentation and 0 for a perfect "
        "sampler; independent pixels lie in between. Because exactly half of the raters hold each "
        f"opinion, all values are lower by d(A, B) / 30. Models were trained for {args.steps} "
        f"steps of {args.batch_size}. Brackets show 95 % intervals over people. The first three "
        "rows know the raters; the others see only the measurement, which also leaves open where "
        "the boundaries are.\n",
        table(
            ["method", "×", "GED", "difference from the first row", "Dice"]
            + ["diversity of samples", "diversity of raters"],
            lines,
        ),
        "![Raters and samples](tasks_bimodal_samples.png)\n",
    ]
    return "\n".join(text)


def _of_opinions(rows: Sequence[Row]) -> list[str]:
    """Return how InfoMRI's GED compares with deterministic methods, at each acceleration."""
    ged = {(row["title"], row["acceleration"]): np.array(row["scores"]["ged"]) for row in rows}
    best, single = next(iter(ged.values())), "no latent"
    sentences = []
    for (title, place), values in ged.items():
        if title != INFO.title:
            continue
        against = {"always choosing the better of the two opinions": best}
        if (single, place) in ged:
            against["the network without a latent"] = ged[single, place]
        for name, other in against.items():
            apart = change(paired(values, other), 3, "", ("is higher by", "is lower by"))
            share = f"{values.mean() / other.mean():.2f} times"
            sentences.append(
                f"At ×{place:g}, the GED of “{title}” {apart} than that of {name} ({share})."
            )
    return sentences


_PUBLISHED = (
    "Published values were measured on the prostates of QUBIQ at four accelerations, from low to "
    "high, whose values are missing in the available text. They are listed at the corresponding "
    "position and only show the order of the methods.\n"
)
_OF_RATERS = (
    "GED is the unbiased estimate of the generalized energy distance to the raters (lower is "
    "better); the raters' own diversity is {}. Dice is the mean over single samples and single "
    "raters.\n"
)


def _lowest(metric: str, found: Sequence[tuple[str, float, float]], digits: int = 3) -> str:
    """Return which method has the lowest value of a metric at which acceleration.

    Args:
        metric: Name of the metric.
        found: Title, acceleration and value of each row.
        digits: Decimal places of the value.
    """
    places: dict[str, list[str]] = {}
    for acceleration in dict.fromkeys(place for _, place, _ in found):
        own = [(value, title) for title, place, value in found if place == acceleration]
        value, title = min(own)
        places.setdefault(title, []).append(f"×{acceleration:g} ({value:.{digits}f})")
    best = listed([f"“{title}” at {listed(where)}" for title, where in places.items()])
    return f"The {metric} is lowest with {best}.\n"


def _options(record: Record) -> argparse.Namespace:
    return parse_args(recorded_options(record["command"]))


def _caption(args: argparse.Namespace) -> str:
    times = len(args.seeds)
    averaged = "" if times == 1 else " Scores are averaged over the trainings."
    scope = "for each acceleration, InfoMRI jointly for all of them"
    if len(args.accelerations) == 1:
        scope = f"at ×{args.accelerations[0]:g}"
    return (
        f"Segmentation of the phantom's {args.target.replace('_', ' ')} for {args.test_scans} "
        f"held-out people, {args.resolution}², each with 16 raters. Every stage of every model was "
        f"trained {'once' if times == 1 else f'{times} times'} on {args.scans} scans for "
        f"{args.steps} steps of {args.batch_size} {scope}.{averaged} Brackets show 95 % intervals "
        "over people.\n"
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
    heads = ["setting", "GED", "Dice", "Dice of majority votes", "diversity"]
    return table([*heads, *["seconds per slice"] * seconds, head], lines)


def _row(rows: Sequence[Row], title: str, acceleration: float) -> Row | None:
    return next(
        (row for row in rows if (row["title"], row["acceleration"]) == (title, acceleration)), None
    )


def _published(name: str, row: Row, rows: Sequence[Row]) -> str:
    """Return the published value at the same position among the paper's four accelerations."""
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
