"""Figures of the metadata study."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common.figures import save_figure
from benchmarks.common.paired import Interval
from benchmarks.metadata.plan import Experiment
from benchmarks.metadata.sections import BOTH
from benchmarks.metadata.text_to_image import CONTRASTS, References, generate, method_name
from ctxrecon.pipelines import ContextMRIPipeline

_COLORS = ("#1f6f8b", "#e07a3f", "#5b8c3e", "#8a4f9e")
_SHOWN = 2


def _figure(width: float, height: float, columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for one in axes:
        _plain(one)
    return figure, list(axes)


def _plain(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)


def _bars(estimates: Sequence[Interval]) -> tuple[list[float], list[list[float]]]:
    """Return means and their distances to the ends of the intervals."""
    means = [float(one["mean"] or 0) for one in estimates]
    low, high = (
        np.array([one["mean"] if one[end] is None else one[end] for one in estimates], float)
        for end in ("low", "high")
    )
    return means, [list(means - low), list(high - means)]


def guidance_figure(path: Path, results: dict[str, Any], experiment: Experiment) -> None:
    """Plot the PSNR gain over γ = 0 against γ, a line per mask and a panel per anatomy."""
    figure, axes = _figure(9, 3.8, len(experiment.pools))
    guided = [method for method in experiment.methods if method.gamma]
    for axis, pool in zip(axes, experiment.pools, strict=True):
        for place, (mask, color) in enumerate(zip(experiment.masks, _COLORS, strict=True)):
            # Side by side, so that intervals do not hide each other.
            shift = 0.04 * (place - 1.5)
            pairs = results["cells"][f"{pool.name}, {mask}"]["differences"]
            means, ends = _bars([pairs[f"γ = {one.gamma:g} less γ = 0"]["psnr"] for one in guided])
            axis.errorbar(
                [shift, *(shift + float(method.gamma or 0) for method in guided)],
                [0.0, *means],
                [[0.0, *ends[0]], [0.0, *ends[1]]],
                label=mask,
                color=color,
                marker="o",
                markersize=4,
                capsize=3,
            )
        axis.set_title(f"{pool.name}, n = {results['n']}", fontsize=10)
        axis.set_xlabel("guidance scale γ")
        axis.set_ylabel("PSNR gain over γ = 0 (dB)")
        axis.legend(fontsize=8, frameon=False)
    save_figure(path, figure, dpi=130)


def ladder_figure(path: Path, results: dict[str, Any], experiment: Experiment) -> None:
    """Plot the PSNR gain over no metadata against γ, a line per prompt and a row per mask."""
    groups = [*(pool.name for pool in experiment.pools), BOTH]
    figure = Figure(figsize=(11, 3.4 * len(experiment.masks)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(experiment.masks), len(groups), squeeze=False)
    none = experiment.methods[-1].name
    for row, mask in zip(grid, experiment.masks, strict=True):
        for axis, name in zip(row, groups, strict=True):
            entries = results[mask][name]
            for place, edit in enumerate(experiment.edits):
                methods = [experiment.method(edit, gamma) for gamma in experiment.gammas]
                means, ends = _bars([entries[one.name]["psnr"]["less_none"] for one in methods])
                # Side by side, so that intervals do not hide each other.
                shift = 0.04 * (place - (len(experiment.edits) - 1) / 2)
                axis.errorbar(
                    [shift, *(shift + gamma for gamma in experiment.gammas)],
                    [0.0, *means],
                    [[0.0, *ends[0]], [0.0, *ends[1]]],
                    label=edit,
                    color=_COLORS[place],
                    marker="o",
                    markersize=4,
                    capsize=3,
                )
            _plain(axis)
            first = entries[experiment.method(experiment.edits[0], experiment.gammas[0]).name]
            n, mean = first["psnr"]["less_none"]["n"], entries[none]["psnr"]["mean"]
            axis.set_title(f"{name}, {mask}\nn = {n}; none {mean:.2f} dB", fontsize=8)
            axis.set_xlabel("guidance scale γ")
            axis.set_ylabel("PSNR gain over no metadata (dB)", fontsize=8)
    grid[0, 0].legend(fontsize=8, frameon=False)
    save_figure(path, figure, dpi=110)


def wrong_prompt_figure(path: Path, results: dict[str, Any]) -> None:
    """Plot the difference of a wrong from the right prompt, with 95 % intervals."""
    telling = results["telling"]
    figure, axes = _figure(9, 3.4, 3)
    panels = {
        "PSNR (dB)": [entry["psnr"] for entry in telling.values()],
        "data residual": [entry["residual"]["difference"] for entry in telling.values()],
        "posterior spread": [entry["spread"]["difference"] for entry in telling.values()],
    }
    for axis, (title, estimates) in zip(axes, panels.items(), strict=True):
        means, ends = _bars(estimates)
        axis.bar(
            range(len(means)), means, yerr=ends, color=_COLORS[: len(means)], capsize=4, width=0.55
        )
        axis.set_xticks(range(len(means)), list(telling), fontsize=8)
        axis.set_xlim(-0.6, len(means) - 0.4)
        axis.set_title(f"{title}, wrong − right, n = {estimates[0]['n']}", fontsize=9)
        axis.ticklabel_format(axis="y", scilimits=(-3, 3))
    save_figure(path, figure, dpi=130)


def text_to_image_figure(
    path: Path,
    references: References,
    gammas: Sequence[float],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
) -> None:
    """Draw one row per prompt: a phantom image of the same metadata and images at each γ."""
    numbers = list(range(_SHOWN))
    columns = ["phantom", *(method_name(gamma) for gamma in gammas)]
    figure = Figure(
        figsize=(1.35 * len(columns) * _SHOWN + 0.4, 1.4 * len(CONTRASTS) + 0.3),
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(CONTRASTS), len(columns) * _SHOWN)
    for row, name in zip(grid, CONTRASTS, strict=True):
        targets = [references.scans[name][number].target for number in numbers]
        images: list[Tensor] = [torch.cat([one for one in targets if one is not None])]
        images += [generate(pipe, references, name, numbers, gamma, args) for gamma in gammas]
        for place, (title, batch) in enumerate(zip(columns, images, strict=True)):
            for number in numbers:
                axis = row[number * len(columns) + place]
                axis.imshow(batch[number].abs().numpy(), cmap="gray", vmin=0, vmax=1.1)
                axis.set_xticks([])
                axis.set_yticks([])
                if row[0] is grid[0, 0]:
                    axis.set_title(title, fontsize=9)
        row[0].set_ylabel(name, fontsize=9)
    save_figure(path, figure, dpi=110)
