"""Tables of models trained from several seeds, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.paired import Interval, interval, paired
from benchmarks.masks.entries import Table
from benchmarks.masks.scans import Scored
from ctxrecon.errors import InputError
from ctxrecon.evaluation import table
from ctxrecon.metrics import bd_psnr, bd_rate

Curve = tuple[list[float], NDArray[np.float64]]
"""Sampling ratios, and the PSNR of every scan at each ratio, ``(points, scans)``."""


def caption(seeds: Sequence[int]) -> str:
    """Return the sentence that explains the intervals."""
    if len(seeds) > 1:
        return (
            f" Every model was trained {len(seeds)} times, from the seeds "
            f"{', '.join(map(str, seeds))}, and tested on the same scans. Brackets show 95 % "
            "intervals of the mean by Student's t over the trainings."
        )
    return " Brackets show 95 % intervals of the mean by Student's t over the subjects."


def gain(own: Sequence[Scored], anchors: Sequence[Scored]) -> Interval:
    """Return the mean PSNR difference from an anchor of the same seeds, with its interval."""
    return _over(own, "psnr", anchors)


def scores(described: Table, found: Sequence[Scored]) -> str:
    """Return the table of scores, one row for each model and acceleration."""
    groups: dict[tuple[str, float], list[Scored]] = {}
    for one in found:
        groups.setdefault((one.title, round(one.acceleration, 4)), []).append(one)
    lines = []
    for (title, acceleration), own in groups.items():
        anchors = groups.get((described.compared, acceleration), [])
        less = ""
        if anchors and title != described.compared:
            less = _shown(_over(own, "psnr", anchors), 2, "+")
        lines.append(
            [
                title,
                f"{acceleration:.3g}",
                f"{100 / acceleration:.3g} %",
                _shown(_over(own, "psnr"), 2),
                _shown(_over(own, "ssim"), 3),
                less,
                f"{np.mean([one.model['redundancy'] for one in own]):.3f}",
                f"{own[0].model['parameters'] / 1e6:.2f}",
            ]
        )
    heads = ["model", "×", "sampled", "PSNR (dB)", "SSIM", f"gain over “{described.compared}” (dB)"]
    return table([*heads, "redundancy", "parameters (10⁶)"], lines)


def distances(described: Table, found: Sequence[Scored]) -> str:
    """Return the table of mean PSNR and Bjøntegaard distances, with the published ones."""
    seeds = list(dict.fromkeys(one.seed for one in found))
    lines = []
    for title in dict.fromkeys(one.title for one in found):
        psnrs, rates, gains, owner = [], [], [], []
        for seed in seeds:
            curve, anchor = (_curve(found, name, seed) for name in (title, described.compared))
            if curve is None:
                continue
            psnrs.append(float(curve[1].mean()))
            if anchor is None or title == described.compared:
                continue
            mean = [(ratios, values.mean(axis=1)) for ratios, values in (curve, anchor)]
            rates.append(_distance(bd_rate, *mean))
            for scan in range(curve[1].shape[1]):
                single = [(ratios, values[:, scan]) for ratios, values in (curve, anchor)]
                gains.append(_distance(bd_psnr, *single))
                owner.append(str(seed))
        lines.append(
            [
                title,
                f"{np.mean(psnrs):.2f}",
                _known(gains, 2, owner if len(seeds) > 1 else None),
                _known(rates, 1),
                next(entry.published for entry in described.entries if entry.title == title),
            ]
        )
    heads = ["model", "mean PSNR (dB)", "BD-PSNR (dB)", "BD-rate (%)"]
    return table([*heads, "published BD-PSNR, BD-rate"], lines)


def _over(own: Sequence[Scored], metric: str, anchors: Sequence[Scored] = ()) -> Interval:
    """Return the mean of a metric, or of its difference from anchors of the same seeds."""
    others = {one.seed: one for one in anchors}
    pairs = [(one, others.get(one.seed)) for one in own if not anchors or one.seed in others]
    values = np.concatenate([one.scores[metric] for one, _ in pairs])
    owner = [str(one.seed) for one, _ in pairs for _ in one.scores[metric]]
    clusters = owner if len(pairs) > 1 else None
    if not anchors:
        return interval(values, clusters)
    compared = [other.scores[metric] for _, other in pairs if other is not None]
    return paired(values, np.concatenate(compared), clusters)


def _curve(found: Sequence[Scored], title: str, seed: int) -> Curve | None:
    """Return the curve of a model over the sampling ratios, or ``None`` for a single ratio."""
    own = [one for one in found if one.title == title and one.seed == seed]
    if len(own) < 2:
        return None
    return [1 / one.acceleration for one in own], np.stack([one.scores["psnr"] for one in own])


def _distance(
    distance: Callable[..., float],
    curve: tuple[list[float], NDArray[np.float64]],
    anchor: tuple[list[float], NDArray[np.float64]],
) -> float:
    """Return a Bjøntegaard distance, NaN if the curves do not overlap."""
    try:
        return distance(*curve, *anchor)
    except InputError:
        return np.nan


def _known(values: Sequence[float], digits: int, clusters: Sequence[str] | None = None) -> str:
    """Return the mean distance with its interval, or nothing if a distance is undefined."""
    if not values or not np.isfinite(values).all():
        return ""
    return _shown(interval(values, clusters), digits, "+")


def _shown(estimate: Interval, digits: int, sign: str = "") -> str:
    """Return an estimate as ``24.04 [23.5, 24.6]``, without brackets for a single value."""
    if estimate["low"] is None:
        return f"{estimate['mean']:{sign}.{digits}f}"
    ends = ", ".join(f"{estimate[end]:{sign}.{digits}f}" for end in ("low", "high"))
    return f"{estimate['mean']:{sign}.{digits}f} [{ends}]"
