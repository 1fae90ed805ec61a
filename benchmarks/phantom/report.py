"""Page of the study and its statistics."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.arguments import recorded_options
from benchmarks.common.held_out import KINDS, NUM_COILS, SNR, center_fraction
from benchmarks.common.methods import BASELINE_NAMES, shipped_network
from benchmarks.common.record import Record
from benchmarks.common.words import change, listed
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
    """Return means, paired differences, and PSNR by kind of scan, at each acceleration."""
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
    """Return the page: a verdict, the setting, and for each acceleration means and differences."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    found = [results[f"x{acceleration:g}"] for acceleration in args.accelerations]
    text = ["# Held-out phantom scans\n", _verdict(args, found)]
    text.append(_explanation(args, results["settings"], found[0]))
    for acceleration, entry in zip(args.accelerations, found, strict=True):
        text += [
            f"## uniform1d ×{acceleration:g}, {center_fraction(acceleration):.0%} center, "
            f"n = {args.scans}\n",
            _means(entry),
            "Paired differences, mean ± standard error over the scans:\n",
            _differences(entry),
        ]
    return "\n".join(text)


def _verdict(args: argparse.Namespace, found: list[dict[str, Any]]) -> str:
    """Return the gains of the first solver over L1-wavelet, and of its prompt, in words."""
    solver = parse_solver(args.solvers[0])
    own, none = method_name(solver, 1), method_name(solver, 0)
    pairs = {
        f"{own} less {BASELINE_NAMES['l1_wavelet']}": f"In PSNR, “{own}” {{}} over L1-wavelet.",
        f"{own} less {none}": f"Compared with “{none}”, the prompt {{}}.",
    }
    lines = []
    for pair, sentence in pairs.items():
        if all(pair in entry["differences"] for entry in found):
            each = [
                f"{change(entry['differences'][pair]['psnr'])} at ×{acceleration:g}"
                for acceleration, entry in zip(args.accelerations, found, strict=True)
            ]
            lines.append(sentence.format(listed(each)))
    return "\n".join(lines) + "\n"


def _means(entry: dict[str, Any]) -> str:
    """Return the table of means, one row per method."""
    by_kind = entry["psnr_by_kind"]
    kinds = next(iter(by_kind.values()))
    return table(
        ["method", "PSNR (dB)", "SSIM", "NMSE", "seconds", *(f"PSNR, {kind}" for kind in kinds)],
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
    """Return the table of differences, one row per pair of methods."""
    return table(
        ["difference", "PSNR (dB)", "SSIM", "NMSE"],
        [
            [
                name.replace(" less ", " − "),
                *(
                    with_error(values[key], max(digits, 3), sign=True)
                    for key, digits in METRICS.items()
                ),
            ]
            for name, values in entry["differences"].items()
        ],
    )


def columns(rows: list[Row], method: str) -> dict[str, np.ndarray]:
    """Return the values of one method in scan order, each of shape ``(scans,)``."""
    mine = sorted((row for row in rows if row["method"] == method), key=lambda r: int(r["scan"]))
    return {key: np.array([float(row[key]) for row in mine]) for key in (*METRICS, "seconds")}


def differences(
    values: dict[str, dict[str, np.ndarray]], args: argparse.Namespace
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Return paired differences: γ > 0 from γ = 0; γ = 1 from wrong prompt, L1-wavelet, network."""
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
    """Return the description of setting and columns."""
    known = next(iter(entry["psnr_by_kind"].values()))
    counts = ", ".join(f"{known[kind]['n']} {kind}" for kind in KINDS if kind in known)
    maps = "true coil maps" if args.true_maps else "coil maps from each undersampled scan"
    samples = "one posterior sample" if args.samples == 1 else f"mean of {args.samples} samples"
    prior = "the shipped prior" if args.prior is None else f"the prior `{Path(args.prior).name}`"
    solvers = listed([f"`{text}`" for text in settings["solvers_in_full"]])
    return f"""\
{args.scans} held-out scans ({counts}), {args.resolution}², {NUM_COILS} simulated coils, complex
noise of {1 / SNR:.0%} of the bright signal, a different mask for each scan, {maps}.
Metrics are slice-wise on magnitudes, mean ± standard error over the scans. The diffusion prior is
{prior} with {solvers},
{samples}, {args.steps} steps ({args.timesteps} spacing) and the same initial noise for every γ;
γ = 0 ignores the prompt, and “prompts shuffled” uses the prompt of another scan. Baselines run at
their defaults. Seconds are per scan in a batch of {args.batch_size}; other work ran on the machine.
"""
