"""1-D Cartesian masks: whole readout lines, selected along the phase-encoding axis ``nx``.

Each mask has exactly ``round(nx / acceleration)`` lines, including ``round(nx * center_fraction)``
fully sampled lines around the zero frequency ``nx // 2``. Published code often draws with
replacement or line by line, so that a nominal ×4 is ×3.7 or ×4.5; here the number is exact.
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

# 8 % at ×4 and 4 % at ×8, as in fastMRI and ContextMRI.
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
    """Draw lines with equal probability and add the center (ContextMRI's "uniform 1D").

    "Uniform" refers to the distribution, as in the code of Score-MRI, DDS and ContextMRI. For
    *equally spaced* lines see :func:`equispaced1d`.

    Args:
        shape: Grid size ``(ny, nx)``; lines run along ``ny``.
        acceleration: ``nx`` divided by the number of lines, center included.
        center_fraction: Fully sampled share of ``nx`` (default: ``0.32 / acceleration``, which is
            8 % at ×4 and 4 % at ×8).
        batch_size: Number of masks, drawn independently.
        generator: A single generator, used for one mask after another, or a list with one
            generator per mask.

    Returns:
        Masks of shape ``(batch_size, 1, ny, nx)``, bool on the CPU, ``True`` where sampled.

    Raises:
        InputError: If the shape is not two positive integers, the acceleration is below 1, the
            fraction lies outside [0, 1], the center exceeds the budget, or the number of
            generators is not ``batch_size``.

    Example:
        >>> from ctxrecon.masks import uniform1d
        >>> mask = uniform1d((64, 64), acceleration=4)
        >>> mask.shape, int(mask[0, 0, 0].sum())
        (torch.Size([1, 1, 64, 64]), 16)
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
    """Draw fastMRI's "random" mask with an exact number of lines.

    fastMRI keeps each line outside the center with a fixed probability, so that only the
    *expected* number of lines is right. Given their number, such lines are a uniform draw without
    replacement, hence this function is :func:`uniform1d` under the name that fastMRI users know.
    Arguments, result, errors and the masks of a given seed are identical.

    Example:
        >>> from ctxrecon.masks import random1d
        >>> int(random1d((64, 64), acceleration=8)[0, 0, 0].sum())
        8
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
    """Draw lines with a Gaussian density around the zero frequency and add the center.

    The standard deviation is ``15 / 128`` of ``nx``, as in the code of Score-MRI and DDS; no line
    is drawn twice. Arguments, result and errors are identical to :func:`uniform1d`.

    Example:
        >>> from ctxrecon.masks import gaussian1d
        >>> int(gaussian1d((64, 64), acceleration=8)[0, 0, 0].sum())
        8
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
    """Return equally spaced lines together with the center.

    As in fastMRI's ``EquispacedMaskFractionFunc``, the spacing is widened so that the center
    counts towards the budget: ``m`` lines are spread over the ``n`` lines outside the center at
    ``floor(offset + i n / m)``, which is exact for any acceleration.

    Args:
        shape: Grid size ``(ny, nx)``; lines run along ``ny``.
        acceleration: ``nx`` divided by the number of lines, center included.
        center_fraction: Fully sampled share of ``nx`` (default: ``0.32 / acceleration``).
        offset: Index of the first line, at least 0 and less than the spacing ``n / m`` (default:
            drawn at random).
        batch_size: Number of masks. They differ only if the offset is drawn at random.
        generator: A single generator, used for one mask after another, or a list with one
            generator per mask.

    Returns:
        Masks of shape ``(batch_size, 1, ny, nx)``, bool on the CPU, ``True`` where sampled.

    Raises:
        InputError: If the shape, acceleration, fraction or generators are invalid, the center
            exceeds the budget, or the offset is outside its range.

    Example:
        >>> from ctxrecon.masks import equispaced1d
        >>> mask = equispaced1d((1, 16), acceleration=4, center_fraction=0.125, offset=0)
        >>> mask[0, 0, 0].nonzero()[:, 0].tolist()
        [0, 7, 8, 9]
    """
    ny, nx = check_shape(shape)
    num_lines, center = line_budget(nx, acceleration, center_fraction)
    lines = torch.zeros(nx, dtype=torch.bool)
    lines[center_slice(nx, center)] = True
    outside = torch.nonzero(~lines)[:, 0]
    count = num_lines - center
    # Integer arithmetic: -(-a // b) is the ceiling, the number of offsets below the spacing.
    num_offsets = -(-outside.numel() // count) if count else 1
    if offset is not None and not (isinstance(offset, int) and 0 <= offset < num_offsets):
        raise InputError(
            f"expected `offset` from 0 to {num_offsets - 1}, less than the spacing of the lines, "
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
    """Return the number of lines of a mask and the number of center lines among them.

    Args:
        nx: Number of lines of the grid.
        acceleration: ``nx`` divided by the number of lines of the mask.
        center_fraction: Fully sampled share of ``nx``; ``None`` for ``0.32 / acceleration``.

    Raises:
        InputError: If the acceleration is below 1, the fraction lies outside [0, 1], or the center
            exceeds the budget.
    """
    num_lines = exact_budget(nx, acceleration, "lines")
    if center_fraction is None:
        center_fraction = _CENTER_TIMES_ACCELERATION / acceleration
        logger.info("center_fraction not given, using %.3g of the lines", center_fraction)
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
