"""Arguments that studies share, and the prior that they name."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ctxrecon.commands.methods import model_name, open_prior
from ctxrecon.errors import InputError
from ctxrecon.evaluation import fingerprint
from ctxrecon.pipelines import ContextMRIPipeline

RESULTS = Path("benchmarks/results")
SHIPPED = "shipped"
"""What the shipped prior is called beside others."""


def study_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of the options of ``python -m benchmarks.MODULE``.

    Args:
        module: after ``benchmarks.``, such as ``"speed.masks"``.
        description: the module's docstring, shown as it is.
    """
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def prior_parser(
    module: str, description: str | None, *, several: bool = False
) -> argparse.ArgumentParser:
    """:func:`study_parser` with the options of the prior, or of several, and of the output."""
    parser = study_parser(module, description)
    if several:
        parser.add_argument(
            "--prior",
            nargs="+",
            default=[SHIPPED],
            metavar="NAME=PATH",
            help=f"checkpoints, or {SHIPPED!r}, the default; a PATH alone has its folder's name",
        )
    else:
        parser.add_argument("--prior", help="checkpoint; the shipped prior by default")
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--batch_size", type=int, default=8, help="images denoised at once")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", help="of the prior; CUDA by default where there is one")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def held_out_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """:func:`prior_parser` with the options of the held-out phantom scans."""
    parser = prior_parser(module, description)
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--accelerations", type=float, nargs="+", default=[4.0, 8.0])
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options and note the whole command as ``command``, for the record."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    args.command = " ".join([parser.prog, shlex.join(words)]).strip()
    return args


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    """Every option as text, for the record."""
    return {name: str(value) for name, value in vars(args).items() if name != "command"}


def recorded_options(command: str) -> list[str]:
    """The options of a command as a record holds it, run as a module or as a file."""
    words = shlex.split(command)
    return words[3:] if words[1] == "-m" else words[2:]


def open_named_prior(args: argparse.Namespace) -> tuple[ContextMRIPipeline, str]:
    """The prior, its U-Net in the precision asked for, and the fingerprint of its own weights."""
    args.output_dir.mkdir(parents=True, exist_ok=True)
    return _opened(args.prior, args)


def open_named_priors(args: argparse.Namespace) -> dict[str, tuple[ContextMRIPipeline, str]]:
    """Several priors by name, each as :func:`open_named_prior` gives it.

    Raises:
        InputError: two of one name.
    """
    args.output_dir.mkdir(parents=True, exist_ok=True)
    return {name: _opened(path, args) for name, path in named_priors(args.prior).items()}


def named_priors(texts: Sequence[str]) -> dict[str, str | None]:
    """The path of each prior by its name, ``None`` for the shipped one.

    Raises:
        InputError: two of one name, or a name or a path that is empty.
    """
    paths: dict[str, str | None] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = SHIPPED if text == SHIPPED else model_name(text), text
        if not (name and path):
            raise InputError(f"expected a prior as NAME=PATH or PATH, got {text!r}")
        if name in paths:
            raise InputError(
                f"expected priors of different names, got {name!r} twice: give them as NAME=PATH"
            )
        paths[name] = None if text == SHIPPED else path
    return paths


def _opened(path: str | None, args: argparse.Namespace) -> tuple[ContextMRIPipeline, str]:
    logging.basicConfig(level=logging.WARNING)
    pipe = open_prior(path, args.device)
    found = fingerprint(pipe)
    pipe.unet.to(getattr(torch, args.dtype))
    pipe.set_progress_bar_config(disable=True)
    return pipe, found
