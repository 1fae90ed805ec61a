"""Warnings of many slices, each shown once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Distinct(logging.Handler):
    """Keeps each warning once, in the order in which they came."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self.messages[record.getMessage()] = None


@contextmanager
def warnings_kept() -> Iterator[dict[str, None]]:
    """What the package warns of inside, kept from being shown for every slice."""
    package, kept = logging.getLogger("ctxrecon"), _Distinct()
    before = package.handlers, package.propagate, package.level
    package.handlers, package.propagate = [kept], False
    package.setLevel(logging.WARNING)
    try:
        yield kept.messages
    finally:
        package.handlers, package.propagate = before[:2]
        package.setLevel(before[2])
