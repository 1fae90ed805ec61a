"""``ctxrecon prepare bank``: anatomies for training on phantoms."""

from __future__ import annotations

from functools import partial

import typer


def bank(context: typer.Context) -> None:
    """Draw a bank of anatomies for training on phantoms; --help lists the options."""
    from ctxrecon.training.bank import main
    from ctxrecon.training.script import run_script

    run_script(partial(main, context.args, "ctxrecon prepare bank"))
