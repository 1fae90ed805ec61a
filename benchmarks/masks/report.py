"""Pages of the study."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.common.arguments import recorded_options
from benchmarks.common.record import Record
from benchmarks.common.words import change, listed
from benchmarks.masks import intervals
from benchmarks.masks.scans import Scored
from benchmarks.masks.tables import Table, parse_args, table_of
from ctxrecon.evaluation import summary, table, with_error
from ctxrecon.metrics import bd_psnr, bd_rate

_MAPS = {
    "map_psnr_bg": ("T2* map PSNR (dB)", 2),
    "map_ssim_bg": ("T2* map SSIM", 3),
    "map_psnr_nbg": ("T2* PSNR in the object (dB)", 2),
    "map_ssim_nbg": ("T2* SSIM in the object", 3),
}
_REDUNDANCY = (
    "“Redundancy” is the share of samples whose point reflection through the zero frequency is "
    "sampled too (InfoMRI, equation 43)."
)


def page(record: Record) -> str:
    """Return the page of a table: a verdict, the setting and the results."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    described = table_of(results["table"])
    found = [Scored.of(row) for row in results["results"]]
    if described.intervals:
        return _page_with_intervals(described, found, args)
    text = [
        f"# {described.title}\n",
        _verdict(described, found) + "\n",
        _caption(described, args) + "\n",
        _scores(described, found),
    ]
    if described.amortized:
        text += ["## Averages over the sampling ratios\n", _BD + "\n", _curves(described, found)]
        text += _uncertainty_section(found)
    return "\n".join(text)


def _page_with_intervals(
    described: Table, found: Sequence[Scored], args: argparse.Namespace
) -> str:
    """Return the page of models that were trained from several seeds."""
    seeds = list(dict.fromkeys(one.seed for one in found))
    text = [
        f"# {described.title}\n",
        _verdict(described, found) + "\n",
        _caption(described, args) + intervals.caption(seeds) + "\n",
        intervals.scores(described, found),
        "## Averages over the sampling ratios\n",
        f"{_BD} Published numbers are those of InfoMRI on its own data.\n",
        intervals.distances(described, found),
    ]
    if seeds:
        first = _uncertainty_section([one for one in found if one.seed == seeds[0]])
        if first and len(seeds) > 1:
            first.insert(1, f"Models of seed {seeds[0]}.\n")
        text += first
    return "\n".join(text)


_BD = (
    "The mean PSNR is over the ratios. BD-PSNR is Bjøntegaard's mean gain over the anchor at equal "
    "sampling ratio, BD-rate the mean change of the ratio at equal PSNR (negative is better)."
)
_UNCERTAINTY = (
    "Correlation over the pixels of the predicted variance with the squared error, of the values "
    "and of their logarithms; and the ratio of mean squared error to mean variance, which is 1 for "
    "a calibrated prediction, over all pixels and its range over tenths of the pixels sorted by "
    "predicted variance."
)


def _uncertainty_section(found: Sequence[Scored]) -> list[str]:
    """Return the section on predicted uncertainty, empty if nothing was predicted."""
    if not any("uncertainty" in one.model for one in found):
        return []
    return ["## Predicted uncertainty\n", _UNCERTAINTY + "\n", _uncertainty(found)]


def _verdict(described: Table, found: Sequence[Scored]) -> str:
    """Return which model scores best at which acceleration, and its gain over the anchor."""
    groups: dict[float, dict[str, list[Scored]]] = {}
    for one in found:
        groups.setdefault(round(one.acceleration, 4), {}).setdefault(one.title, []).append(one)
    main = "map_psnr_nbg" if found and "map_psnr_nbg" in found[0].scores else "psnr"
    anchor, name = described.compared, {"psnr": "PSNR"}.get(main, "PSNR of the T2* map")
    clauses: dict[str, list[tuple[str, str]]] = {}
    for acceleration, group in groups.items():
        if anchor not in group or len(group) < 2:
            continue

        def mean(title: str, group: dict[str, list[Scored]] = group) -> float:
            return float(np.mean([one.scores[main].mean() for one in group[title]]))

        best, second, *_ = sorted(group, key=mean, reverse=True)
        other = second if best == anchor else best
        text = _change(described, group[other], group[anchor], main)
        if best == anchor:
            text = f"“{second}”, the next best, {text}"
        clauses.setdefault(best, []).append((f"×{acceleration:.3g}", text))
    sentences = []
    for best, parts in clauses.items():
        where = listed([at for at, _ in parts])
        each = [f"{text} at {at}" if len(parts) > 1 else text for at, text in parts]
        if best == anchor:
            details = f": {'; '.join(each)}"
        else:
            gains = listed([text.removeprefix("gains ") for text in each])
            details = f", with a gain over “{anchor}” of {gains}"
        sentences.append(f"“{best}” has the highest mean {name} at {where}{details}.")
    return "\n".join(sentences)


