"""Rows of a measurement in CSV files from which a stopped run resumes."""

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
    """Open the rows of a stopped run, or create a new file.

    The settings are stored next to the file in ``<stem>.settings.json``.

    Args:
        path: CSV file.
        columns: Columns of the rows.
        settings: Settings on which the rows depend.

    Returns:
        The rows that are already complete.

    Raises:
        InputError: If the file belongs to a run with other or unknown settings, or has other
            columns.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ctxrecon.evaluation import append_rows, open_rows
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, columns = Path(folder) / "rows.csv", ["slice", "psnr"]
        ...     rows = open_rows(path, columns, {"seed": 0})
        ...     append_rows(path, columns, [{"slice": "0", "psnr": "38.0"}])
        ...     open_rows(path, columns, {"seed": 0})
        [{'slice': '0', 'psnr': '38.0'}]
    """
    beside = path.with_suffix(".settings.json")
    if path.is_file() and not beside.is_file():
        raise InputError(
            f"{path} has no {beside.name} that states how it was measured: write to another file"
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
    """Return the settings with which the rows were measured.

    Raises:
        InputError: If there are none, or one of ``settings`` differs.
    """
    beside = path.with_suffix(".settings.json")
    if not (path.is_file() and beside.is_file()):
        raise InputError(f"there are no rows at {path} yet: run the measurement first")
    before = _read_settings(beside)
    _refuse_others(path, before, settings)
    return before


def read_rows(path: Path) -> list[Row]:
    """Read the complete rows of a file, which is not modified."""
    return list(csv.DictReader(io.StringIO(_whole_lines(path))))


def append_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Append rows to the file in a single write."""
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text.getvalue())


class RowFolder:
    """Rows that several processes measure together in one folder.

    Every process appends to its own file, ``rows.rank<N>.csv``, and reads all files, so that a
    stopped run can resume with any number of processes. Finally, :meth:`merge` combines them into
    one sorted ``rows.csv``.

    Args:
        folder: Existing folder.
        columns: Columns of the rows.
        key: Function that returns a unique, sortable key of a row.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ctxrecon.evaluation import RowFolder
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = RowFolder(Path(name), ["slice", "psnr"], lambda row: (int(row["slice"]),))
        ...     folder.append(0, [{"slice": "1", "psnr": "38.0"}])
        ...     folder.append(1, [{"slice": "0", "psnr": "37.5"}])
        ...     [row["slice"] for row in folder.merge()]
        ['0', '1']
    """

    def __init__(
        self, folder: Path, columns: Sequence[str], key: Callable[[Row], tuple[Any, ...]]
    ) -> None:
        self.folder, self.columns, self.key = folder, tuple(columns), key

    def check_settings(self, settings: Mapping[str, object]) -> dict[str, object]:
        """Return the new content of ``settings.json``: existing and further settings.

        Raises:
            InputError: If one of ``settings`` differs, or there are rows without settings.
        """
        path = self.folder / "settings.json"
        if not path.is_file():
            if self._files():
                raise InputError(
                    f"{self._files()[0]} has no settings.json that states how it was measured: "
                    "write to another folder"
                )
            return dict(settings)
        before = _read_settings(path)
        if not before.keys() & settings.keys():
            raise InputError(f"{path} does not belong to a measurement: write to another folder")
        # A run with only baselines has no prior; a later one that adds a solver does.
        _refuse_others(path, before, {name: settings[name] for name in settings if name in before})
        return {**before, **settings}

    def write_settings(self, settings: Mapping[str, object]) -> None:
        """Write the settings that :meth:`check_settings` returned."""
        write_json(self.folder / "settings.json", settings)

    def read(self) -> list[Row]:
        """Read the rows of all processes and earlier runs, sorted and without duplicates.

        Raises:
            InputError: If a file has other columns, or a damaged row.
        """
        rows: dict[tuple[Any, ...], Row] = {}
        for path in self._files():
            _check_columns(path, self.columns, "folder")
            try:
                rows |= {self.key(row): row for row in read_rows(path)}
            except (ValueError, TypeError, KeyError) as error:
                raise InputError(
                    f"{path} has a damaged row: delete the file, or write to another folder"
                ) from error
        return [rows[key] for key in sorted(rows)]

    def append(self, rank: int, rows: Iterable[Row]) -> None:
        """Append rows to the file of one process, after its last complete row."""
        path = self.folder / f"rows.rank{rank}.csv"
        if path.is_file():
            _drop_half_a_line(path)
        if not path.is_file() or path.stat().st_size == 0:
            path.write_text(_header(self.columns), encoding="utf-8")
        append_rows(path, self.columns, rows)

    def merge(self) -> list[Row]:
        """Combine all rows in ``rows.csv``; no process may be writing at that time."""
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
    """Validate the columns of a file.

    Raises:
        InputError: If they differ; the message suggests another ``place``, a file or folder.
    """
    head = _whole_lines(path).partition("\n")[0]
    if head and head + "\n" != _header(columns):
        raise InputError(f"{path} has other columns than expected: write to another {place}")


def _read_settings(path: Path) -> dict[str, object]:
    """Read a settings file.

    Raises:
        InputError: If it cannot be read.
    """
    return read_json(path, "the settings of a measurement", "write to another folder")


def _refuse_others(
    path: Path, before: Mapping[str, object], settings: Mapping[str, object]
) -> None:
    changed = [name for name in settings if settings[name] != before.get(name)]
    if changed:
        name = changed[0]
        raise InputError(
            f"{path} belongs to a run with {name} {before.get(name)!r}, but this run has "
            f"{settings[name]!r}: delete the rows, or write to another folder"
        )


def _whole_lines(path: Path) -> str:
    """Read the complete lines; a row that was interrupted while being written is dropped."""
    text = path.read_bytes()
    try:
        return text[: text.rfind(b"\n") + 1].decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is damaged ({error}): write to another folder") from error


def _drop_half_a_line(path: Path) -> None:
    # In place, because rewriting the file could lose all rows if interrupted here.
    os.truncate(path, len(_whole_lines(path).encode("utf-8")))
