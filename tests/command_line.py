"""The command line, called in this process."""

from __future__ import annotations

import pytest

from ctxrecon.cli import main


def run(*arguments: object) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the usage error of a command on one line."""
    assert run(*arguments) == 2
    return " ".join(capsys.readouterr().err.split())