def _change(described: Table, own: Sequence[Scored], anchors: Sequence[Scored], metric: str) -> str:
    """Return the difference from the anchor in words, with interval or standard error."""
    if described.intervals:
        return change(intervals.gain(own, anchors))
    return change(summary(own[0].scores[metric] - anchors[0].scores[metric]))


def _caption(described: Table, args: argparse.Namespace) -> str:
    size = args.sweep_resolution if described.sweep else args.resolution
    coils = f"{described.num_coils} coil{'s' * (described.num_coils > 1)}"
    served = ""
    if described.intervals:
        served = " One model serves every sampling ratio, unless its name says “for each ratio”."
    elif described.amortized:
        served = " One model serves every sampling ratio, except for LOUPE, which has one for each."
    if described.magnitude:
        served += " Images are magnitudes, so that k-space is conjugate symmetric."
    # An entry that is trained for longer than the others says so in its title.
    steps = args.steps * min(entry.times for entry in described.entries)
    contrasts = {"one": "one contrast", "multi_echo": "five echoes", "pd_pair": "PD and PDFS"}
    average = "" if described.contrasts == "one" else ", averaged over the contrasts"
    if described.compared.startswith("RM-"):
        served += (
            " RM are random and LM learned masks; S is shared by the contrasts, I individual for "
            "each."
        )
    errors = "" if described.intervals else ", mean ± standard error over the subjects"
    return (
        f"{args.test_scans} held-out subjects, {size}², {coils}, {contrasts[described.contrasts]}. "
        f"Metrics are slice-wise on magnitudes{average}{errors}; differences are paired. Every "
        f"model was trained on {args.scans} scans for {steps} steps of {described.batch_size}."
        f"{served} {_REDUNDANCY}"
    )


def _scores(described: Table, found: Sequence[Scored]) -> str:
    """Return the table of scores, one row for each model and acceleration."""
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
    heads = ["model", "×", "PSNR (dB)", "SSIM", *(title for title, _ in maps.values())]
    of_map = " in T2* PSNR" if maps else ""
    heads += [f"gain over “{described.compared}”{of_map} (dB)", "× of each contrast"]
    return table([*heads, "redundancy", "parameters (10⁶)"], lines)


def _curves(described: Table, found: Sequence[Scored]) -> str:
    """Return the table of mean PSNR over the ratios and Bjøntegaard distances to the anchor."""
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
    return table(["model", "mean PSNR (dB)", "BD-PSNR (dB)", "BD-rate"], lines)


def _rate(curve: tuple[list[float], list[float]], anchor: tuple[list[float], list[float]]) -> str:
    """Return the BD-rate as text, if the two curves share a range of PSNR."""
    common = max(min(curve[1]), min(anchor[1])) < min(max(curve[1]), max(anchor[1]))
    rising = all(
        (np.diff(np.array(one[1])[np.argsort(one[0])]) > 0).all() for one in (curve, anchor)
    )
    return f"{bd_rate(*curve, *anchor):+.1f} %" if common and rising else "no common range"


def _uncertainty(found: Sequence[Scored]) -> str:
    """Return the table of correlation and ratio of squared error and predicted variance."""
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
    heads = ["model", "×", "correlation", "of logarithms"]
    return table([*heads, "squared error / variance", "range over tenths"], lines)
