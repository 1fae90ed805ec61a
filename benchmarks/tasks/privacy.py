"""Classification of digits from few samples that reveal little else (InfoMRI, Table IV)."""

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
"""Loss of accuracy allowed when the weight of the suppression is chosen."""
_SHAPE = (SIZE, SIZE)
_TEST_MASKS = 10**7
_RESAMPLES = 400
_TRAINING, _VALIDATION, _TEST = 1, 2, 3
"""Random seeds of the digits."""
INFOMRI = "InfoMRI"

FIXED: dict[str, Callable[[float], MaskNetwork]] = {
    "uniform random": lambda acceleration: FixedMasks(
        _SHAPE, acceleration, "uniform2d", center_fraction=0.0
    ),
    "variable density": lambda acceleration: FixedMasks(_SHAPE, acceleration, "variable_density2d"),
    "LOUPE": lambda acceleration: LOUPE(_SHAPE, acceleration, lines=False, center_fraction=0.0),
}
"""Untrained samplers that InfoMRI is compared with, as functions of the acceleration."""


def pattern_generator(acceleration: float) -> MaskNetwork:
    """Return InfoMRI's sampler at its published size for one acceleration."""
    ratio = 1 / acceleration
    return PatternGenerator(
        _SHAPE, (ratio, ratio), lines=False, center_fraction=0.0, embedding=1, width=16
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this table."""
    add, weights, factors = parser.add_argument, [0.003, 0.01, 0.03, 0.1], [8.0, 16.0]
    add("--digits", type=int, default=4000, help="Training digits.")
    add("--test_digits", type=int, default=600, help="Test digits; half as many for validation.")
    add("--digit_epochs", type=int, default=6, help="Training epochs.")
    add("--attack_digits", type=int, default=400, help="Training digits of the attackers.")
    add("--digit_accelerations", type=float, nargs="+", default=factors, help="Accelerations.")
    add("--digit_weights", type=float, nargs="+", default=weights, help="Candidate weights |β|.")


@dataclass(frozen=True)
class Rated:
    """Classification and attack results of one sampler.

    Attributes:
        row: Row of the record, without differences from other samplers.
        validation: Validation scores by which the weight is chosen.
        right: 1 for each test digit that was classified correctly, else 0.
        seen: PSNR in dB of each test digit by the strongest attacker on average.
    """

    row: dict[str, Any]
    validation: dict[str, float]
    right: list[int]
    seen: list[float]

    def less(self, plain: Rated) -> dict[str, Any]:
        """Return the row with the differences from the sampler without suppression."""
        differences = {
            "accuracy": mean_of(np.subtract(self.right, plain.right)),
            "strongest": mean_of(np.subtract(self.seen, plain.seen)),
        }
        return {**self.row, "less_plain": differences}


Estimate = dict[str, float]
"""``mean`` and the ends ``low`` and ``high`` of its 95 % interval."""


def estimate(statistic: Callable[[NDArray[np.int64]], float], count: int) -> Estimate:
    """Return a statistic of all rows with its 95 % bootstrap interval over the rows.

    Args:
        statistic: Function of the indices of the rows.
        count: Number of rows, each of a different person or digit.
    """
    every = np.arange(count)
    low, high = bootstrap_interval(statistic, every, resamples=_RESAMPLES)
    return {"mean": statistic(every), "low": low, "high": high}


def mean_of(values: ArrayLike) -> Estimate:
    """Return :func:`estimate` for the mean of values ``(count,)``."""
    known = np.asarray(values, np.float64)
    return estimate(lambda rows: float(known[rows].mean()), len(known))


class _Sets:
    """Training, validation and test digits with the linear attacker, created when needed."""

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
    """Return the numbers of validation and test digits."""
    return max(args.test_digits // 2, 1), args.test_digits


def measure(args: argparse.Namespace) -> dict[str, Any] | None:
    """Train and attack every sampler at every acceleration and seed.

    Results are stored in ``--runs``, so that a stopped study resumes. Returns ``None`` if training
    or testing alone is requested, because classifiers are not stored.
    """
    if args.test_only or args.train_only:
        return None
    sets = _Sets(args)
    rows, grid, choices = [], [], []
    for acceleration in args.digit_accelerations:
        found = []
        for seed in args.seeds:
            for title in FIXED:
                rows.append(rated(title, 0.0, acceleration, seed, sets, args).row)
            plain, *others = (
                rated(INFOMRI, weight, acceleration, seed, sets, args)
                for weight in (0.0, *args.digit_weights)
            )
            rows += [plain.row, *(one.less(plain) for one in others)]
            found.append([one.validation for one in (plain, *others)])
        means = [
            {name: float(np.mean([one[name] for one in of_seeds])) for name in of_seeds[0]}
            for of_seeds in zip(*found, strict=True)
        ]
        chosen = choose_weight(means, TOLERANCE)
        choices.append({"acceleration": acceleration, "entropy_weight": chosen})
        grid += means
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
    """Choose the ``|β|`` with the lowest attack PSNR within a tolerance of the task's score.

    If every weight exceeds the tolerance, the one with the best score is chosen.

    Args:
        found: ``entropy_weight``, ``task`` and ``psnr`` in validation, for weight 0 first.
        tolerance: Allowed loss of the task's score.
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
    """Measure a sampler, or read its stored results.

    Args:
        title: One of :data:`FIXED`, or InfoMRI.
        weight: Weight ``|β|`` of the entropy.
        acceleration: Acceleration of the masks in training and test.
        seed: Random seed of the training.
        sets: Training, validation and test digits.
        args: Options of the study.

    Raises:
        InputError: If the stored results were measured with other options.
    """
    names = ("digits", "test_digits", "digit_epochs", "attack_digits")
    asked = {name: getattr(args, name) for name in names}
    name = f"{title} {weight:g} x{acceleration:g} seed{seed}"
    path = args.runs / f"digits_{slug(name)}.json"
    if path.is_file():
        found = read_record(path)
        if found["asked"] != asked:
            raise InputError(
                f"{path} was measured with {found['asked']}, not {asked}: remove it or choose "
                "other --runs"
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
    """Train a sampler, score it on the validation digits and attack the test digits."""
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
