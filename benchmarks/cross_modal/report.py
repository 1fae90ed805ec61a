"""The page of a table."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common.arguments import recorded_options
from benchmarks.common.paired import with_interval
from benchmarks.common.record import Record
from benchmarks.cross_modal.prior import STARTED, TITLE
from benchmarks.cross_modal.tables import METRICS, TABLES, Table, parse_args
from ctxrecon.evaluation import table

_TITLES = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "nmse": "NMSE",
    "psnr_synthetic": "PSNR of the synthetic T2",
    "endpoint_error": "end-point error (px)",
    "folds": "folds",
}


def page(record: Record) -> str:
    """Explanation, and a table for each task."""
    results = record["results"]
    if "complexity" in results:
        return _complexity(results["complexity"])
    args = parse_args(recorded_options(record["command"]))
    chosen = TABLES[results["table"]]
    text = [f"# {chosen.title}\n", _explanation(chosen, args)]
    for task, scores in results["tasks"].items():
        text += [f"{task}:\n", _table(scores, chosen.compared)]
    if chosen.picture is not None:
        text += ["One scan by every entry:\n", f"![Every entry]({chosen.picture})\n"]
    return "\n".join(text)


def _explanation(chosen: Table, args: argparse.Namespace) -> str:
    """What a table shows."""
    times = "once" if len(args.seeds) == 1 else f"{len(args.seeds)} times"
    return f"""\
{args.test_scans} scans of held-out people at {args.resolution}², single-coil magnitudes;
slice-wise metrics, mean ± standard deviation over the scans; differences from
“{chosen.compared}” are paired, with their 95 % intervals over people. Every network was
trained {times}, with {args.scans} pairs for {args.steps} steps of {args.batch_size}; scores of one
scan are averaged over the trainings. The end-point error is that inside the head, for zero-filling
that of no alignment.
{_of_prior(chosen, args)}"""


def _of_prior(chosen: Table, args: argparse.Namespace) -> str:
    """What is said of the diffusion prior's rows."""
    if chosen.started is None:
        return ""
    return f"""
“{TITLE}” is the default of the package's diffusion prior with the prompt of the T2 scan;
“{STARTED}” is DDS with {100 * args.strength:g} % of its diffusion left, from the
synthetic T2 of “{chosen.started}”. The prior was trained on other images, and on none of these
pairs.
"""


def _table(scores: dict[str, dict[str, Any]], compared: str) -> str:
    lines = [
        [
            title,
            *(_spread(found.get(name), digits) for name, digits in METRICS.items()),
            with_interval(found["more"], 2) if "more" in found else "",
        ]
        for title, found in scores.items()
    ]
    return table(["", *_TITLES.values(), f"PSNR less that of “{compared}”"], lines)


def _spread(found: dict[str, float] | None, digits: int) -> str:
    if found is None:
        return ""
    return f"{found['mean']:.{digits}f} ± {found['deviation']:.{digits}f}"


def _complexity(found: dict[str, dict[str, float]]) -> str:
    lines = [
        [name, f"{one['parameters']:.2f}", f"{one['macs']:.1f}"] for name, one in found.items()
    ]
    heading = "# Size of the networks\n\nAt 320², every network run once, R without a guide.\n\n"
    return heading + table(["", "parameters (10⁶)", "multiply-accumulates (10⁹)"], lines)
