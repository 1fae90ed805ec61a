"""What all masks share: the exact budget, the centre, the random draws of a batch."""

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
    """``(ny, nx)`` as positive integers."""
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if len(sizes) != 2 or not all(is_whole(n) and n >= 1 for n in sizes):
        raise InputError(f"expected a mask shape of two positive integers (ny, nx), got {shape!r}")
    return int(sizes[0]), int(sizes[1])


def exact_budget(total: int, acceleration: float, what: str) -> int:
    """``round(total / acceleration)``, the number of lines or samples that a mask has."""
    if not (is_number(acceleration) and math.isfinite(acceleration) and acceleration >= 1):
        raise InputError(
            f"expected an acceleration of at least 1, got {acceleration!r}: "
            "it is the size of the grid over the number of samples, 4 for a quarter of them"
        )
    budget = round(total / acceleration)
    if budget < 1:
        raise InputError(
            f"acceleration {acceleration:g} leaves none of {total} {what}: lower the acceleration"
        )
    return budget


def check_center_fraction(center_fraction: float) -> None:
    """A fraction lies in [0, 1]."""
    if not (is_number(center_fraction) and 0 <= center_fraction <= 1):
        raise InputError(
            f"expected center_fraction between 0 and 1, got {center_fraction!r}: "
            "it is a share, 0.08 for 8 % of the lines"
        )


def check_center_fits(center: int, budget: int, what: str, acceleration: float) -> None:
    """The fully sampled centre is part of the budget and may not exceed it."""
    if center > budget:
        raise InputError(
            f"the centre alone has {center} {what}, more than the {budget} that acceleration "
            f"{acceleration:g} allows: lower center_fraction or the acceleration"
        )


def center_slice(size: int, count: int) -> slice:
    """``count`` indices around the zero frequency ``size // 2``."""
    start = size // 2 - count // 2
    return slice(start, start + count)


def draw_batch(
    draw: Callable[[torch.Generator | None], Tensor],
    batch_size: int,
    generator: Generators,
) -> Tensor:
    """Call ``draw`` once for each batch item and stack: ``(batch, 1, ny, nx)``."""
    return torch.stack([draw(item) for item in item_generators(batch_size, generator)])[:, None]


def item_generators(batch_size: int, generator: Generators) -> list[torch.Generator | None]:
    """The generator of each batch item.

    One generator is drawn from item after item, so a batch equals as many single calls in a
    row; a list has one generator for each item.
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
            "expected generator as a torch.Generator or a list of them, got "
            f"{type(generator).__name__}: for a seed give torch.Generator().manual_seed(seed)"
        )
    if len(generator) != batch_size:
        raise InputError(
            f"expected one generator or {batch_size}, one for each mask, got {len(generator)}"
        )
    return list(generator)


def random_uniform(
    size: int | tuple[int, ...],
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Numbers in [0, 1), drawn on the generator's device, given on the CPU."""
    device = "cpu" if generator is None else generator.device
    return torch.rand(size, generator=generator, device=device, dtype=dtype).cpu()


def weighted_choice(log_weights: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """``count`` distinct indices, drawn one after the other in proportion to the weights.

    The Gumbel top-k trick: the ``count`` largest ``log w_i + g_i`` with standard Gumbel ``g_i``
    are distributed as successive draws without replacement (Efraimidis and Spirakis 2006).

    Args:
        log_weights: ``(n,)`` float64; ``-inf`` is never drawn while a finite one is left.
    """
    uniform = random_uniform(log_weights.numel(), generator).clamp_min(1e-300)
    return (log_weights - torch.log(-torch.log(uniform))).topk(count).indices
