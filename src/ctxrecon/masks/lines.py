"""1-D Cartesian masks: whole readout lines, chosen along the phase-encode axis ``nx``.

Each has exactly ``round(nx / acceleration)`` lines, of which ``round(nx * center_fraction)`` are
the fully sampled centre around the zero frequency ``nx // 2``. Published code draws with
replacement or line by line, and its "×4" is often ×3.7 or ×4.5; here the number is exact.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.masks.budget import (
    Generators,
    Shape,
    center_slice,
    check_center_fits,
    check_center_fraction,
    check_shape,
    draw_batch,
    exact_budget,
    random_uniform,
    weighted_choice,
)

logger = logging.getLogger(__name__)

# 8 % at ×4 and 4 % at ×8, the protocol of fastMRI and of ContextMRI.
_CENTER_TIMES_ACCELERATION = 0.32
# Score-MRI and DDS: 15 lines of 128.
_GAUSSIAN_STD = 15.0 / 128.0


def uniform1d(
    shape: Shape,
    acceleration: float,
    center_fraction: float | None = None,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Lines drawn with equal probability, plus the centre: ContextMRI's "uniform 1D".

    "Uniform" names the distribution, as in the code of Score-MRI, DDS and ContextMRI; for
    *equally spaced* lines see :func:`equispaced1d`.

    Args:
        shape: ``(ny, nx)``; lines run along ``ny``.
        acceleration: ``nx`` over the number of lines, centre included.
        center_fraction: fully sampled share of ``nx``. By default ``0.32 / acceleration``: 8 %
            at ×4, 4 % at ×8.
        batch_size: number of masks, drawn independently.
        generator: one, drawn from mask after mask, or a list with one for each mask.

    Returns:
        ``(batch_size, 1, ny, nx)`` bool on the CPU, ``True`` where sampled.

    Raises:
        InputError: for a shape that is not two positive integers, an acceleration below 1, a
            fraction outside [0, 1], a centre beyond the budget, or too few generators.
    """
    ny, nx = check_shape(shape)
    num_lines, center = line_budget(nx, acceleration, center_fraction)
    log_weights = torch.zeros(nx, dtype=torch.float64)
    return _weighted_lines(log_weights, ny, num_lines, center, batch_size, generator)


def random1d(
    shape: Shape,
    acceleration: float,
    center_fraction: float | None = None,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """fastMRI's "random" mask at its exact budget: the same distribution as :func:`uniform1d`.

    fastMRI keeps each line outside the centre by a coin toss, so that only the *expected* number
    of lines is right. Given their number, tossed lines are a uniform draw without replacement,
    hence this is :func:`uniform1d` under the name that fastMRI's users know; arguments, result
    and errors are the same, and so are the masks of a given seed.
    """
    return uniform1d(
        shape, acceleration, center_fraction, batch_size=batch_size, generator=generator
    )


def gaussian1d(
    shape: Shape,
    acceleration: float,
    center_fraction: float | None = None,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Lines drawn with a Gaussian density around the zero frequency, plus the centre.

    The standard deviation is ``15 / 128`` of ``nx``, as in the code of Score-MRI and DDS; lines
    are distinct. Arguments, result and errors are those of :func:`uniform1d`.
    """
    ny, nx = check_shape(shape)
    num_lines, center = line_budget(nx, acceleration, center_fraction)
    distance = torch.arange(nx, dtype=torch.float64) - nx // 2
    log_weights = -0.5 * (distance / (_GAUSSIAN_STD * nx)) ** 2
    return _weighted_lines(log_weights, ny, num_lines, center, batch_size, generator)


def equispaced1d(
    shape: Shape,
    acceleration: float,
    center_fraction: float | None = None,
    *,
    offset: int | None = None,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Equally spaced lines, plus the centre.

    As in fastMRI's ``EquispacedMaskFractionFunc`` the spacing is widened so that the centre
    counts towards the budget: ``m`` lines are spread over the ``n`` lines outside the centre at
    ``floor(offset + i n / m)``, which is exact for any acceleration.

    Args:
        shape: ``(ny, nx)``; lines run along ``ny``.
        acceleration: ``nx`` over the number of lines, centre included.
        center_fraction: as in :func:`uniform1d`.
        offset: index of the first line, at least 0 and less than the spacing ``n / m``. ``None``
            draws it.
        batch_size: number of masks; they differ only where the offset is drawn.
        generator: as in :func:`uniform1d`.

    Returns:
        ``(batch_size, 1, ny, nx)`` bool on the CPU, ``True`` where sampled.

    Raises:
        InputError: as :func:`uniform1d`, and for an offset outside its range.
    """
    ny, nx = check_shape(shape)
    num_lines, center = line_budget(nx, acceleration, center_fraction)
    lines = torch.zeros(nx, dtype=torch.bool)
    lines[center_slice(nx, center)] = True
    outside = torch.nonzero(~lines)[:, 0]
    count = num_lines - center
    # In integers: -(-a // b) is the ceiling, the number of offsets below the spacing.
    num_offsets = -(-outside.numel() // count) if count else 1
    if offset is not None and not (isinstance(offset, int) and 0 <= offset < num_offsets):
        raise InputError(
            f"expected an offset from 0 to {num_offsets - 1}, below the spacing of the lines, "
            f"got {offset}"
        )

    def draw(item: torch.Generator | None) -> Tensor:
        first = offset
        if first is None:
            first = int(num_offsets * random_uniform(1, item))
        drawn = lines.clone()
        drawn[outside[first + torch.arange(count) * outside.numel() // max(count, 1)]] = True
        return drawn.expand(ny, nx)

    return draw_batch(draw, batch_size, generator)


def line_budget(nx: int, acceleration: float, center_fraction: float | None) -> tuple[int, int]:
    """Lines of a mask, and those of its centre, which are among them.

    Args:
        nx: lines of the grid.
        acceleration: ``nx`` over the number of lines.
        center_fraction: share of ``nx``; ``None`` for ``0.32 / acceleration``.

    Raises:
        InputError: an acceleration or a fraction that makes no sense, a centre beyond the budget.
    """
    num_lines = exact_budget(nx, acceleration, "lines")
    if center_fraction is None:
        center_fraction = _CENTER_TIMES_ACCELERATION / acceleration
        logger.info("no center_fraction given: %.3g of the lines", center_fraction)
    check_center_fraction(center_fraction)
    center = round(nx * center_fraction)
    check_center_fits(center, num_lines, "lines", acceleration)
    return num_lines, center


def _weighted_lines(
    log_weights: Tensor,
    ny: int,
    num_lines: int,
    center: int,
    batch_size: int,
    generator: Generators,
) -> Tensor:
    nx = log_weights.numel()
    log_weights[center_slice(nx, center)] = -torch.inf

    def draw(item: torch.Generator | None) -> Tensor:
        lines = torch.zeros(nx, dtype=torch.bool)
        lines[center_slice(nx, center)] = True
        lines[weighted_choice(log_weights, num_lines - center, item)] = True
        return lines.expand(ny, nx)

    return draw_batch(draw, batch_size, generator)
