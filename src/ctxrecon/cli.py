"""The command ``ctxrecon``: a thin shell around the package."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import typer

from ctxrecon.commands.benchmark import benchmark
from ctxrecon.commands.demo import demo
from ctxrecon.commands.info import info
from ctxrecon.commands.prepare import prepare
from ctxrecon.commands.reconstruct import reconstruct
from ctxrecon.commands.simulate import simulate
from ctxrecon.errors import InputError

app = typer.Typer(
    help="Accelerated MRI reconstruction with metadata-prompted diffusion priors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (demo, reconstruct, simulate, info, benchmark):
    app.command()(_command)
app.add_typer(prepare, name="prepare")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: status 0, or 2 with one line on stderr for bad input.

    Any other exception is a defect of the program and reaches the shell with its traceback.

    Args:
        arguments: those of the process by default.
    """
    _log_to_stderr()
    try:
        app(args=None if arguments is None else list(arguments), prog_name="ctxrecon")
    except InputError as error:
        sentence = " ".join(str(error).split())
        print(f"ctxrecon: error: {sentence}", file=sys.stderr)
        sys.exit(2)


def _log_to_stderr() -> None:
    """Show what the package infers (a mask, coil maps) and warns of."""
    logger = logging.getLogger("ctxrecon")
    logger.setLevel(logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("ctxrecon: %(message)s"))
        logger.addHandler(handler)


if __name__ == "__main__":  # accelerate launch -m ctxrecon.cli, torchrun -m ctxrecon.cli
    main()
