"""Tables and figures of the study of learned masks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.common.training import slug
from benchmarks.masks.scans import Found
from ctxrecon.evaluation import summary, table, with_error
from ctxrecon.figures import comparison_figure
from ctxrecon.metrics import bd_psnr, bd_rate
from ctxrecon.phantom import ContrastScan
from ctxrecon.tasks import LONGEST_T2_STAR

_COLOURS = ("#1f6f8b", "#e07a3f", "#5b8c3e", "#8a4f9e", "#b23a48", "#7a6a53", "#3a7ca5")
_MAPS = {
    "map_psnr_bg": ("map PSNR (dB)", 2),
    "map_ssim_bg": ("map SSIM", 3),
    "map_psnr_nbg": ("object PSNR (dB)", 2),
    "map_ssim_nbg": ("object SSIM", 3),
}
_BIN = 1 / 32
"""Width of a bin of lines; JoJoNet's is 10 of 320."""


def report(name: str, described: Any, found: Sequence[Found], args: argparse.Namespace) -> str:
    """Markdown of a table: its description and what was found."""
    text = [
        f"# {described.title}\n",
        _caption(described, args) + "\n",
        _scores(described, found),
        "",
    ]
    if name.startswith("ratios"):
        text += [_curves(described, found), "", _uncertainty(found), ""]
    return "\n".join(text)


def _caption(described: Any, args: argparse.Namespace) -> str:
    size = args.sweep_resolution if described.sweep else args.resolution
    coils = f"{described.num_coils} coil{'s' * (described.num_coils > 1)}"
    served = ""
    if any(entry.amortised for entry in described.entries):
        served = " One model serves every ratio, but for LOUPE, which has one for each."
    # An entry that is trained for longer than the others says so in its title.
    steps = args.steps * min(entry.times for entry in described.entries)
    contrasts = {"one": "one contrast", "multi_echo": "five echoes", "pd_pair": "PD and PDFS"}
    return (
        f"{args.test_scans} held-out subjects, {size}², {coils}, {contrasts[described.contrasts]}; "
        "slice-wise metrics on magnitudes, the mean of the contrasts, mean ± standard error over "
        f"the subjects; differences are paired. Every model was trained with {args.scans} scans "
        f"for {steps} steps of {described.batch_size}.{served}"
    )


def _scores(described: Any, found: Sequence[Found]) -> str:
    """A row for each model at each acceleration."""
    anchors = {one.acceleration: one for one in found if one.title == described.compared}
    maps = {name: shown for name, shown in _MAPS.items() if found and name in found[0].scores}
    main = "map_psnr_nbg" if maps else "psnr"
    lines = []
    for one in found:
        anchor = anchors.get(one.acceleration)
        less = ""
        if anchor is not None and anchor is not one:
            less = with_error(summary(one.scores[main] - anchor.scores[main]), 2, sign=True)
        each = one.model["accelerations"]
        lines.append(
            [
                one.title,
                f"{one.acceleration:.3g}",
                with_error(summary(one.scores["psnr"]), 2),
                with_error(summary(one.scores["ssim"]), 3),
                *(with_error(summary(one.scores[n]), digits) for n, (_, digits) in maps.items()),
                less,
                " / ".join(f"{value:.1f}" for value in each),
                f"{np.mean(one.model['redundancy']):.3f}",
                f"{one.model['parameters'] / 1e6:.2f}",
            ]
        )
    heads = ["", "×", "PSNR (dB)", "SSIM", *(title for title, _ in maps.values())]
    heads += [f"less “{described.compared}” (dB)", "× of each contrast", "redundancy", "M params"]
    return table(heads, lines)


