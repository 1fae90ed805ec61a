"""Page of the digits, and the format of estimates on the privacy pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.common.record import Record
from benchmarks.tasks.digits import SIZE
from benchmarks.tasks.privacy import INFOMRI, Estimate
from ctxrecon.evaluation import table


def page(record: Record) -> str:
    """Return the page: a verdict, the setting, scores, differences and the choice of β."""
    found = record["results"]
    training, validation, test = found["counts"]
    text = [
        "# Privacy: digits\n",
        _verdict(found),
        f"Digits of {SIZE}² rendered with fonts (not MNIST): {training} for training, {validation} "
        f"for validation, {test} for the test; one coil, SNR {found['snr']:g}, sampled as single "
        "points, with a fully sampled center only for variable density. Every sampler is trained "
        "with a ResNet-18 of an eighth of the published width for the acceleration of its row; "
        "LOUPE has the same objective as InfoMRI with β = 0. The table is an analogue of InfoMRI, "
        "Table IV.\n",
        "“Attack” is the PSNR of the image reconstructed from the measurement by the stronger of "
        "two attackers: “network”, the published network trained on the sampler's masks, and "
        "“linear”, the best linear estimate given the masks. The mean training image, which needs "
        f"no measurement, has {shown(found['mean_image'], 2)} dB. Brackets show 95 % bootstrap "
        f"intervals over the test digits; training {_seeds(found)}.\n",
        _rows(found["rows"]),
        "## Effect of the suppression\n",
        "Paired differences from InfoMRI with β = 0, digit by digit:\n",
        _differences(found["rows"]),
        "## Choice of β\n",
        f"Chosen on the validation digits: {_chosen(found)}. Of the weights that cost at most "
        f"{100 * found['tolerance']:g} % of accuracy, the one with the lowest PSNR of the linear "
        "estimate is chosen; if there is none, the one with the highest accuracy. Mean over "
        f"{_seeds(found)}.\n",
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
    ]
    return "\n".join(text)


def _verdict(found: dict[str, Any]) -> str:
    """Return what the chosen weight changes at each acceleration, seed by seed, in words."""
    sentences = []
    for choice in found["chosen"]:
        rows = [
            row["less_plain"]
            for row in found["rows"]
            if "less_plain" in row and all(row[name] == choice[name] for name in choice)
        ]
        accuracy, attack = (
            ", ".join(f"{row[name]['mean']:+.{digits}f}" for row in rows)
            for name, digits in (("accuracy", 3), ("strongest", 2))
        )
        sentences.append(
            f"At ×{choice['acceleration']:g}, suppression with the chosen "
            f"β = {-choice['entropy_weight']:g} changes accuracy by {accuracy} and the PSNR of the "
            f"attack by {attack} dB ({_seeds(found)})."
        )
    return "\n".join(sentences) + "\n"


def _seeds(found: dict[str, Any]) -> str:
    seeds = found["seeds"]
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


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
    heads = ["×", "sampler", "seed", "accuracy", "attack (dB)", "network (dB)", "linear (dB)"]
    return table([*heads, "redundancy"], lines)


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
    """Return an estimate as ``24.04 [23.5, 24.6]``."""
    ends = ", ".join(f"{found[end]:{sign}.{digits}f}" for end in ("low", "high"))
    return f"{found['mean']:{sign}.{digits}f} [{ends}]"
