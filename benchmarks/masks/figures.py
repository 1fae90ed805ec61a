"""Figures of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common.figures import save_figure, shrink
from benchmarks.common.training import slug
from benchmarks.masks.scans import Found
from benchmarks.masks.tables import Table
from ctxrecon.evaluation import summary
from ctxrecon.figures import comparison_figure
from ctxrecon.phantom import ContrastScan
from ctxrecon.tasks import LONGEST_T2_STAR

_COLORS = ("#1f6f8b", "#e07a3f", "#5b8c3e", "#8a4f9e", "#b23a48", "#7a6a53", "#3a7ca5")
_BIN = 1 / 32
"""Width of a bin of lines as a fraction of the matrix (JoJoNet: 10 of 320)."""


def write_figures(
    folder: Path, name: str, described: Table, found: Sequence[Found], scans: Sequence[ContrastScan]
) -> None:
    """Draw masks, sampled lines, quality against sampling ratio, and images of the last scan."""
    if not found:
        return
    _save(folder / f"sampling_{name}_masks.png", _masks(found))
    _save(folder / f"sampling_{name}_lines.png", _lines(found))
    _save(folder / f"sampling_{name}_curves.png", _quality(described, found))
    middle = found[0].images.shape[0] // 2
    for acceleration in dict.fromkeys(one.acceleration for one in found):
        mine = [one for one in found if one.acceleration == acceleration]
        images = {one.title: one.images[middle] for one in mine}
        path = folder / f"sampling_{slug(f'{name}_x{acceleration:.3g}')}.png"
        title = f"Held-out phantom, contrast {middle}, ×{acceleration:.3g}"
        comparison_figure(path, images, scans[-1].images[0, middle], title=title)
        shrink(path)
        truth = scans[-1].t2_star[0].clamp(max=LONGEST_T2_STAR)
        maps = {one.title: one.maps * (truth > 0) for one in mine if one.maps is not None}
        if maps:
            path = folder / f"sampling_{slug(f'{name}_map_x{acceleration:.3g}')}.png"
            title = f"T2* map of tissue, ×{acceleration:.3g}"
            comparison_figure(path, maps, truth, reference_name="ground truth", title=title)
            shrink(path)


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(path: Path, figure: Figure) -> None:
    save_figure(path, figure, dpi=110)


def _masks(found: Sequence[Found]) -> Figure:
    """Draw a row of masks for each model, with a column for each contrast or acceleration."""
    rows: dict[str, list[tuple[str, Tensor]]] = {}
    for one in found:
        ratio = f"×{one.acceleration:.3g}"
        if len(one.masks) == 1:
            rows.setdefault(one.title, []).append((ratio, one.masks[0]))
        else:
            named = [(f"contrast {c}", mask) for c, mask in enumerate(one.masks)]
            rows[f"{one.title}\n{ratio}"] = named
    columns = max(len(row) for row in rows.values())
    figure, axes = _figure(1.3 * columns + 2.6, 1.4 * len(rows), len(rows), columns)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    for shown, (label, row) in zip(axes, rows.items(), strict=True):
        shown[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        for axis, (title, mask) in zip(shown, row, strict=False):
            axis.imshow(mask.numpy(), cmap="gray", interpolation="nearest", vmin=0, vmax=1)
            axis.set_title(title, fontsize=7)
    return figure


def _lines(found: Sequence[Found]) -> Figure:
    """Plot the sampled share of the lines in each bin along the phase-encoding axis."""
    figure, axes = _figure(7.5, 1.1 * len(found), len(found), 1)
    for axis, one in zip(axes[:, 0], found, strict=True):
        lines = np.array(one.model["lines"]).mean(axis=0)
        bins = np.array_split(lines, round(1 / _BIN))
        axis.bar(range(len(bins)), [part.mean() for part in bins], color=_COLORS[0], width=0.9)
        axis.set_ylim(0, 1)
        axis.set_xticks([])
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(f"{one.title}, ×{one.acceleration:.3g}", fontsize=8, loc="left")
    axes[-1, 0].set_xlabel("phase encoding, zero frequency in the middle")
    return figure


def _quality(described: Table, found: Sequence[Found]) -> Figure:
    """Plot the PSNR of images, and of the map if there is one, against the sampling ratio."""
    shown = [name for name in ("psnr", "map_psnr_nbg") if name in found[0].scores]
    figure, axes = _figure(4.8 * len(shown), 3.8, 1, len(shown))
    for axis, metric in zip(axes[0], shown, strict=True):
        for number, title in enumerate(dict.fromkeys(one.title for one in found)):
            mine = [one for one in found if one.title == title]
            values = [summary(one.scores[metric]) for one in mine]
            axis.errorbar(
                [100 / one.acceleration for one in mine],
                [value["mean"] for value in values],
                [value["standard_error"] for value in values],
                label=title,
                color=_COLORS[number % len(_COLORS)],
                marker="o",
                markersize=4,
                capsize=3,
            )
        axis.set_xlabel("sampling ratio (%)")
        axis.set_ylabel("PSNR (dB)" if metric == "psnr" else "PSNR of the map in the object (dB)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle(described.title, fontsize=10)
    return figure
