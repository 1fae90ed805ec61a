"""Arguments that every training script takes, named as in the diffusers scripts."""

from __future__ import annotations

import argparse
from pathlib import Path

LR_SCHEDULERS = ("constant", "constant_with_warmup", "linear", "cosine", "polynomial")


def add_training_arguments(parser: argparse.ArgumentParser, *, learning_rate: float) -> None:
    """Add the arguments that :func:`ctxrecon.training.train` reads.

    Args:
        parser: of the script.
        learning_rate: the script's default.
    """
    add = parser.add_argument
    add("--output_dir", type=Path, required=True)
    add("--train_batch_size", type=_positive, default=16, help="on each process")
    add("--gradient_accumulation_steps", type=_positive, default=1)
    add("--max_train_steps", type=_positive, required=True, help="optimiser steps")
    add("--learning_rate", type=float, default=learning_rate)
    add("--lr_scheduler", choices=LR_SCHEDULERS, default="cosine")
    add("--lr_warmup_steps", type=int, default=100)
    add("--adam_beta1", type=float, default=0.9)
    add("--adam_beta2", type=float, default=0.999)
    add("--adam_weight_decay", type=float, default=1e-3)
    add("--adam_epsilon", type=float, default=1e-8)
    add("--max_grad_norm", type=float, default=1.0)
    add("--ema_decay", type=float, default=0.999, help="of the averaged weights, which are kept")
    add("--mixed_precision", choices=("no", "bf16", "fp16"), default="no")
    add("--checkpointing_steps", type=_positive, default=200)
    add("--checkpoints_total_limit", type=_positive, default=2)
    add("--resume_from_checkpoint", help="a checkpoint folder, or 'latest'")
    add("--validation_steps", type=_positive, default=500)
    add("--dataloader_num_workers", type=int, default=0)
    add("--report_to", choices=("tensorboard", "none"), default="tensorboard")
    add("--seed", type=int, default=0)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {number}")
    return number
