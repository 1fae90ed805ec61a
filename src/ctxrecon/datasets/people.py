"""Selection of people whose slices are prepared."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ctxrecon.errors import InputError

_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class People:
    """Selection of people: all except those left out, or only those listed.

    Attributes:
        leave_out: People to leave out.
        only: If given, only these people are selected (default: everybody).

    Example:
        >>> from ctxrecon.datasets import People
        >>> people = People(leave_out=frozenset({"sub-01"}))
        >>> "sub-01" in people, "sub-02" in people
        (False, True)
    """

    leave_out: frozenset[str] = frozenset()
    only: frozenset[str] | None = None

    def __contains__(self, subject: str) -> bool:
        """Return whether a person is selected."""
        return subject not in self.leave_out and (self.only is None or subject in self.only)

    def settings(self) -> dict[str, list[str] | None]:
        """Return both lists as JSON values."""
        return {
            "leave_out": sorted(self.leave_out),
            "only": None if self.only is None else sorted(self.only),
        }

    def unmatched(self, found: Collection[str]) -> list[str]:
        """Return the listed names that match nobody among those found, sorted."""
        return sorted((self.leave_out | (self.only or frozenset())).difference(found))


def read_people(path: Path) -> frozenset[str]:
    """Read names of people, one per line.

    Raises:
        InputError: If the file is not text, or contains no names.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is too large for a list of people: expected one name a line")
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(
            f"the list of people {path} cannot be read ({error.strerror}): check its path"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected one name per line in UTF-8, got other bytes") from error
    found = frozenset(name.strip() for name in names if name.strip())
    if not found:
        raise InputError(f"{path} contains no names: expected one per line")
    return found
