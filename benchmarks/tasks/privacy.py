"""Digits classified from few samples that tell little else: Table IV of InfoMRI, in kind."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from benchmarks.common.record import Record
from benchmarks.tasks.attackers import (
    AttackRun,
    LinearAttacker,
    attack_psnr,
    attacked,
    mean_psnr,
    train_attacker,
)
from benchmarks.tasks.digits import (
    SIZE,
    DigitRun,
    Digits,
    classified,
    draw_masks,
    train_digits,
)
from ctxrecon.evaluation import table
from ctxrecon.masks.learned import LOUPE, FixedMasks, MaskNetwork, PatternGenerator
from ctxrecon.metrics import bootstrap_interval, redundancy_ratio
from ctxrecon.pipelines import TaskPipeline

SNR = 50.0
TOLERANCE = 0.005
"""Accuracy that a suppression may cost where its weight is chosen."""
_SHAPE = (SIZE, SIZE)
_TEST_MASKS = 10**7
_RESAMPLES = 400
_TRAINING, _VALIDATION, _TEST = 1, 2, 3
"""Seeds of the digits."""
INFOMRI = "InfoMRI"

FIXED: dict[str, Callable[[float], MaskNetwork]] = {
    "uniform random": lambda acceleration: FixedMasks(
        _SHAPE, acceleration, "uniform2d", center_fraction=0.0
    ),
    "variable density": lambda acceleration: FixedMasks(_SHAPE, acceleration, "variable_density2d"),
    "LOUPE": lambda acceleration: LOUPE(_SHAPE, acceleration, lines=False, center_fraction=0.0),
}
"""Samplers that InfoMRI is compared with, by title: of an acceleration, with new weights."""


def pattern_generator(acceleration: float) -> MaskNetwork:
    """InfoMRI's sampler at its published size, for one acceleration."""
    ratio = 1 / acceleration
    return PatternGenerator(
        _SHAPE, (ratio, ratio), lines=False, center_fraction=0.0, embedding=1, width=16
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this table."""
    parser.add_argument("--digits", type=int, default=4000, help="to train with")
    parser.add_argument("--test_digits", type=int, default=600, help="half as many validate")
    parser.add_argument("--digit_epochs", type=int, default=6)
    parser.add_argument("--attack_digits", type=int, default=400, help="to train attackers with")
    parser.add_argument("--digit_accelerations", type=float, nargs="+", default=[8.0, 16.0])
    parser.add_argument(
        "--digit_weights",
        type=float,
        nargs="+",
        default=[0.1, 0.3],
        help="|β| to choose of",
    )


@dataclass(frozen=True)
class Rated:
    """What one sampler lets be classified and seen of every test digit.

    Attributes:
        title: of the row.
        weight: ``|β|``.
        acceleration: of the masks.
        seed: of the training.
        right: ``(count,)`` bool, which were classified rightly.
        psnr: of each attacker by name, ``(count,)`` in dB.
        known: what else is recorded.
    """

    title: str
    weight: float
    acceleration: float
    seed: int
    right: np.ndarray
    psnr: dict[str, np.ndarray]
    known: dict[str, Any]

    @property
    def strongest(self) -> str:
        """The attacker who sees most on average."""
        return max(self.psnr, key=lambda name: self.psnr[name].mean())

    def record(self, plain: Rated | None) -> dict[str, Any]:
        """For the JSON file, with differences from the sampler that suppresses nothing.

        Args:
            plain: that sampler; ``None`` for the others.
        """
        found: dict[str, Any] = {
            "title": self.title,
            "entropy_weight": self.weight,
            "acceleration": self.acceleration,
            "seed": self.seed,
            "accuracy": mean_of(self.right),
            "psnr": {name: mean_of(values) for name, values in self.psnr.items()},
            "strongest": mean_of(self.psnr[self.strongest]),
            **self.known,
        }
        if plain is not None:
            found["less_plain"] = {
                "accuracy": mean_of(self.right.astype(float) - plain.right),
                "strongest": mean_of(self.psnr[self.strongest] - plain.psnr[plain.strongest]),
            }
        return found


Estimate = dict[str, float]
"""``mean``, and the ends ``low`` and ``high`` of its 95 % interval."""


def estimate(statistic: Callable[[NDArray[np.int64]], float], count: int) -> Estimate:
    """A statistic of all rows, with its 95 % bootstrap interval over them.

    Args:
        statistic: of the rows with these indices.
        count: of the rows, each of another person or digit.
    """
    every = np.arange(count)
    low, high = bootstrap_interval(statistic, every, resamples=_RESAMPLES)
    return {"mean": statistic(every), "low": low, "high": high}


def mean_of(values: ArrayLike) -> Estimate:
    """:func:`estimate` of the mean of values ``(count,)``."""
    known = np.asarray(values, np.float64)
    return estimate(lambda rows: float(known[rows].mean()), len(known))


@dataclass(frozen=True)
class _Sets:
    """Digits of the three parts, and the attacker who learned from the first."""

    training: Digits
    validation: Digits
    test: Digits
    linear: LinearAttacker

    @classmethod
    def of(cls, args: argparse.Namespace) -> _Sets:
        counts = (args.digits, max(args.test_digits // 2, 1), args.test_digits)
        seeds = (_TRAINING, _VALIDATION, _TEST)
        drawn = [Digits.draw(count, seed, SNR) for count, seed in zip(counts, seeds, strict=True)]
        return cls(*drawn, LinearAttacker(drawn[0].images, 1 / SNR))


def measure(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train and attack every sampler at every acceleration.

    ``None`` where training and testing are to be apart: no digit classifier is kept.
    """
    if args.test_only or args.train_only:
        return None
    sets = _Sets.of(args)
    rows, grid, chosen = [], [], {}
    for acceleration in args.digit_accelerations:
        for seed in args.seeds:
            plain = _trained(pattern_generator, 0.0, acceleration, seed, sets, args)
            if seed == args.seeds[0]:
                weighted = {
                    weight: _trained(pattern_generator, weight, acceleration, seed, sets, args)
                    for weight in args.digit_weights
                }
                found = {
                    weight: _validated(pipe, weight, acceleration, sets)
                    for weight, pipe in {0.0: plain, **weighted}.items()
                }
                grid += found.values()
                weight = chosen[acceleration] = choose_weight(list(found.values()), TOLERANCE)
                suppressed = weighted[weight]
            else:
                weight = chosen[acceleration]
                suppressed = _trained(pattern_generator, weight, acceleration, seed, sets, args)
            for title, make in FIXED.items():
                pipe = _trained(make, 0.0, acceleration, seed, sets, args)
                rows.append(_rated(title, 0.0, pipe, acceleration, seed, sets, args).record(None))
            base = _rated(INFOMRI, 0.0, plain, acceleration, seed, sets, args)
            other = _rated(INFOMRI, weight, suppressed, acceleration, seed, sets, args)
            rows += [base.record(None), other.record(base)]
    return {
        "snr": SNR,
        "seeds": args.seeds,
        "counts": [len(sets.training), len(sets.validation), len(sets.test)],
        "mean_image": mean_of(mean_psnr(sets.training.images, sets.test.images)),
        "tolerance": TOLERANCE,
        "grid": grid,
        "rows": rows,
    }


def choose_weight(found: Sequence[dict[str, float]], tolerance: float) -> float:
    """``|β|`` of the least attack PSNR among those that cost at most so much of the task.

    Args:
        found: ``entropy_weight``, ``task`` and ``psnr`` in validation, of weight 0 first. Where
            every other one costs more, the one that costs least is taken.
        tolerance: of the task's score.
    """
    plain, *others = found
    allowed = [one for one in others if one["task"] >= plain["task"] - tolerance]
    if allowed:
        return min(allowed, key=lambda one: one["psnr"])["entropy_weight"]
    return max(others, key=lambda one: one["task"])["entropy_weight"]


def _trained(
    make: Callable[[float], MaskNetwork],
    weight: float,
    acceleration: float,
    seed: int,
    sets: _Sets,
    args: argparse.Namespace,
) -> TaskPipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sampler = make(acceleration)
    run = DigitRun(epochs=args.digit_epochs)
    return train_digits(sampler, sets.training, run, entropy_weight=weight, snr=SNR, seed=seed)


def _validated(
    pipe: TaskPipeline, weight: float, acceleration: float, sets: _Sets
) -> dict[str, float]:
    """What the weight is chosen by."""
    masks = draw_masks(pipe.sampler, acceleration, len(sets.validation), _TEST_MASKS)
    images = sets.linear(sets.validation.kspace, masks)
    return {
        "acceleration": acceleration,
        "entropy_weight": weight,
        "task": float(classified(pipe, sets.validation, masks).float().mean()),
        "psnr": float(attack_psnr(images, sets.validation.images).mean()),
        "redundancy": float(redundancy_ratio(masks).mean()),
    }


def _rated(
    title: str,
    weight: float,
    pipe: TaskPipeline,
    acceleration: float,
    seed: int,
    sets: _Sets,
    args: argparse.Namespace,
) -> Rated:
    test = sets.test
    masks = draw_masks(pipe.sampler, acceleration, len(test), _TEST_MASKS)
    known = sets.training.first(args.attack_digits)
    network = train_attacker(pipe.sampler, acceleration, known, sets.validation, AttackRun(), seed)
    images: dict[str, Tensor] = {
        "network": attacked(network, test.zero_filled(masks)),
        "linear": sets.linear(test.kspace, masks),
    }
    return Rated(
        title,
        weight,
        acceleration,
        seed,
        classified(pipe, test, masks).numpy(),
        {name: attack_psnr(found, test.images).numpy() for name, found in images.items()},
        {"redundancy": float(redundancy_ratio(masks).mean())},
    )


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
        "of the published width, for the acceleration of its row. InfoMRI, Table IV, in "
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
        f"β was chosen on the validation digits: of those that cost at most "
        f"{100 * found['tolerance']:g} % of accuracy the one of the lowest PSNR of the linear "
        "estimate, seed "
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
