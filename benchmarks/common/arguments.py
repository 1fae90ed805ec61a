"""Command-line options shared by the studies, and loading of the priors that they name."""

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
"""Name of the shipped prior."""


def study_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return the option parser of ``python -m benchmarks.MODULE``.

    Args:
        module: Module name after ``benchmarks.``, such as ``"speed.masks"``.
        description: Docstring of the module, shown verbatim.
    """
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def prior_parser(
    module: str, description: str | None, *, several: bool = False
) -> argparse.ArgumentParser:
    """Return :func:`study_parser` with options for the prior (or priors) and the output."""
    parser = study_parser(module, description)
    if several:
        parser.add_argument(
            "--prior",
            nargs="+",
            default=[SHIPPED],
            metavar="NAME=PATH",
            help=f"Checkpoints, or {SHIPPED!r} (default). A PATH alone is named after its folder.",
        )
    else:
        parser.add_argument("--prior", help="Checkpoint (default: the shipped prior).")
    parser.add_argument("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    parser.add_argument("--batch_size", type=int, default=8, help="Images denoised at once.")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="Network precision."
    )
    parser.add_argument("--device", help="Device of the prior (default: CUDA if available).")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    return parser


def held_out_parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return :func:`prior_parser` with options for held-out phantom scans."""
    parser = prior_parser(module, description)
    parser.add_argument(
        "--label_volumes",
        type=Path,
        nargs="*",
        default=[],
        help="Label volumes of held-out people.",
    )
    parser.add_argument("--resolution", type=int, default=128, help="Matrix size.")
    parser.add_argument(
        "--accelerations", type=float, nargs="+", default=[4.0, 8.0], help="Acceleration factors."
    )
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options and store the whole command line as ``command`` for the record."""
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser.parse_args(words)
    args.command = " ".join([parser.prog, shlex.join(words)]).strip()
    return args


def settings_of(args: argparse.Namespace) -> dict[str, str]:
    """Return every option as text, for the record."""
    return {name: str(value) for name, value in vars(args).items() if name != "command"}


def recorded_options(command: str) -> list[str]:
    """Return the options of a recorded command, which ran a module or a file."""
    words = shlex.split(command)
    return words[3:] if words[1] == "-m" else words[2:]


def open_named_prior(args: argparse.Namespace) -> tuple[ContextMRIPipeline, str]:
    """Load the prior with its U-Net in the requested precision; return it and its fingerprint."""
    args.output_dir.mkdir(parents=True, exist_ok=True)
    return _opened(args.prior, args)


def open_named_priors(args: argparse.Namespace) -> dict[str, tuple[ContextMRIPipeline, str]]:
    """Load several priors as :func:`open_named_prior` does, by name.

    Raises:
        InputError: If two priors have the same name.
    """
    args.output_dir.mkdir(parents=True, exist_ok=True)
    return {name: _opened(path, args) for name, path in named_priors(args.prior).items()}


def named_priors(texts: Sequence[str]) -> dict[str, str | None]:
    """Return the path of each prior by name, ``None`` for the shipped one.

    Raises:
        InputError: If two priors have the same name, or if a name or a path is empty.
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
