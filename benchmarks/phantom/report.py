"""The page of the study, and the statistics that it shows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.arguments import recorded_options
from benchmarks.common.held_out import KINDS, NUM_COILS, SNR, center_fraction
from benchmarks.common.methods import BASELINE_NAMES, shipped_network
from benchmarks.common.record import Record
from benchmarks.phantom.options import (
    METRICS,
    method_name,
    names_of,
    parse_args,
    shuffled_name,
)
from ctxrecon.evaluation import Row, summary, table, with_error
from ctxrecon.solvers import parse_solver


def summarize(rows: list[Row], args: argparse.Namespace) -> dict[str, Any]:
    """Means, paired differences, and PSNR of each kind of scan, at each acceleration."""
    methods = names_of(args)
    results: dict[str, Any] = {}
    for acceleration in args.accelerations:
        label = f"{acceleration:g}"
        chosen = [row for row in rows if row["acceleration"] == label]
        values = {name: columns(chosen, name) for name in methods}
        means = {
            name: {key: summary(list(column)) for key, column in columns.items()}
            for name, columns in values.items()
        }
        kinds = sorted({row["kind"] for row in chosen})
        by_kind = {
            name: {
                kind: summary(list(columns([r for r in chosen if r["kind"] == kind], name)["psnr"]))
                for kind in kinds
            }
            for name in methods
        }
        results[f"x{label}"] = {
            "methods": means,
            "differences": differences(values, args),
            "psnr_by_kind": by_kind,
        }
    return results


def page(record: Record) -> str:
    """Explanation, and for each acceleration the means and the paired differences."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    found = [results[f"x{acceleration:g}"] for acceleration in args.accelerations]
    text = ["# Held-out phantom scans\n", _explanation(args, results["settings"], found[0])]
    for acceleration, entry in zip(args.accelerations, found, strict=True):
        text += [
            f"## uniform1d ×{acceleration:g}, {center_fraction(acceleration):.0%} centre, "
            f"n = {args.scans}\n",
            _means(entry),
            "Paired differences, mean ± standard error:\n",
            _differences(entry),
        ]
    return "\n".join(text)


def _means(entry: dict[str, Any]) -> str:
    """A row for each method."""
    by_kind = entry["psnr_by_kind"]
    kinds = next(iter(by_kind.values()))
    return table(
        ["", "PSNR (dB)", "SSIM", "NMSE", "seconds", *(f"PSNR, {kind}" for kind in kinds)],
        [
            [
                name,
                *(with_error(means[key], digits) for key, digits in METRICS.items()),
                f"{means['seconds']['mean']:.2f}",
                *(with_error(one, 2) for one in by_kind[name].values()),
            ]
            for name, means in entry["methods"].items()
        ],
    )


def _differences(entry: dict[str, Any]) -> str:
    """A row for each pair of methods."""
    return table(
        ["", "PSNR (dB)", "SSIM", "NMSE"],
        [
            [
                name,
                *(
                    with_error(values[key], max(digits, 3), sign=True)
                    for key, digits in METRICS.items()
                ),
            ]
            for name, values in entry["differences"].items()
        ],
    )


def columns(rows: list[Row], method: str) -> dict[str, np.ndarray]:
    """The numbers of one method in the order of the scans, ``(scans,)`` each."""
    mine = sorted((row for row in rows if row["method"] == method), key=lambda r: int(r["scan"]))
    return {key: np.array([float(row[key]) for row in mine]) for key in (*METRICS, "seconds")}


def differences(
    values: dict[str, dict[str, np.ndarray]], args: argparse.Namespace
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Scan by scan: every γ > 0 less γ = 0; γ = 1 less a wrong prompt, L1-wavelet and network."""
    pairs = []
    for solver in map(parse_solver, args.solvers):
        none, own, other = method_name(solver, 0), method_name(solver, 1), shuffled_name(solver)
        positive = [method_name(solver, gamma) for gamma in args.guidance_scales if gamma > 0]
        pairs += [(name, none) for name in positive] + [(other, none), (own, other)]
        pairs += [(name, BASELINE_NAMES["l1_wavelet"]) for name in positive]
        pairs.append((own, shipped_network()[0]))
    return {
        f"{one} less {other}": {
            key: summary(list(values[one][key] - values[other][key])) for key in METRICS
        }
        for one, other in pairs
        if one in values and other in values
    }


def _explanation(args: argparse.Namespace, settings: dict[str, Any], entry: dict[str, Any]) -> str:
    """What the tables show."""
    known = next(iter(entry["psnr_by_kind"].values()))
    counts = ", ".join(f"{known[kind]['n']} {kind}" for kind in KINDS if kind in known)
    maps = "the simulated ones" if args.true_maps else "from each undersampled scan itself"
    samples = "one posterior sample" if args.samples == 1 else f"mean of {args.samples} samples"
    prior = "the shipped prior" if args.prior is None else f"the prior `{Path(args.prior).name}`"
    solvers = ", ".join(settings["solvers_in_full"])
    return f"""\
{args.scans} scans that no training set holds ({counts}), {args.resolution}², {NUM_COILS} simulated
coils, complex noise of {1 / SNR:.0%} of the bright signal, a mask for each scan, coil maps {maps}.
Slice-wise metrics on magnitudes, mean ± standard error. {solvers}:
{prior}, {samples}, {args.steps} steps ({args.timesteps}); the same starting noise for every γ.
Baselines at their defaults. Seconds are of one scan in a batch of {args.batch_size}.
"""
