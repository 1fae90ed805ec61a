"""Figures of the trade-off between classification and privacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common.figures import save_figure

_COLORS = ("#1f6f8b", "#e07a3f", "#5b8c3e")


def draw_frontier(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Plot attack PSNR against AUROC: InfoMRI's weights joined, other samplers as open circles."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    attackers = dict.fromkeys(name for row in rows for name in row["psnr"])
    for attacker, color in zip(attackers, _COLORS, strict=False):
        seen = [row for row in rows if attacker in row["psnr"]]
        own = [row for row in seen if row["title"].startswith("InfoMRI")]
        axis.plot(
            [row["auroc"]["mean"] for row in own],
            [row["psnr"][attacker]["mean"] for row in own],
            color=color,
            label=attacker,
        )
        for row in seen:
            x, y = row["auroc"], row["psnr"][attacker]
            axis.errorbar(
                x["mean"],
                y["mean"],
                xerr=[[max(x["mean"] - x["low"], 0)], [max(x["high"] - x["mean"], 0)]],
                yerr=[[max(y["mean"] - y["low"], 0)], [max(y["high"] - y["mean"], 0)]],
                color=color,
                marker="o",
                markerfacecolor=color if row in own else "white",
                elinewidth=0.7,
            )
            axis.annotate(
                row["title"].removeprefix("InfoMRI, "),
                (x["mean"], y["mean"]),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
            )
    axis.set_xlabel("mean AUROC of the findings")
    axis.set_ylabel("PSNR of the attack (dB)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False)
    save_figure(path, figure, dpi=110)


def draw_images(path: Path, images: Mapping[str, Mapping[str, Tensor]], truth: Tensor) -> None:
    """Draw the attackers' reconstructions of one knee, one row per sampler, next to the knee.

    Args:
        path: PNG file.
        images: Reconstructions ``(n, n)`` by title of the sampler and name of the attacker.
        truth: Ground truth of shape ``(n, n)``.
    """
    attackers = list(dict.fromkeys(name for row in images.values() for name in row))
    columns = ["knee", *attackers]
    size = (1.7 * len(columns) + 1.2, 1.75 * len(images))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), len(columns), squeeze=False)
    white = float(truth.abs().flatten().quantile(0.995))
    for row, (title, seen) in zip(axes, images.items(), strict=True):
        for axis, name in zip(row, columns, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_frame_on(False)
            shown = truth if name == "knee" else seen.get(name)
            if shown is not None:
                axis.imshow(shown.abs().numpy(), cmap="gray", vmin=0, vmax=white)
        row[0].set_ylabel(title.removeprefix("InfoMRI, "), fontsize=8)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=8)
    save_figure(path, figure, dpi=110)
