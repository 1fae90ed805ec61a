"""Pages of the study."""

from __future__ import annotations

from benchmarks.common.record import Record
from benchmarks.tasks.tables import TABLES


def page(record: Record) -> str:
    """Return the page of a record."""
    return TABLES[record["results"]["table"]].page(record)
