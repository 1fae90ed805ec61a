"""The page of the digits, and how estimates are written on pages of privacy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.common.record import Record
from benchmarks.tasks.digits import SIZE
from benchmarks.tasks.privacy import INFOMRI, Estimate
from ctxrecon.evaluation import table


def page(record: Record) -> str:
    """What was found of the digits."""
    found = record["results"]
    training, validation, test = found["counts"]
    seeds = ", ".join(map(str, found["seeds"]))
    text = [
        "# Privacy: digits\n",
        f"Digits of {SIZE}² rendered with fonts, not MNIST: {training} to train with, {validation} "
        f"to choose by, {test} to test; one coil, SNR {found['snr']:g}, single samples, no centre "
        "but that of variable density. Every sampler is trained with a ResNet-18 of an eighth "
        "of the published width, for the acceleration of its row, LOUPE by the same objective as "
        "InfoMRI with β = 0. InfoMRI, Table IV, in "
        "kind.\n",
        "Attack: PSNR of the image that the stronger of two attackers gives of the measurement: "
        "the published network, trained on the sampler's masks, and the best linear estimate, "
        "which knows the masks. The mean image of the training set, for which nothing has to be "
        f"measured, has {shown(found['mean_image'], 2)} dB. In brackets 95 % bootstrap intervals "
        f"over the test digits; training seeds: {seeds}.\n",
        _rows(found["rows"]),
        "",
        "What the suppression changes, digit by digit:\n",
        _differences(found["rows"]),
        "",
        f"Chosen on the validation digits: {_chosen(found)}: of those that cost at most "
        f"{100 * found['tolerance']:g} % of accuracy the one with the lowest PSNR of the linear "
        "estimate, where there is one, else the one that costs least; seed "
        f"{found['seeds'][0]}.\n",
        table(
            ["×", "β", "accuracy", "linear (dB)", "redundancy"],
            [
                [
                    f"{one['acceleration']:g}",
                    f"{-one['entropy_weight'] or 0:g}",
                    f"{one['task']:.3f}",
                    f"{one['psnr']:.2f}",
                    f"{one['redundancy']:.2f}",
                ]
                for one in found["grid"]
            ],
        ),
        "",
    ]
    return "\n".join(text)


def _chosen(found: dict[str, Any]) -> str:
    return ", ".join(
        f"β = {-one['entropy_weight']:g} at ×{one['acceleration']:g}" for one in found["chosen"]
    )


def _name(row: dict[str, Any]) -> str:
    return row["title"] + (
        f", β = {-row['entropy_weight'] or 0:g}" if row["title"] == INFOMRI else ""
    )


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            f"{row['acceleration']:g}",
            _name(row),
            f"{row['seed']}",
            shown(row["accuracy"], 3),
            shown(row["strongest"], 2),
            f"{row['psnr']['network']['mean']:.2f}",
            f"{row['psnr']['linear']['mean']:.2f}",
            f"{row['redundancy']:.2f}",
        ]
        for row in sorted(rows, key=lambda row: row["acceleration"])
    ]
    heads = ["×", "", "seed", "accuracy", "attack (dB)", "network", "linear", "redundancy"]
    return table(heads, lines)


def _differences(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        [
            f"{row['acceleration']:g}",
            f"{-row['entropy_weight'] or 0:g}",
            f"{row['seed']}",
            shown(row["less_plain"]["accuracy"], 3, "+"),
            shown(row["less_plain"]["strongest"], 2, "+"),
        ]
        for row in rows
        if "less_plain" in row
    ]
    return table(["×", "β", "seed", "accuracy", "attack (dB)"], lines)


def shown(found: Estimate, digits: int, sign: str = "") -> str:
    """``24.04 [23.5, 24.6]``."""
    ends = ", ".join(f"{found[end]:{sign}.{digits}f}" for end in ("low", "high"))
    return f"{found['mean']:{sign}.{digits}f} [{ends}]"
