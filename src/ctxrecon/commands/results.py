"""Results of a method, for some slices or for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Result:
    """Result of one method.

    Attributes:
        name: Method and model, for tables and figures.
        key: Method, for file names.
        images: Complex64 images of shape ``(batch, ny, nx)`` on the CPU.
        residual: Relative data residuals ``‖A x − y‖ / ‖y‖``, shape ``(batch,)``.
        seconds: Wall-clock time without the estimation of coil maps, or ``None`` if it was not
            measured separately.
        std: Standard deviation over the posterior samples or expected error of a network, shape
            ``(batch, ny, nx)``, or ``None``.
        samples: Posterior samples of shape ``(batch, num_samples, ny, nx)``, or ``None``.
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
    """Results of all methods for some slices.

    Attributes:
        results: One result per method.
        reference: Ground truth of shape ``(batch, ny, nx)``, or ``None``.
    """

    results: list[Result]
    reference: Tensor | None


def join_results(parts: Sequence[Result]) -> Result:
    """Concatenate one method's results for consecutive slices; seconds are summed."""
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
    """Return slice ``index`` of every result, by name of the method."""
    return {result.name: result.images[index] for result in results}
