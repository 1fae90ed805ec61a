"""Findings about the slices of a batch, and their messages."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_MOST_NAMED = 8


@dataclass(frozen=True)
class Finding:
    """One message about some slices.

    Attributes:
        message: Observation, consequence and remedy.
        slices: Numbers of the slices, counted from 0; empty for all.
    """

    message: str
    slices: tuple[int, ...] = ()

    def sentence(self, batch: int) -> str:
        """Return the message, preceded by the slices if they are not all."""
        if not self.slices or len(self.slices) == batch:
            return self.message
        named = ", ".join(map(str, self.slices[:_MOST_NAMED]))
        more = len(self.slices) - _MOST_NAMED
        rest = f" and {more} more" if more > 0 else ""
        return f"slice{'s' if len(self.slices) > 1 else ''} {named}{rest}: {self.message}"


def selected(flags: Tensor) -> tuple[int, ...]:
    """Return the numbers of the slices whose flag is set; ``flags`` is ``(batch,)`` bool."""
    return tuple(flags.nonzero()[:, 0].tolist())


def shared_or_selected(flags: Tensor) -> tuple[int, ...]:
    """Return :func:`selected`; none, for all slices, if ``flags`` has one entry for all."""
    return () if len(flags) == 1 else selected(flags)
