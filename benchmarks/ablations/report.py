"""Page of the study."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.ablations.entries import ENTRIES, REFERENCE, parse_args
from benchmarks.common.arguments import recorded_options
from benchmarks.common.paired import Interval, paired, with_interval
from benchmarks.common.record import Record
from benchmarks.common.words import change, listed
from ctxrecon.evaluation import table

_KINDS = ("people", "phantom")


def page(record: Record) -> str:
    """Return the page: a verdict, the setting and one row for each training."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    header = ["training", "compared with"]
    header += [f"{kind} (dB)" for kind in _KINDS] + [f"{kind}, gain by prompt" for kind in _KINDS]
    rows = []
    for title in (entry.title for entry in ENTRIES if entry.title in results["entries"]):
        row, entry = [title], results["entries"][title]
        if title == REFERENCE:
            row += ["", *(f"{_mean(entry, kind):.2f}" for kind in _KINDS)]
        else:
            row += [entry["compared"]]
            row += [with_interval(_difference(results, title, kind), 2) for kind in _KINDS]
        row += [with_interval(_by_prompt(results, title, kind), 2) for kind in _KINDS]
        rows.append(row)
    return f"""\
# Choices in training the prior

{_verdict(results)}

{_setting(args)}

{table(header, rows)}
"""


def _verdict(results: dict[str, Any]) -> str:
    """Return the entries that are better and worse on people, interval clear of 0."""
    found = {
        title: _difference(results, title, "people")
        for title in results["entries"]
        if title != REFERENCE
    }

    def names(sign: int) -> str:
        clear = {title: one for title, one in found.items() if _sign(one) == sign}
        order = sorted(clear, key=lambda title: -abs(float(clear[title]["mean"] or 0)))
        return listed([f"“{title}” {change(clear[title])}" for title in order])

    sentences = []
    for sign, word in ((1, "better"), (-1, "worse")):
        text = names(sign)
        entries = f"Clearly {word} on real people than what they are compared with: {text}."
        sentences.append(entries if text else f"No choice is clearly {word} on real people.")
    return "\n".join(sentences)


def _sign(estimate: Interval) -> int:
    """Return the sign of an estimate whose interval is clear of 0, otherwise 0."""
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None or low <= 0 <= high:
        return 0
    return 1 if low > 0 else -1


def _setting(args: argparse.Namespace) -> str:
    count, size = args.test_scans, f"{args.resolution}²"
    images = f"{args.steps * args.train_batch_size:,} images of {size}"
    tested = f"{args.inference_steps} steps, ×{args.acceleration:g}, 8 coils, 1 % noise"
    return f"""\
Priors of the shipped size, trained from new weights, once each, on {images}
({args.steps} steps of {args.train_batch_size}). The reference draws half of its images from the
phantom and half from real people, predicts v with balanced weights and a quadratic density of the
timesteps, adds at most 1 % noise to the phantom's images and uses the text encoder of the shipped
prior; every other training changes what its name says. Tested by the default solver
({tested}) on {count} slices of people outside the training
data, reduced to {size}, and on {count} phantom scans outside the bank.

“People” and “phantom” are the PSNR with the prompt, without it for “no prompts”: the mean for the
reference, the mean paired difference with its 95 % interval for the others (people's slices
clustered by person). “Gain by prompt” is the paired difference between γ = 1 and γ = 0. Intervals
cover the test slices, not the variation between trainings, which are far shorter than that of the
shipped prior."""


def _mean(entry: dict[str, Any], kind: str) -> float:
    values = _scores(entry, kind)
    return sum(values) / len(values)


def _difference(results: dict[str, Any], title: str, kind: str) -> Interval:
    """Return the paired difference of an entry to the one that it is compared with."""
    entries = results["entries"]
    one, other = (_scores(entries[name], kind) for name in (title, entries[title]["compared"]))
    return _paired(results, kind, one, other)


def _scores(entry: dict[str, Any], kind: str) -> list[float]:
    """Return the PSNR of an entry as it is trained, with the prompt or without."""
    found: list[float] = entry["psnr"][kind]["prompt" if entry["prompted"] else "none"]
    return found


def _by_prompt(results: dict[str, Any], title: str, kind: str) -> Interval:
    """Return the paired gain of an entry by the prompt."""
    values = results["entries"][title]["psnr"][kind]
    return _paired(results, kind, values["prompt"], values["none"])


def _paired(results: dict[str, Any], kind: str, one: list[float], other: list[float]) -> Interval:
    return paired(one, other, results["people"] if kind == "people" else None)
