"""Deduplication of warnings that occur for many slices."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Distinct(logging.Handler):
    """Handler that keeps each distinct warning once, in order of appearance."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.messages[record.getMessage()] = None


@contextmanager
def warnings_kept() -> Iterator[dict[str, None]]:
    """Collect the package's warnings inside the context instead of showing them per slice."""
    package, kept = logging.getLogger("ctxrecon"), _Distinct()
    before = package.handlers, package.propagate, package.level
    package.handlers, package.propagate = [kept], False
    package.setLevel(logging.WARNING)
    try:
        yield kept.messages
    finally:
        package.handlers, package.propagate = before[:2]
        package.setLevel(before[2])