def _curves(described: Any, found: Sequence[Found]) -> str:
    """Mean PSNR over the ratios, and Bjøntegaard's distances to the anchor."""
    titles = list(dict.fromkeys(one.title for one in found))
    curves = {
        title: (
            [1 / one.acceleration for one in found if one.title == title],
            [float(one.scores["psnr"].mean()) for one in found if one.title == title],
        )
        for title in titles
    }
    anchor = curves.get(described.compared)
    lines = []
    for title, curve in curves.items():
        others = title != described.compared and anchor is not None
        compared = others and anchor is not None and min(len(curve[0]), len(anchor[0])) > 1
        lines.append(
            [
                title,
                f"{np.mean(curve[1]):.2f}",
                f"{bd_psnr(*curve, *anchor):+.2f}" if compared and anchor else "",
                _rate(curve, anchor) if compared and anchor else "",
            ]
        )
    return table(["", "mean PSNR (dB)", "BD-PSNR (dB)", "BD-rate"], lines)


def _rate(curve: tuple[list[float], list[float]], anchor: tuple[list[float], list[float]]) -> str:
    """BD-rate, where the two curves have a range of PSNR in common."""
    common = max(min(curve[1]), min(anchor[1])) < min(max(curve[1]), max(anchor[1]))
    rising = all(
        (np.diff(np.array(one[1])[np.argsort(one[0])]) > 0).all() for one in (curve, anchor)
    )
    return f"{bd_rate(*curve, *anchor):+.1f} %" if common and rising else "no common range"


def _uncertainty(found: Sequence[Found]) -> str:
    """Correlation of the predicted variance with the squared error, and their ratio."""
    lines = []
    for one in found:
        known = one.model.get("uncertainty")
        if known is None:
            continue
        ratios = [e / v for e, v in zip(known["squared_error"], known["variance"], strict=True)]
        lines.append(
            [
                one.title,
                f"{one.acceleration:.3g}",
                f"{known['correlation']:.2f}",
                f"{known['correlation_of_logarithms']:.2f}",
                f"{known['total']:.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            ]
        )
    heads = ["", "×", "correlation", "of logarithms", "squared error / variance", "in tenths"]
    return table(heads, lines)


def write_figures(
    folder: Path, name: str, described: Any, found: Sequence[Found], scans: Sequence[ContrastScan]
) -> None:
    """Every mask; images of the last scan; lines; quality against acceleration."""
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
        truth = scans[-1].t2_star[0].clamp(max=LONGEST_T2_STAR)
        maps = {one.title: one.maps * (truth > 0) for one in mine if one.maps is not None}
        if maps:
            path = folder / f"sampling_{slug(f'{name}_map_x{acceleration:.3g}')}.png"
            title = f"T2* map of tissue, ×{acceleration:.3g}"
            comparison_figure(path, maps, truth, reference_name="truth", title=title)


def _figure(width: float, height: float, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(path: Path, figure: Figure) -> None:
    figure.savefig(path, dpi=110)


def _masks(found: Sequence[Found]) -> Figure:
    """A row for each model with a column for each contrast; of one contrast, for each ×."""
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
    """Share of the lines that are taken in each bin along the phase-encoding axis."""
    figure, axes = _figure(7.5, 1.1 * len(found), len(found), 1)
    for axis, one in zip(axes[:, 0], found, strict=True):
        lines = np.array(one.model["lines"]).mean(axis=0)
        bins = np.array_split(lines, round(1 / _BIN))
        axis.bar(range(len(bins)), [part.mean() for part in bins], color=_COLOURS[0], width=0.9)
        axis.set_ylim(0, 1)
        axis.set_xticks([])
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(f"{one.title}, ×{one.acceleration:.3g}", fontsize=8, loc="left")
    axes[-1, 0].set_xlabel("phase encoding, zero frequency in the middle")
    return figure


def _quality(described: Any, found: Sequence[Found]) -> Figure:
    """PSNR of the images, and of the map where there is one, against the sampled share."""
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
                color=_COLOURS[number % len(_COLOURS)],
                marker="o",
                markersize=4,
                capsize=3,
            )
        axis.set_xlabel("sampled share of k-space (%)")
        axis.set_ylabel("PSNR (dB)" if metric == "psnr" else "PSNR of the map in the object (dB)")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle(described.title, fontsize=10)
    return figure
