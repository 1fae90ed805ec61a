"""Rows of a measurement in a CSV file that a stopped run goes on with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ctxrecon.errors import InputError

Row = dict[str, str]


def open_rows(path: Path, columns: Sequence[str], settings: Mapping[str, object]) -> list[Row]:
    """Rows of a run that was stopped; a new file where there is none.

    Raises:
        InputError: the file belongs to a run with other settings.
    """
    beside = path.with_suffix(".settings.json")
    if not (path.is_file() and beside.is_file()):
        beside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        path.write_text(",".join(columns) + "\n", encoding="utf-8")
        return []
    check_settings(path, settings)
    path.write_text(_whole_lines(path), encoding="utf-8")
    return read_rows(path)


def check_settings(path: Path, settings: Mapping[str, object]) -> dict[str, object]:
    """The settings that the rows were made with.

    Raises:
        InputError: there are none, or one of ``settings`` differs.
    """
    beside = path.with_suffix(".settings.json")
    if not (path.is_file() and beside.is_file()):
        raise InputError(f"there are no rows at {path} yet: run the measurement first")
    before: dict[str, object] = json.loads(beside.read_text(encoding="utf-8"))
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        name = changed[0]
        raise InputError(
            f"{path} holds rows of a run with {name} {before.get(name)!r}, this one has "
            f"{settings[name]!r}: remove the file, or give another --output_dir"
        )
    return before


def read_rows(path: Path) -> list[Row]:
    """The rows that were written to their end; the file stays as it is."""
    return list(csv.DictReader(io.StringIO(_whole_lines(path))))


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Add rows to the file at once."""
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text.getvalue())


def _whole_lines(path: Path) -> str:
    """Stopped while it wrote: the last row is done again."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1]
