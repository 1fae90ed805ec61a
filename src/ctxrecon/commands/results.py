"""What a method gave: for some slices, and for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Result:
    """What one method gave.

    Attributes:
        name: what ran, for tables and figures.
        key: the method in the name of a file.
        images: ``(batch, ny, nx)`` complex64 on the CPU.
        residual: ``(batch,)`` relative data residual ``‖A x − y‖ / ‖y‖``.
        seconds: wall-clock time, coil maps not counted; ``None`` where it was not measured alone.
        std: ``(batch, ny, nx)`` over the posterior samples, or ``None``.
        samples: ``(batch, num_samples, ny, nx)``, or ``None``.
    """

    name: str
    key: str
    images: Tensor
    residual: Tensor
    seconds: float | None
    std: Tensor | None = None
    samples: Tensor | None = None


@dataclass(frozen=True)
class Part:
    """Some slices by all methods.

    Attributes:
        results: of each method.
        reference: ``(batch, ny, nx)``, or ``None``.
    """

    results: list[Result]
    reference: Tensor | None


def join_results(parts: Sequence[Result]) -> Result:
    """One method's result for all slices, of those for some; seconds are added."""
    import torch

    def all_of(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    first, images, residual = parts[0], all_of("images"), all_of("residual")
    assert images is not None
    assert residual is not None
    seconds = [part.seconds for part in parts if part.seconds is not None]
    return Result(
        first.name, first.key, images, residual, sum(seconds) if seconds else None, all_of("std")
    )


def figure_images(results: Sequence[Result], index: int) -> dict[str, Tensor]:
    """Slice ``index`` of every result, under its name."""
    return {result.name: result.images[index] for result in results}
