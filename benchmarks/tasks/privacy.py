"""Digits classified from few samples that tell little else: Table IV of InfoMRI, in kind."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from benchmarks.common.record import read_record
from benchmarks.common.training import slug
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
from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.masks.learned import LOUPE, FixedMasks, MaskNetwork, PatternGenerator
from ctxrecon.metrics import bootstrap_interval, redundancy_ratio

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
        default=[0.003, 0.01, 0.03, 0.1],
        help="|β| to choose of",
    )


@dataclass(frozen=True)
class Rated:
    """What one sampler lets be classified and seen.

    Attributes:
        row: for the record, without differences from others.
        validation: what its weight is chosen by.
        right: 1 for each test digit that was classified rightly, else 0.
        seen: PSNR of each test digit by the attacker who sees most on average, in dB.
    """

    row: dict[str, Any]
    validation: dict[str, float]
    right: list[int]
    seen: list[float]

    def less(self, plain: Rated) -> dict[str, Any]:
        """The row with the differences from the sampler that suppresses nothing."""
        differences = {
            "accuracy": mean_of(np.subtract(self.right, plain.right)),
            "strongest": mean_of(np.subtract(self.seen, plain.seen)),
        }
        return {**self.row, "less_plain": differences}


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


class _Sets:
    """Digits of the three parts, and the attacker who learned from the first; drawn when needed."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.counts = (args.digits, *_tested(args))

    @cached_property
    def training(self) -> Digits:
        return Digits.draw(self.counts[0], _TRAINING, SNR)

    @cached_property
    def validation(self) -> Digits:
        return Digits.draw(self.counts[1], _VALIDATION, SNR)

    @cached_property
    def test(self) -> Digits:
        return Digits.draw(self.counts[2], _TEST, SNR)

    @cached_property
    def linear(self) -> LinearAttacker:
        return LinearAttacker(self.training.images, 1 / SNR)


def _tested(args: argparse.Namespace) -> tuple[int, int]:
    """How many digits validate, and how many test."""
    return max(args.test_digits // 2, 1), args.test_digits


def measure(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train and attack every sampler at every acceleration, from every seed.

    What each gives is kept in ``--runs``, so that a study that was stopped goes on. ``None`` where
    training and testing are to be apart: no classifier is kept.
    """
    if args.test_only or args.train_only:
        return None
    sets = _Sets(args)
    rows, grid, choices = [], [], []
    for acceleration in args.digit_accelerations:
        chosen: float | None = None
        for seed in args.seeds:
            for title in FIXED:
                rows.append(rated(title, 0.0, acceleration, seed, sets, args).row)
            weights = args.digit_weights if chosen is None else [chosen]
            plain = rated(INFOMRI, 0.0, acceleration, seed, sets, args)
            others = [rated(INFOMRI, one, acceleration, seed, sets, args) for one in weights]
            if chosen is None:
                found = [one.validation for one in (plain, *others)]
                grid += found
                chosen = choose_weight(found, TOLERANCE)
                choices.append({"acceleration": acceleration, "entropy_weight": chosen})
            rows += [plain.row, *(one.less(plain) for one in others)]
    return {
        "snr": SNR,
        "seeds": args.seeds,
        "counts": [args.digits, *_tested(args)],
        "mean_image": mean_of(mean_psnr(sets.training.images, sets.test.images)),
        "tolerance": TOLERANCE,
        "grid": grid,
        "chosen": choices,
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


def rated(
    title: str,
    weight: float,
    acceleration: float,
    seed: int,
    sets: _Sets,
    args: argparse.Namespace,
) -> Rated:
    """What a sampler lets be classified and seen: found now, or before.

    Args:
        title: one of :data:`FIXED`, or InfoMRI.
        weight: ``|β|``.
        acceleration: of the masks, in training and in use.
        seed: of the training.
        sets: of digits.
        args: of the study.

    Raises:
        InputError: it was found with other options.
    """
    names = ("digits", "test_digits", "digit_epochs", "attack_digits")
    asked = {name: getattr(args, name) for name in names}
    name = f"{title} {weight:g} x{acceleration:g} seed{seed}"
    path = args.runs / f"digits_{slug(name)}.json"
    if path.is_file():
        found = read_record(path)
        if found["asked"] != asked:
            raise InputError(
                f"{path} was found with {found['asked']}, not {asked}: remove it, or give other "
                "--runs"
            )
        return Rated(**found["rated"])
    one = _rated(title, weight, acceleration, seed, sets, args)
    args.runs.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as temporary:
        text = json.dumps({"asked": asked, "rated": asdict(one)})
        temporary.write_text(text, encoding="utf-8")
    return one


def _rated(
    title: str,
    weight: float,
    acceleration: float,
    seed: int,
    sets: _Sets,
    args: argparse.Namespace,
) -> Rated:
    """Train, choose by the validation digits, attack the test digits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sampler = FIXED.get(title, pattern_generator)(acceleration)
    run = DigitRun(epochs=args.digit_epochs)
    pipe = train_digits(sampler, sets.training, run, entropy_weight=weight, snr=SNR, seed=seed)
    digits = sets.validation
    masks = draw_masks(sampler, acceleration, len(digits), _TEST_MASKS)
    validation = {
        "acceleration": acceleration,
        "entropy_weight": weight,
        "task": float(classified(pipe, digits, masks).float().mean()),
        "psnr": float(attack_psnr(sets.linear(digits.kspace, masks), digits.images).mean()),
        "redundancy": float(redundancy_ratio(masks).mean()),
    }
    test = sets.test
    masks = draw_masks(sampler, acceleration, len(test), _TEST_MASKS)
    known = sets.training.first(args.attack_digits)
    network = train_attacker(sampler, acceleration, known, sets.validation, AttackRun(), seed)
    images: dict[str, Tensor] = {
        "network": attacked(network, test.zero_filled(masks)),
        "linear": sets.linear(test.kspace, masks),
    }
    seen = {name: attack_psnr(found, test.images) for name, found in images.items()}
    strongest = max(seen, key=lambda name: float(seen[name].mean()))
    right = classified(pipe, test, masks).int()
    row = {
        "title": title,
        "entropy_weight": weight,
        "acceleration": acceleration,
        "seed": seed,
        "accuracy": mean_of(right),
        "psnr": {name: mean_of(values) for name, values in seen.items()},
        "strongest": mean_of(seen[strongest]),
        "redundancy": float(redundancy_ratio(masks).mean()),
    }
    return Rated(row, validation, right.tolist(), seen[strongest].tolist())
