"""Arguments that benchmarks share, and the prior that they name."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from ctxrecon.commands.methods import open_prior
from ctxrecon.evaluation import fingerprint
from ctxrecon.pipelines import ContextMRIPipeline


def prior_parser(description: str | None) -> argparse.ArgumentParser:
    """Where the prior is, how it runs, and where results go."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", help="checkpoint; the shipped prior by default")
    parser.add_argument("--output_dir", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--batch_size", type=int, default=8, help="images denoised at once")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", help="of the prior; CUDA by default where there is one")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def held_out_parser(description: str | None) -> argparse.ArgumentParser:
    """The same, and which phantom scans are drawn."""
    parser = prior_parser(description)
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--accelerations", type=float, nargs="+", default=[4.0, 8.0])
    return parser


def open_named_prior(args: argparse.Namespace) -> tuple[ContextMRIPipeline, str]:
    """The prior, its U-Net in the precision asked for, and the fingerprint of its own weights."""
    logging.basicConfig(level=logging.WARNING)
    pipe = open_prior(args.prior, args.device)
    found = fingerprint(pipe)
    pipe.unet.to(getattr(torch, args.dtype))
    pipe.set_progress_bar_config(disable=True)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    return pipe, found
