"""Terminal output: results, and log messages without repetitions."""

from __future__ import annotations

import copy
import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import typer

from ctxrecon.errors import InputError, printable

# Number of similar warnings to show, such as one for each slice of a volume.
_SHOWN = 3

_unsaid: ContextVar[str | None] = ContextVar("words of lines that are not shown", default=None)
_number: ContextVar[int | None] = ContextVar("number of the slice", default=None)


class _Lines(logging.StreamHandler):
    """Handler that shows each line once, with the number of the current slice."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()
        self._kinds: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        words = _unsaid.get()
        if words is not None and words in record.getMessage():
            return
        line = self._line(record)
        if line not in self._seen:
            self._seen.add(line)
            shown = copy.copy(record)  # leaves the record unchanged for other handlers
            shown.msg, shown.args = printable(line), ()
            super().emit(shown)

    def _line(self, record: logging.LogRecord) -> str:
        number, kind = _number.get(), str(record.msg)
        line = _named(record.getMessage(), number)
        if record.levelno < logging.WARNING:
            return line
        if number is not None and not re.search(rf"\bslice {number}\b", line):
            line = f"slice {number}: {line}"
        if line not in self._seen:
            self._kinds[kind] += 1
        return line if self._kinds[kind] <= _SHOWN else "further slices have the same warning"


def say(text: object, *, err: bool = False) -> None:
    """Print a line without control characters, on standard error if ``err`` is set."""
    typer.echo(printable(str(text)), err=err)


@contextmanager
def logged_to_stderr() -> Iterator[None]:
    """Show the package's log on stderr, and restore the logging configuration afterwards."""
    logger = logging.getLogger("ctxrecon")
    level = logger.level
    handler = _Lines()
    handler.setFormatter(logging.Formatter("ctxrecon: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextmanager
def unsaid(words: str | None) -> Iterator[None]:
    """Suppress lines that contain ``words``, which do not apply to the command."""
    token = _unsaid.set(words)
    try:
        yield
    finally:
        _unsaid.reset(token)


@contextmanager
def slice_named(number: int | None) -> Iterator[None]:
    """Attribute log messages and errors to this slice of the file, not slice 0 of a batch."""
    token = _number.set(number)
    try:
        yield
    except InputError as error:
        if number is None:
            raise
        raise InputError(_named(f"slice {number}: {error}", number)) from error
    finally:
        _number.reset(token)


def _named(line: str, number: int | None) -> str:
    return line if number is None else re.sub(r"\bslice 0\b", f"slice {number}", line)
