"""What the package infers and warns of, on the terminal: each line once."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ctxrecon.errors import InputError

# Warnings of one kind that are shown, such as one for each slice of a volume.
_SHOWN = 3


class _Lines(logging.Filter):
    """Passes each line once, and names the slice that is being reconstructed."""

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        """Pass every line again."""
        self.number: int | None = None
        self._seen: set[str] = set()
        self._kinds: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        line = _named(record.getMessage(), self.number)
        if record.levelno >= logging.WARNING:
            if self.number is not None and not line.startswith("slice "):
                line = f"slice {self.number}: {line}"
            if line not in self._seen:
                self._kinds[str(record.msg)] += 1
            if self._kinds[str(record.msg)] > _SHOWN:
                line = "the same of further slices"
        new = line not in self._seen
        self._seen.add(line)
        record.msg, record.args = line, ()
        return new


_lines = _Lines()


def log_to_stderr() -> None:
    """Show the package's log on stderr."""
    logger = logging.getLogger("ctxrecon")
    logger.setLevel(logging.INFO)
    _lines.forget()
    for handler in logger.handlers[:]:
        if _lines in handler.filters:  # of an earlier call, which may have had another stderr
            logger.removeHandler(handler)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("ctxrecon: %(message)s"))
    handler.addFilter(_lines)
    logger.addHandler(handler)


@contextmanager
def slice_named(number: int | None) -> Iterator[None]:
    """What is logged or refused inside is of this slice of the file, not of slice 0 of a batch."""
    _lines.number = number
    try:
        yield
    except InputError as error:
        if number is None:
            raise
        raise InputError(_named(f"slice {number}: {error}", number)) from error
    finally:
        _lines.number = None


def _named(line: str, number: int | None) -> str:
    return line if number is None else re.sub(r"\bslice 0\b", f"slice {number}", line)
