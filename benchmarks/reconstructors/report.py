"""The page of a table."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common.arguments import recorded_options
from benchmarks.common.record import Record
from benchmarks.reconstructors.tables import METRICS, TABLES, Table, parse_args, task_of
from ctxrecon.evaluation import table, with_error

_TITLES = {"snr": "SNR (dB)", "psnr": "PSNR (dB)", "ssim": "SSIM", "hfen": "HFEN"}
_TITLES["sharpness"] = "sharpness"


def page(record: Record) -> str:
    """Explanation, and a table for each acceleration."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    parts = {key: found for key, found in results.items() if key not in ("settings", "entries")}
    chosen = TABLES[next(iter(parts)).split()[0]]
    text = [f"# {chosen.title}\n", _explanation(chosen, args)]
    for key, scores in parts.items():
        task = task_of(chosen, float(key.split(" x")[1]), args)
        text += [f"{task}:\n", _table(scores, chosen.compared)]
    return "\n".join(text)


def _explanation(table: Table, args: argparse.Namespace) -> str:
    """What a table shows."""
    entries = table.entries(args.scans)
    least = min(entry.times for entry in entries)
    more = [f"{e.title}: {args.steps * e.times}" for e in entries if e.times > least]
    steps = f"{args.steps * least} steps" + (f" ({'; '.join(more)})" if more else "")
    return f"""\
{args.test_scans} held-out scans, coil maps from the undersampled scan;
slice-wise metrics on magnitudes, mean ± standard error over the scans; differences are paired.
Every network was trained with {args.scans} scans for {steps} of {args.batch_size}
slices. SNR is ‖x‖² / ‖x − x̂‖² in dB; HFEN the relative error of the Laplacian of Gaussian (lower
is better); sharpness the total variation over that of the truth.
"""


def _table(scores: dict[str, dict[str, Any]], compared: str) -> str:
    lines = [
        [
            title,
            *(with_error(found[name], digits) for name, digits in METRICS.items()),
            with_error(found["snr_less"], 2, sign=True) if "snr_less" in found else "",
        ]
        for title, found in scores.items()
    ]
    return table(["", *_TITLES.values(), f"SNR less that of “{compared}”"], lines)
