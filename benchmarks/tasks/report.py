"""The page of a table."""

from __future__ import annotations

from benchmarks.common.record import Record
from benchmarks.tasks.tables import TABLES


def page(record: Record) -> str:
    """What the table of a record has for a page."""
    return TABLES[record["results"]["table"]].page(record)
