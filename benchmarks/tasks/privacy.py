"""Digits classified from few samples that tell little else: Table IV of InfoMRI, in kind."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from benchmarks.common.record import read_record
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

    What each acceleration and seed gives is kept in ``--runs``, so that a study that was stopped
    goes on. ``None`` where training and testing are to be apart: no classifier is kept.
    """
    if args.test_only or args.train_only:
        return None
    sets = _Sets(args)
    rows, grid = [], []
    for acceleration in args.digit_accelerations:
        chosen: float | None = None
        for seed in args.seeds:
            part = _kept(acceleration, seed, chosen, sets, args)
            rows += part["rows"]
            grid += part["grid"]
            chosen = part["chosen"]
    return {
        "snr": SNR,
        "seeds": args.seeds,
        "counts": [args.digits, *_tested(args)],
        "mean_image": mean_of(mean_psnr(sets.training.images, sets.test.images)),
        "tolerance": TOLERANCE,
        "grid": grid,
        "rows": rows,
    }


def _kept(
    acceleration: float,
    seed: int,
    chosen: float | None,
    sets: _Sets,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """What was found at an acceleration from a seed, now or before.

    Raises:
        InputError: it was found with other options.
    """
    names = ("digits", "test_digits", "digit_epochs", "attack_digits", "digit_weights")
    asked = {name: getattr(args, name) for name in names} | {"chosen": chosen}
    path = args.runs / f"digits_x{acceleration:g}_seed{seed}.json"
    if path.is_file():
        found = read_record(path)
        if found["asked"] != asked:
            raise InputError(
                f"{path} was found with {found['asked']}, not {asked}: remove it, or give other "
                "--runs"
            )
        return found["part"]
    part = _measured(acceleration, seed, chosen, sets, args)
    args.runs.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as temporary:
        temporary.write_text(json.dumps({"asked": asked, "part": part}), encoding="utf-8")
    return part


def _measured(
    acceleration: float,
    seed: int,
    chosen: float | None,
    sets: _Sets,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """The rows of an acceleration and a seed, and the weight, chosen now where none is given."""
    plain = _trained(pattern_generator, 0.0, acceleration, seed, sets, args)
    weighted = {
        weight: _trained(pattern_generator, weight, acceleration, seed, sets, args)
        for weight in (args.digit_weights if chosen is None else [chosen])
    }
    grid: list[dict[str, float]] = []
    if chosen is None:
        grid = [
            _validated(pipe, weight, acceleration, sets)
            for weight, pipe in {0.0: plain, **weighted}.items()
        ]
        chosen = choose_weight(grid, TOLERANCE)
    rows = []
    for title, make in FIXED.items():
        pipe = _trained(make, 0.0, acceleration, seed, sets, args)
        rows.append(_rated(title, 0.0, pipe, acceleration, seed, sets, args).record(None))
    base = _rated(INFOMRI, 0.0, plain, acceleration, seed, sets, args)
    other = _rated(INFOMRI, chosen, weighted[chosen], acceleration, seed, sets, args)
    rows += [base.record(None), other.record(base)]
    return {"grid": grid, "chosen": chosen, "rows": rows}


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
