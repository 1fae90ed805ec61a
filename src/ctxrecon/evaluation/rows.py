"""Rows of a measurement in CSV files that a stopped run goes on with."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.files import read_json, write_json, written_beside

Row = dict[str, str]


def open_rows(path: Path, columns: Sequence[str], settings: Mapping[str, object]) -> list[Row]:
    """Rows of a run that was stopped; a new file where there is none.

    The settings lie beside the file, in ``<stem>.settings.json``.

    Raises:
        InputError: the file belongs to a run with other settings, or to none that is known, or has
            other columns.
    """
    beside = path.with_suffix(".settings.json")
    if path.is_file() and not beside.is_file():
        raise InputError(
            f"{path} has no {beside.name} beside it that says how it was measured: write to "
            "another file"
        )
    if not path.is_file():
        beside.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        path.write_text(_header(columns), encoding="utf-8")
        return []
    check_settings(path, settings)
    _check_columns(path, columns, "file")
    _drop_half_a_line(path)
    return read_rows(path)


def check_settings(path: Path, settings: Mapping[str, object]) -> dict[str, object]:
    """The settings that the rows were made with.

    Raises:
        InputError: there are none, or one of ``settings`` differs.
    """
    beside = path.with_suffix(".settings.json")
    if not (path.is_file() and beside.is_file()):
        raise InputError(f"there are no rows at {path} yet: run the measurement first")
    before = _read_settings(beside)
    _refuse_others(path, before, settings)
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


class RowFolder:
    """Rows that several processes measure together, in one folder.

    Every process appends to a file of its own, ``rows.rank<N>.csv``, and reads those of all, so
    that a run that was stopped goes on with any number of processes. :meth:`merge` makes one
    sorted ``rows.csv`` of them in the end.

    Args:
        folder: an existing folder.
        columns: of every row.
        key: what tells a row from all others, as something that sorts.
    """

    def __init__(
        self, folder: Path, columns: Sequence[str], key: Callable[[Row], tuple[Any, ...]]
    ) -> None:
        self.folder, self.columns, self.key = folder, tuple(columns), key

    def check_settings(self, settings: Mapping[str, object]) -> dict[str, object]:
        """What ``settings.json`` is to hold: what it holds already, and what is new.

        Raises:
            InputError: one of ``settings`` differs, or there are rows without settings.
        """
        path = self.folder / "settings.json"
        if not path.is_file():
            if self._files():
                raise InputError(
                    f"{self._files()[0]} has no settings.json beside it that says how it was "
                    "measured: write to another folder"
                )
            return dict(settings)
        before = _read_settings(path)
        if not before.keys() & settings.keys():
            raise InputError(f"{path} is not of a measurement: write to another folder")
        # A run of baselines alone knows no prior; one that adds a solver does.
        _refuse_others(path, before, {name: settings[name] for name in settings if name in before})
        return {**before, **settings}

    def write_settings(self, settings: Mapping[str, object]) -> None:
        """Keep what :meth:`check_settings` gave."""
        write_json(self.folder / "settings.json", settings)

    def read(self) -> list[Row]:
        """The rows of all processes and earlier runs, each once, sorted.

        Raises:
            InputError: a file with other columns.
        """
        rows: dict[tuple[Any, ...], Row] = {}
        for path in self._files():
            _check_columns(path, self.columns, "folder")
            try:
                rows |= {self.key(row): row for row in read_rows(path)}
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{path} holds a row that is damaged: remove it, or write to another folder"
                ) from error
        return [rows[key] for key in sorted(rows)]

    def append(self, rank: int, rows: Iterable[Row]) -> None:
        """Add rows to the file of one process, after what was written to its end before."""
        path = self.folder / f"rows.rank{rank}.csv"
        if path.is_file():
            _drop_half_a_line(path)
        if not path.is_file() or path.stat().st_size == 0:
            path.write_text(_header(self.columns), encoding="utf-8")
        append_rows(path, self.columns, rows)

    def merge(self) -> list[Row]:
        """Bring all rows into ``rows.csv``; no process may be writing any more."""
        rows = self.read()
        parts = [path for path in self._files() if path.name != "rows.csv"]
        with written_beside(self.folder / "rows.csv") as temporary:
            temporary.write_text(_header(self.columns), encoding="utf-8")
            append_rows(temporary, self.columns, rows)
        for path in parts:
            path.unlink()
        return rows

    def _files(self) -> list[Path]:
        return sorted([*self.folder.glob("rows.csv"), *self.folder.glob("rows.rank*.csv")])


def _header(columns: Sequence[str]) -> str:
    return ",".join(columns) + "\n"


def _check_columns(path: Path, columns: Sequence[str], place: str) -> None:
    """Refuse rows of other columns.

    Raises:
        InputError: naming the file, with the remedy of another ``place``.
    """
    head = _whole_lines(path).partition("\n")[0]
    if head and head + "\n" != _header(columns):
        raise InputError(f"{path} has other columns than are written now: write to another {place}")


def _read_settings(path: Path) -> dict[str, object]:
    """What a file of settings holds.

    Raises:
        InputError: it cannot be read.
    """
    return read_json(path, "the settings of a measurement", "write to another folder")


def _refuse_others(
    path: Path, before: Mapping[str, object], settings: Mapping[str, object]
) -> None:
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        name = changed[0]
        raise InputError(
            f"{path} holds rows of a run with {name} {before.get(name)!r}, this one has "
            f"{settings[name]!r}: remove them, or write to another folder"
        )


def _whole_lines(path: Path) -> str:
    """Stopped while it wrote: the last row is done again."""
    text = path.read_bytes()
    try:
        return text[: text.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged ({error}): write to another folder") from error


def _drop_half_a_line(path: Path) -> None:
    # In place: a file written anew could lose all its rows if stopped again here.
    os.truncate(path, len(_whole_lines(path).encode("utf-8")))
