"""Exact sampling budget, fully sampled center and batched random draws shared by all masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ctxrecon.checks import is_number, is_whole
from ctxrecon.errors import InputError

Shape: TypeAlias = "tuple[int, int]"
Generators: TypeAlias = "torch.Generator | Sequence[torch.Generator] | None"


def check_shape(shape: Shape) -> Shape:
    """Return ``(ny, nx)`` as integers; raise unless they are two positive whole numbers."""
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if len(sizes) != 2 or not all(is_whole(n) and n >= 1 for n in sizes):
        raise InputError(f"expected a mask shape of two positive integers (ny, nx), got {shape!r}")
    return int(sizes[0]), int(sizes[1])


def exact_budget(total: int, acceleration: float, what: str) -> int:
    """Return ``round(total / acceleration)``, the number of lines or samples of a mask."""
    if not (is_number(acceleration) and math.isfinite(acceleration) and acceleration >= 1):
        raise InputError(
            f"expected an acceleration of at least 1, got {acceleration!r}: it is the grid size "
            "divided by the number of samples, such as 4 for a quarter of them"
        )
    budget = round(total / acceleration)
    if budget < 1:
        raise InputError(
            f"acceleration {acceleration:g} leaves none of {total} {what}: lower the acceleration"
        )
    return budget


def check_center_fraction(center_fraction: float) -> None:
    """Validate that a fraction lies in [0, 1]."""
    if not (is_number(center_fraction) and 0 <= center_fraction <= 1):
        raise InputError(
            f"expected `center_fraction` between 0 and 1, got {center_fraction!r}: "
            "it is a share, such as 0.08 for 8 % of the lines"
        )


def check_center_fits(center: int, budget: int, what: str, acceleration: float) -> None:
    """Validate that the fully sampled center, which is part of the budget, does not exceed it."""
    if center > budget:
        raise InputError(
            f"the center alone has {center} {what}, more than the {budget} that acceleration "
            f"{acceleration:g} allows: lower center_fraction or the acceleration"
        )


def center_slice(size: int, count: int) -> slice:
    """Return the slice of ``count`` indices around the zero frequency ``size // 2``."""
    start = size // 2 - count // 2
    return slice(start, start + count)


def draw_batch(
    draw: Callable[[torch.Generator | None], Tensor],
    batch_size: int,
    generator: Generators,
) -> Tensor:
    """Call ``draw`` once per batch item and stack the results to ``(batch, 1, ny, nx)``."""
    return torch.stack([draw(item) for item in item_generators(batch_size, generator)])[:, None]


def item_generators(batch_size: int, generator: Generators) -> list[torch.Generator | None]:
    """Return the generator of each batch item.

    A single generator is used for one item after another, so that a batch equals the same number
    of successive single calls. A list provides one generator per item.
    """
    if not is_whole(batch_size) or batch_size < 1:
        raise InputError(f"expected a whole number as batch size of at least 1, got {batch_size!r}")
    if generator is None or isinstance(generator, torch.Generator):
        return [generator] * batch_size
    if not (
        isinstance(generator, Sequence)
        and all(isinstance(item, torch.Generator) for item in generator)
    ):
        raise InputError(
            "expected `generator` as a torch.Generator or a list of them, got "
            f"{type(generator).__name__}: for a seed use torch.Generator().manual_seed(seed)"
        )
    if len(generator) != batch_size:
        raise InputError(
            f"expected one generator or {batch_size}, one per mask, got {len(generator)}"
        )
    return list(generator)


def random_uniform(
    size: int | tuple[int, ...],
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Draw numbers in [0, 1) on the generator's device and return them on the CPU."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(size, generator=generator, device=device, dtype=dtype).cpu()


def weighted_choice(log_weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Draw ``count`` distinct indices one after another, in proportion to the weights.

    Uses the Gumbel top-k trick: the ``count`` largest ``log w_i + g_i`` with standard Gumbel
    ``g_i`` are distributed as successive draws without replacement (Efraimidis and Spirakis 2006).

    Args:
        log_weights: Log weights ``(n,)``, float64. An index with ``-inf`` is drawn only once no
            finite one is left.
        count: Number of indices.
        generator: Source of the draws.

    Returns:
        Indices ``(count,)``, int64.
    """
    uniform = random_uniform(log_weights.numel(), generator).clamp_min(1e-300)
    return (log_weights - torch.log(-torch.log(uniform))).topk(count).indices
