"""The ``ctxrecon`` command-line program: a thin layer over the package."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.core import TyperGroup

from ctxrecon import __version__
from ctxrecon.commands.adapt import adapt
from ctxrecon.commands.bank import bank
from ctxrecon.commands.benchmark import benchmark
from ctxrecon.commands.demo import demo
from ctxrecon.commands.info import info
from ctxrecon.commands.logs import logged_to_stderr
from ctxrecon.commands.prepare import prepare
from ctxrecon.commands.reconstruct import reconstruct
from ctxrecon.commands.simulate import simulate
from ctxrecon.commands.task import task
from ctxrecon.commands.train import PASSED_ON, train
from ctxrecon.errors import InputError, one_line

_INTERRUPTED = 130  # 128 + SIGINT, the convention of shells


class _Commands(TyperGroup):
    """Command group that exits with the shells' status 130 when it is interrupted."""

    def invoke(self, context: typer.Context) -> object:  # type: ignore[override]
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            print("ctxrecon: interrupted", file=sys.stderr)
            sys.exit(_INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    help="Accelerated MRI reconstruction with metadata-prompted diffusion priors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (demo, reconstruct, task, adapt, simulate, info, benchmark):
    app.command()(_command)
prepare.command(context_settings=PASSED_ON)(bank)
app.add_typer(prepare, name="prepare")
app.add_typer(train, name="train")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ctxrecon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with status 0, or with a one-line error on stderr.

    The status is 2 for invalid input, 1 if the machine fails (full disk, out of memory), and 130
    after an interrupt. Any other exception is a bug: its traceback is written to a file that the
    error line names, or to the terminal if ``CTXRECON_DEBUG`` is set.

    Args:
        arguments: Command-line arguments without the program name (default: ``sys.argv[1:]``).
    """
    for stream in (sys.stdout, sys.stderr):  # file names need not be valid text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with logged_to_stderr():
            app(args=None if arguments is None else list(arguments), prog_name="ctxrecon")
    except InputError as error:
        _fail(str(error), 2)
    except OSError as error:
        if os.environ.get("CTXRECON_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        _fail(f"{where}{error.strerror or error}", 1)
    except MemoryError:
        _fail("out of memory: select fewer slices with --slices, or draw fewer samples", 1)
    except Exception as error:
        if os.environ.get("CTXRECON_DEBUG"):
            raise
        _fail(f"internal error, please report it with {_traceback_file(error)}", 1)


def _fail(message: str, status: int) -> None:
    print(f"ctxrecon: error: {one_line(message)}", file=sys.stderr)
    sys.exit(status)


def _traceback_file(error: Exception) -> str:
    """Write the traceback to a file and name it; if that fails, return the exception alone."""
    said = traceback.format_exception_only(type(error), error)[-1].strip()
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="ctxrecon-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return said
    return f"the traceback in {file.name} ({said})"


if __name__ == "__main__":  # accelerate launch -m ctxrecon.cli, torchrun -m ctxrecon.cli
    main()
