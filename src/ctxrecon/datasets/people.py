"""Which people's slices are asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ctxrecon.errors import InputError

_MOST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class People:
    """The people whose slices are asked for: all but those left out, or some alone.

    Attributes:
        leave_out: who is left out.
        only: who is not left out; all by default.
    """

    leave_out: frozenset[str] = frozenset()
    only: frozenset[str] | None = None

    def __contains__(self, subject: str) -> bool:
        """Whether the slices of this person are asked for."""
        return subject not in self.leave_out and (self.only is None or subject in self.only)

    def settings(self) -> dict[str, list[str] | None]:
        """Both lists, as JSON holds them."""
        return {
            "leave_out": sorted(self.leave_out),
            "only": None if self.only is None else sorted(self.only),
        }

    def unmatched(self, found: Collection[str]) -> list[str]:
        """Names asked for or left out that nobody among those found has, sorted."""
        return sorted((self.leave_out | (self.only or frozenset())).difference(found))


def read_people(path: Path) -> frozenset[str]:
    """Names of people, one a line.

    Raises:
        InputError: no text file, or one without names.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than any list of people: give one name a line")
        names = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"the list of people {path} cannot be read ({error.strerror}): check its path"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected one name a line in UTF-8, got other bytes") from error
    found = frozenset(name.strip() for name in names if name.strip())
    if not found:
        raise InputError(f"{path} names nobody: expected one name a line")
    return found
