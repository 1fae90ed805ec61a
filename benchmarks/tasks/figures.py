"""Figure of segmentation samples next to those of raters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common.figures import save_figure
from benchmarks.tasks.scans import Found
from ctxrecon.training.tasks.validation import Scored

_PEOPLE, _SHOWN = 4, 4
"""Number of scans in the figure, and of segmentations in each group."""


def draw_samples(path: Path, found: Sequence[Found], scans: Sequence[Scored]) -> None:
    """Draw one row per scan: raters, and samples at every acceleration of ``found``."""
    count = min(_PEOPLE, len(scans))
    columns = _SHOWN * (1 + len(found))
    figure = Figure(figsize=(0.85 * columns, 0.95 * count + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(count, columns, squeeze=False)
    for row, scan, place in zip(axes, scans, range(count), strict=False):
        groups = [("rater", _spread(scan.opinions))]
        groups += [(f"×{one.acceleration:g}", one.samples[place][:_SHOWN]) for one in found]
        image = scan.target[0].abs()
        for group, (title, marked) in enumerate(groups):
            for number, labels in enumerate(marked):
                axis = row[group * _SHOWN + number]
                axis.imshow(image.numpy(), cmap="gray", interpolation="nearest")
                if bool((labels > 0).any()):
                    axis.contour((labels > 0).numpy(), [0.5], colors="tab:orange", linewidths=0.9)
                if place == 0:
                    axis.set_title(f"{title}{f' {number + 1}' if group == 0 else ''}", fontsize=7)
        for axis in row:
            axis.axis("off")
    save_figure(path, figure, dpi=110)


def _spread(opinions: Tensor) -> Tensor:
    """Return the first few raters, who alternate between two opinions."""
    return opinions[torch.arange(_SHOWN).clamp(max=len(opinions) - 1)]
