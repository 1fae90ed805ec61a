"""Figure of every entry of a table on one scan."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from benchmarks.common.figures import shrink
from benchmarks.cross_modal.scans import TestScans
from ctxrecon.figures import comparison_figure

_SHOWN = 1
"""Number of the scan; it is the first label-volume slice if there are label volumes."""


def draw_picture(path: Path, images: dict[str, Tensor], scans: TestScans, title: str) -> None:
    """Draw the images ``(scans, n, n)`` of every entry next to the ground truth, with errors."""
    number = min(_SHOWN, len(scans.people) - 1)
    truth = scans.target[number]
    shown = {name: each[number].cpu() for name, each in images.items()}
    comparison_figure(path, shown, truth, reference_name="true T2", title=title)
    shrink(path)
