"""Arguments that every training script takes, and the ranges of their values."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)

LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine", "polynomial")

MAX_SEED = 2**24 - 1
"""Generators are seeded by ``seed * 2**40`` and the number of a sample, in 64 bits."""
MAX_RESOLUTION = 2048


class UsageError(InputError):
    """An option that is unknown, missing or out of its range."""


class TrainingParser(argparse.ArgumentParser):
    """A parser that raises :class:`UsageError` where others print their usage and exit."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise UsageError(f"{message} (--help lists the options)")


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """The type of an option that is a whole number.

    Args:
        low: least value.
        high: greatest value, if there is one.
    """
    wanted = f"from {low} on" if high is None else f"from {low} to {high}"

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected a whole number {wanted}, got {text}")
        return value

    return convert


def number(
    low: float = 0.0, high: float = math.inf, *, above: bool = False, below: bool = False
) -> Callable[[str], float]:
    """The type of an option that is a finite number.

    Args:
        low: least value.
        high: greatest value.
        above: whether ``low`` itself is refused.
        below: whether ``high`` itself is refused.
    """
    wanted = f"above {low:g}" if above else f"of {low:g} or more"
    if math.isfinite(high):
        wanted += f" and below {high:g}" if below else f" and at most {high:g}"

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = (value > low if above else value >= low) and (
            value < high if below else value <= high
        )
        if not math.isfinite(value) or not inside:
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text}")
        return value

    return convert


share = number(0, 1)
"""The type of an option that is a probability or a part of a whole."""
rate = number(0, 1e6)
"""The type of an option that is a learning rate."""
resolution = whole(16, MAX_RESOLUTION)
"""The type of an option that is a matrix size."""
seed = whole(0, MAX_SEED)
"""The type of ``--seed``."""


def add_training_arguments(parser: argparse.ArgumentParser, *, learning_rate: float) -> None:
    """Add the arguments that :func:`ctxrecon.training.train` reads.

    Args:
        parser: of the script.
        learning_rate: the script's default.
    """
    add = parser.add_argument
    add("--output_dir", type=Path, required=True, help="a new folder, or that of a run to resume")
    add("--train_batch_size", type=whole(1, 2**16), default=16, help="on each process")
    add("--gradient_accumulation_steps", type=whole(1, 2**16), default=1)
    add("--max_train_steps", type=whole(1, 10**9), required=True, help="optimiser steps")
    add("--learning_rate", type=rate, default=learning_rate)
    add("--lr_scheduler", choices=LR_SCHEDULERS, default="cosine")
    add("--lr_warmup_steps", type=whole(0), default=100)
    add("--adam_beta1", type=number(0, 1, below=True), default=0.9)
    add("--adam_beta2", type=number(0, 1, below=True), default=0.999)
    add("--adam_weight_decay", type=number(0, 1e6), default=1e-3)
    add("--adam_epsilon", type=number(above=True), default=1e-8)
    add("--max_grad_norm", type=number(above=True), default=1.0)
    add(
        "--ema_decay",
        type=number(0, 1, below=True),
        default=0.999,
        help="of the averaged weights, which are kept",
    )
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default="no")
    add("--checkpointing_steps", type=whole(1), default=200)
    add("--checkpoints_total_limit", type=whole(1), default=2)
    add(
        "--resume_from_checkpoint",
        help="'auto': the newest checkpoint of --output_dir, or a new run where there is none; "
        "'latest': the newest one; or the folder of one",
    )
    add("--validation_steps", type=whole(1), default=500)
    add("--dataloader_num_workers", type=whole(0, 256), default=0)
    add(
        "--report_to",
        choices=("tensorboard", "none"),
        help="tensorboard by default, where it is installed",
    )
    add("--seed", type=seed, default=0)


def parse_training_args(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> argparse.Namespace:
    """Parse a command line with :func:`add_training_arguments`, and settle ``--report_to``.

    Args:
        parser: of the script.
        argv: the command line; that of the process by default.

    Raises:
        UsageError: options that are unknown, missing or out of their ranges.
        InputError: tensorboard is asked for and not installed.
    """
    args = parser.parse_args(argv)
    if args.report_to is None:
        args.report_to = "tensorboard" if _has_tensorboard() else "none"
        if args.report_to == "none":
            logger.info("tensorboard is not installed: --report_to none")
    elif args.report_to == "tensorboard" and not _has_tensorboard():
        raise InputError(
            "--report_to tensorboard needs tensorboard: install it with pip install "
            "'.[train]' in the checkout, or give --report_to none"
        )
    return args


def _has_tensorboard() -> bool:
    from accelerate.utils import is_tensorboard_available

    return bool(is_tensorboard_available())
