"""The page of a table."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.common.arguments import recorded_options
from benchmarks.common.record import Record
from benchmarks.masks import intervals
from benchmarks.masks.scans import Scored
from benchmarks.masks.tables import Table, parse_args, table_of
from ctxrecon.evaluation import summary, table, with_error
from ctxrecon.metrics import bd_psnr, bd_rate

_MAPS = {
    "map_psnr_bg": ("map PSNR (dB)", 2),
    "map_ssim_bg": ("map SSIM", 3),
    "map_psnr_nbg": ("object PSNR (dB)", 2),
    "map_ssim_nbg": ("object SSIM", 3),
}


def page(record: Record) -> str:
    """Description of a table, and what was found."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    described = table_of(results["table"])
    found = [Scored.of(row) for row in results["results"]]
    if described.intervals:
        return _page_with_intervals(described, found, args)
    text = [
        f"# {described.title}\n",
        _caption(described, args) + "\n",
        _scores(described, found),
        "",
    ]
    if described.amortised:
        text += [_curves(described, found), "", _uncertainty(found), ""]
    return "\n".join(text)


def _page_with_intervals(
    described: Table, found: Sequence[Scored], args: argparse.Namespace
) -> str:
    """The same of models that were trained from several seeds."""
    seeds = list(dict.fromkeys(one.seed for one in found))
    text = [
        f"# {described.title}\n",
        _caption(described, args) + intervals.caption(seeds) + "\n",
        intervals.scores(described, found),
        "",
        intervals.distances(described, found),
        "",
        _uncertainty([one for one in found if one.seed == seeds[0]]) if seeds else "",
        "",
    ]
    return "\n".join(text)


def _caption(described: Table, args: argparse.Namespace) -> str:
    size = args.sweep_resolution if described.sweep else args.resolution
    coils = f"{described.num_coils} coil{'s' * (described.num_coils > 1)}"
    served = ""
    if described.intervals:
        served = " One model serves every ratio, but where its name says that each has one."
    elif described.amortised:
        served = " One model serves every ratio, but for LOUPE, which has one for each."
    if described.magnitude:
        served += " Images are magnitudes, so that k-space is conjugate symmetric."
    # An entry that is trained for longer than the others says so in its title.
    steps = args.steps * min(entry.times for entry in described.entries)
    contrasts = {"one": "one contrast", "multi_echo": "five echoes", "pd_pair": "PD and PDFS"}
    errors = "" if described.intervals else ", mean ± standard error over the subjects"
    return (
        f"{args.test_scans} held-out subjects, {size}², {coils}, {contrasts[described.contrasts]}; "
        f"slice-wise metrics on magnitudes, the mean of the contrasts{errors}; "
        f"differences are paired. Every model was trained with {args.scans} scans "
        f"for {steps} steps of {described.batch_size}.{served}"
    )


def _scores(described: Table, found: Sequence[Scored]) -> str:
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


def _curves(described: Table, found: Sequence[Scored]) -> str:
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


def _uncertainty(found: Sequence[Scored]) -> str:
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
