"""How a finding about some slices of a batch is told."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

_MOST_NAMED = 8


@dataclass(frozen=True)
class Finding:
    """One sentence about some slices.

    Attributes:
        message: what it looks like, what that costs, and the remedy.
        slices: counted from 0; empty for all.
    """

    message: str
    slices: tuple[int, ...] = ()

    def sentence(self, batch: int) -> str:
        """The message, with the slices in front where they are not all."""
        if not self.slices or len(self.slices) == batch:
            return self.message
        named = ", ".join(map(str, self.slices[:_MOST_NAMED]))
        more = len(self.slices) - _MOST_NAMED
        rest = f" and {more} more" if more > 0 else ""
        return f"slice{'s' if len(self.slices) > 1 else ''} {named}{rest}: {self.message}"


def selected(flags: Tensor) -> tuple[int, ...]:
    """The slices whose flag is set; ``flags`` is ``(batch,)`` bool."""
    return tuple(flags.nonzero()[:, 0].tolist())
