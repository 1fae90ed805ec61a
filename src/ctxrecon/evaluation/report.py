"""Report on a measured grid: tables with standard errors, JSON, and PSNR against time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ctxrecon.evaluation.grid import Acquisition, Grid, Method, curve_title
from ctxrecon.evaluation.operators import OperatorAcquisition, Trajectory
from ctxrecon.evaluation.record import write_record
from ctxrecon.evaluation.rows import Row
from ctxrecon.evaluation.runner import METRICS, case_key, row_key
from ctxrecon.evaluation.tables import Estimate, summary, table, with_error
from ctxrecon.files import written_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_UNITS = {
    "psnr": "PSNR (dB)",
    "snr": "SNR (dB)",
    "ssim": "SSIM",
    "nmse": "NMSE",
    "hfen": "HFEN",
    "sharpness": "sharpness",
}
# Colorblind-safe colors of Okabe and Ito.
_COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"),
)
_LINES = {"metadata": "-", "none": "--", "": "-"}
_PANEL = (4.6, 3.6)
_MAX_COLUMNS = 3
_LEGEND_LINE = 0.22  # inches
FILES = ("summary.md", "summary.json", "psnr_against_seconds.png")
"""Names of the files that :func:`write_report` writes."""


@dataclass(frozen=True)
class Cell:
    """Summary of one method with one acquisition over all slices.

    Attributes:
        mask: Name of the mask, or of another operator with its options.
        acceleration: Nominal acceleration factor; ``None`` for other operators.
        method: Name of the method.
        prompt: ``"metadata"``, ``"none"`` or empty.
        steps: Number of diffusion steps, or ``None``.
        scores: Mean, standard error and number of values of each metric.
        less_first: Mean, standard error and number of the paired differences to the grid's first
            method, for each metric.
        seconds: Median time per slice in seconds, which excludes the warm-up of a GPU.
        evaluations: Number of network evaluations per slice.
    """

    mask: str
    acceleration: float | None
    method: str
    prompt: str
    steps: int | None
    scores: dict[str, Estimate]
    less_first: dict[str, Estimate]
    seconds: float
    evaluations: float


def write_report(
    folder: Path,
    rows: Sequence[Row],
    grid: Grid,
    *,
    command: str,
    processes: int,
    prior: str | None = None,
) -> list[Path]:
    """Write ``summary.md``, ``summary.json`` and ``psnr_against_seconds.png``.

    Args:
        folder: Existing folder.
        rows: Rows of the whole grid from :func:`ctxrecon.evaluation.run_grid`.
        grid: Measured grid.
        command: Command that measured it.
        processes: Number of processes that measured it.
        prior: Name of the solvers' prior; ``None`` if there are no solvers.

    Returns:
        The files written.
    """
    grid = _measured(rows, grid)
    cells = summarize(rows, grid)
    words, data, picture = (folder / name for name in FILES)
    scans = sorted({one.path.name for one in grid.slices})
    references = sorted({row["reference"] for row in rows})
    with written_beside(words) as temporary:
        text = _text(cells, grid, len(scans), references, prior)
        temporary.write_text(text, encoding="utf-8")
    results = {
        "scans": scans,
        "slices": len(grid.slices),
        "references": references,
        "batch_size": grid.batch_size,
        "processes": processes,
        "first_method": grid.methods[0].title,
        "prior": prior,
        "cells": [asdict(cell) for part in cells.values() for cell in part.values()],
    }
    write_record(data, results, command=command, seed=grid.seed)
    _draw(picture, cells, prior)
    return [words, data, picture]


def summarize(rows: Sequence[Row], grid: Grid) -> dict[Acquisition, dict[Method, Cell]]:
    """Summarize every method with every acquisition over all slices that have rows."""
    grid = _measured(rows, grid)
    by_key = {row_key(row): row for row in rows}
    clusters = [one.path.name for one in grid.slices]

    def column(acquisition: Acquisition, method: Method, name: str) -> NDArray[np.float64]:
        keys = (case_key(one, acquisition, method) for one in grid.slices)
        return np.array([float(by_key[key][name]) for key in keys])

    def cell(acquisition: Acquisition, method: Method) -> Cell:
        values = {name: column(acquisition, method, name) for name in METRICS}
        first = {name: column(acquisition, grid.methods[0], name) for name in METRICS}
        return Cell(
            mask=acquisition.mask,
            acceleration=acquisition.acceleration,
            method=method.name,
            prompt=method.prompt,
            steps=method.steps,
            scores={name: summary(values[name], clusters) for name in METRICS},
            less_first={
                name: summary(_differences(values[name], first[name]), clusters) for name in METRICS
            },
            seconds=float(np.median(column(acquisition, method, "seconds"))),
            evaluations=float(column(acquisition, method, "evaluations").mean()),
        )

    return {
        acquisition: {method: cell(acquisition, method) for method in grid.methods}
        for acquisition in grid.acquisitions
    }


def _differences(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``one − other``, with 0 where both are infinite, as the PSNR of exact images is."""
    return np.subtract(one, other, out=np.zeros_like(one), where=one != other)


def _measured(rows: Sequence[Row], grid: Grid) -> Grid:
    """Return the grid without slices that were left out, because their reference is zero."""
    there = {(row["scan"], row["slice"]) for row in rows}
    kept = (one for one in grid.slices if (one.path.name, str(one.number)) in there)
    return replace(grid, slices=tuple(kept))


