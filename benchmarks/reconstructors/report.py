"""Pages of the study."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.common.arguments import recorded_options
from benchmarks.common.record import Record
from benchmarks.common.words import change
from benchmarks.reconstructors.tables import METRICS, TABLES, Table, parse_args, task_of
from ctxrecon.evaluation import table, with_error

_TITLES = {"snr": "SNR (dB)", "psnr": "PSNR (dB)", "ssim": "SSIM", "hfen": "HFEN"}
_TITLES["sharpness"] = "sharpness"


def page(record: Record) -> str:
    """Return the page of a table: a verdict, the setting and a table for each acceleration."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    parts = {key: found for key, found in results.items() if key not in ("settings", "entries")}
    chosen = TABLES[next(iter(parts)).split()[0]]
    tasks = [str(task_of(chosen, float(key.split(" x")[1]), args)) for key in parts]
    verdicts = [_verdict(*one, chosen) for one in zip(tasks, parts.values(), strict=True)]
    text = [f"# {chosen.title}\n", "\n".join(verdicts) + "\n", _explanation(chosen, args)]
    for task, scores in zip(tasks, parts.values(), strict=True):
        text += [f"## {task}\n", _table(scores, chosen.compared)]
    return "\n".join(text)


def _verdict(task: str, scores: dict[str, dict[str, Any]], chosen: Table) -> str:
    """Return the best network of a task, and its distance to the compared one and to CS-wavelet."""
    networks = [title for title in scores if title not in ("zero-filled", "CS-wavelet")]
    if not networks:
        return f"{task}: no network has been trained yet."
    best, *rest = sorted(networks, key=lambda title: -scores[title]["snr"]["mean"])
    snr = {title: f"{found['snr']['mean']:.2f} dB" for title, found in scores.items()}
    text = f"{task}: “{best}” has the highest SNR of the networks, {snr[best]}"
    other = rest[0] if best == chosen.compared and rest else best
    if other != chosen.compared and "snr_less" in scores[other]:
        subject = f"; the next best, “{other}”, " if best == chosen.compared else ", and "
        text += f"{subject}{change(scores[other]['snr_less'])} compared with “{chosen.compared}”"
    if "CS-wavelet" in scores:
        text += f"; CS-wavelet has {snr['CS-wavelet']}"
    return f"{text}."


def _explanation(table: Table, args: argparse.Namespace) -> str:
    """Return the description of setting and columns."""
    entries = table.entries(args.scans)
    least = min(entry.times for entry in entries)
    more = [f"“{e.title}”: {args.steps * e.times}" for e in entries if e.times > least]
    steps = f"{args.steps * least} steps" + (f" ({'; '.join(more)})" if more else "")
    return f"""\
{args.test_scans} held-out scans with coil maps from the undersampled scan. Metrics are slice-wise
on magnitudes, mean ± standard error over the scans; differences are paired. Every network was
trained once on {args.scans} scans for {steps} of {args.batch_size} slices. SNR is
‖x‖² / ‖x − x̂‖² in dB, HFEN the relative error of the Laplacian of Gaussian (lower is better), and
sharpness the total variation relative to that of the reference (1 is ideal).
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
    return table(["method", *_TITLES.values(), f"SNR gain over “{compared}” (dB)"], lines)
