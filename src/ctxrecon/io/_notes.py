"""Notes on the processing of a file, for the log and for the user."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)


class Notes:
    """Sentences on the processing of a file, each logged once.

    Args:
        path: File name, with which log messages begin.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        """Log a sentence and keep it."""
        if sentence not in self.sentences:
            self.sentences.append(sentence)
            logger.info("%s: %s", self._path, sentence)