def _text(
    cells: dict[Acquisition, dict[Method, Cell]],
    grid: Grid,
    scans: int,
    references: Iterable[str],
    prior: str | None,
) -> str:
    slices = len(grid.slices)
    solvers = "" if prior is None else f" Diffusion solvers with this prior: {prior}."
    errors = "over scans, as slices of one scan are not independent"
    if scans == 1:
        errors = "over the slices of the one scan, assumed to be independent"
    lines = [
        f"{slices} slice{'s' * (slices > 1)} of {scans} scan{'s' * (scans > 1)}, reference "
        f"{' or '.join(references)}, slice-wise metrics on magnitudes, mean ± standard error "
        f"({errors}).{_acquired(grid.acquisitions)} Seconds: median time per slice in batches of "
        f"{grid.batch_size}, without coil maps.{solvers}\n"
    ]
    first, *others = grid.methods
    for acquisition, part in cells.items():
        rows = [
            [
                method.title,
                *_estimates(cell.scores),
                f"{cell.seconds:.3g}",
                f"{cell.evaluations:g}",
            ]
            for method, cell in part.items()
        ]
        head = ["", *_UNITS.values()]
        lines += [
            f"## {acquisition.title}\n",
            table([*head, "seconds", "network evaluations"], rows),
        ]
        if others:
            lines += [
                f"Paired differences to {first.title}:\n",
                table(
                    head,
                    [
                        [method.title, *_estimates(part[method].less_first, sign=True)]
                        for method in others
                    ],
                ),
            ]
    return "\n".join(lines)


def _acquired(acquisitions: Iterable[Acquisition]) -> str:
    """Return how slices were measured: with masks, along trajectories, or as images."""
    sentences = []
    for acquisition in acquisitions:
        if not isinstance(acquisition, OperatorAcquisition):
            sentences.append(
                "Each slice has its own mask, the same for every method, and coil maps estimated "
                "from its samples."
            )
        elif isinstance(acquisition.operator, Trajectory):
            sentences.append(
                "Trajectories are the same for every slice, with coil maps estimated from its "
                "samples."
            )
        elif not acquisition.operator.measures_kspace:
            sentences.append(
                "Operators on images measure each slice in the same way for every method and need "
                "no coil maps."
            )
    return "".join(f" {sentence}" for sentence in dict.fromkeys(sentences))


def _estimates(scores: dict[str, Estimate], *, sign: bool = False) -> list[str]:
    return [with_error(scores[name], digits, sign=sign) for name, digits in METRICS.items()]


def _draw(path: Path, cells: dict[Acquisition, dict[Method, Cell]], prior: str | None) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(cells), _MAX_COLUMNS)
    rows = -(-len(cells) // columns)
    labels = list(dict.fromkeys(_curve_title(m) for part in cells.values() for m in part))
    across = max(1, min(len(labels), int(columns * _PANEL[0] / (0.085 * _longest(labels) + 0.6))))
    notes = ["mean ± standard error; numbers next to points are diffusion steps"]
    if prior is not None:
        notes.append(f"prior of the solvers: {prior}")
    below = _LEGEND_LINE * (-(-len(labels) // across) + len(notes)) + 0.15
    height = rows * _PANEL[1] + below
    figure = Figure(figsize=(columns * _PANEL[0], height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (acquisition, part) in zip(panels, cells.items(), strict=False):
        _draw_panel(axes, part)
        axes.set_title(acquisition.title)
    for axes in list(panels)[len(cells) :]:
        axes.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=across,
        title="\n".join(notes),
        title_fontsize="small",
        fontsize="small",
    )
    with written_beside(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _curve_title(method: Method) -> str:
    return curve_title(method.name, method.prompt)


def _longest(words: Iterable[str]) -> int:
    return max(map(len, words))


def _draw_panel(axes: Axes, part: dict[Method, Cell]) -> None:
    """Draw a point for each method and number of steps, connected over the steps."""
    curves: dict[tuple[str, str], list[Cell]] = {}
    for cell in part.values():
        curves.setdefault((cell.method, cell.prompt), []).append(cell)
    names = list(dict.fromkeys(name for name, _ in curves))
    for (name, prompt), points in curves.items():
        points = sorted(points, key=lambda cell: cell.steps or 0)
        seconds = [cell.seconds for cell in points]
        means: list[Any] = [cell.scores["psnr"]["mean"] for cell in points]
        errors: list[Any] = [cell.scores["psnr"]["standard_error"] or 0.0 for cell in points]
        axes.errorbar(
            seconds,
            means,
            errors,
            label=curve_title(name, prompt),
            color=_COLORS[names.index(name) % len(_COLORS)],
            linestyle=_LINES[prompt],
            marker="o" if prompt != "none" else "s",
            markerfacecolor="white" if prompt == "none" else None,
            markersize=5,
            capsize=3,
        )
        for cell, x, y in zip(points, seconds, means, strict=True):
            if cell.steps is not None:
                axes.annotate(
                    str(cell.steps),
                    (x, y),
                    xytext=(5, -11 if prompt == "none" else 5),
                    textcoords="offset points",
                    fontsize=8,
                )
    axes.set_xscale("log")
    _label_seconds(axes)
    axes.set_xlabel("seconds per slice")
    axes.set_ylabel("PSNR (dB)")
    axes.grid(visible=True, which="major", alpha=0.3)


def _label_seconds(axes: Axes) -> None:
    """Set ticks at 1, 2 and 5 times the powers of ten, or only at the powers of a wide range."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    first, last = axes.get_xlim()
    few = last / first < 30
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
