"""2-D masks: single samples of the phase-encoding plane ``(ny, nx)``.

Each mask has exactly ``round(ny * nx / acceleration)`` samples. They include the fully sampled
center, a box of ``round(ny * center_fraction)`` by ``round(nx * center_fraction)`` samples around
the zero frequency ``(ny // 2, nx // 2)``.
"""

from __future__ import annotations

import math

import numpy as np
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

_DENSITY_POWER = 3
# Poisson disks at the edge of k-space are three times as wide as at its center.
_EDGE_TO_CENTER = 3.0
_SIGPY_TOLERANCE = 0.1  # absolute tolerance of the acceleration, sigpy's default
GOLDEN_ANGLE = math.pi * (math.sqrt(5.0) - 1.0) / 2.0


def variable_density2d(
    shape: Shape,
    acceleration: float,
    center_fraction: float = 0.08,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Draw independent samples with the density ``(1 - |k|)³`` and add the center.

    ``|k|`` is 0 at the zero frequency and 1 in the corners. The polynomial density follows
    Lustig, Donoho and Pauly (2007).

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: ``ny * nx`` divided by the number of samples, center included.
        center_fraction: Side of the fully sampled box as a share of each axis.
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
        >>> from ctxrecon.masks import variable_density2d
        >>> mask = variable_density2d((64, 64), acceleration=8)
        >>> mask.shape, int(mask.sum())
        (torch.Size([1, 1, 64, 64]), 512)
    """
    sizes, budget, center = point_budget(shape, acceleration, center_fraction)
    radius = torch.from_numpy(_radius(sizes)) / math.sqrt(2.0)
    # The floor keeps a non-zero probability in the outermost corner, as acceleration 1 requires.
    log_weights = _DENSITY_POWER * torch.log((1.0 - radius).clamp_min(1e-6))
    return _weighted_points(log_weights, budget, center, batch_size, generator)


def uniform2d(
    shape: Shape,
    acceleration: float,
    center_fraction: float = 0.08,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Draw samples with equal probability and add the center.

    This is the incoherent sampling of Candès, Romberg and Tao (2006) and the weakest baseline of
    InfoMRI, which uses it without a center (``center_fraction=0``). Arguments, result and errors
    are identical to :func:`variable_density2d`.

    Example:
        >>> from ctxrecon.masks import uniform2d
        >>> int(uniform2d((64, 64), acceleration=8, center_fraction=0).sum())
        512
    """
    sizes, budget, center = point_budget(shape, acceleration, center_fraction)
    log_weights = torch.zeros(sizes, dtype=torch.float64)
    return _weighted_points(log_weights, budget, center, batch_size, generator)


def poisson_disk2d(
    shape: Shape,
    acceleration: float,
    center_fraction: float = 0.08,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Draw variable-density Poisson-disk samples in the ellipse of k-space and add the center.

    Samples are random but never closer than a radius that grows from the center of k-space to its
    edge: ``r(k) = s (1 + 2|k|)`` with ``|k| = 1`` on the ellipse. Grid points are visited in
    random order and kept unless a previously kept one forbids them (Bridson 2007 on a grid; as in
    sigpy, the corners are left out). ``s`` is searched until slightly more samples than the budget
    are kept. The surplus, the samples kept last, is then removed: this violates no minimum
    distance and makes the budget exact. Arguments and result are identical to
    :func:`variable_density2d`.

    Raises:
        InputError: If an argument is invalid, as in :func:`variable_density2d`, or if the budget
            exceeds the ellipse, which covers ``π / 4`` of the grid.

    Example:
        >>> from ctxrecon.masks import poisson_disk2d
        >>> int(poisson_disk2d((64, 64), acceleration=8).sum())
        512
    """
    sizes, budget, center = point_budget(shape, acceleration, center_fraction)
    radius = _radius(sizes)
    allowed = (radius <= 1.0) | center.numpy()
    if budget > allowed.sum():
        raise InputError(
            f"the ellipse of k-space has {int(allowed.sum())} samples, fewer than the {budget} of "
            f"acceleration {acceleration:g}: raise the acceleration or use variable_density2d"
        )

    def draw(item: torch.Generator | None) -> Tensor:
        order = torch.argsort(random_uniform(radius.size, item)).numpy()
        return torch.from_numpy(_poisson_disk(radius, allowed, center.numpy(), order, budget))

    return draw_batch(draw, batch_size, generator)


def poisson2d_sigpy(
    shape: Shape,
    acceleration: float,
    center_fraction: float = 0.08,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Draw masks with :func:`sigpy.mri.poisson`, as in ContextMRI's 2-D experiments.

    These masks are denser at the center of k-space than :func:`poisson_disk2d`. The acceleration
    of sigpy's mask is within 0.1 of the requested one, or within a tenth of it on small grids.
    Random samples outside the center are then removed, or added inside the ellipse, until the
    budget is exact. Arguments and result are identical to :func:`variable_density2d`.

    Raises:
        InputError: If an argument is invalid, as in :func:`variable_density2d`, or if sigpy does
            not reach the acceleration.

    Example:
        >>> from ctxrecon.masks import poisson2d_sigpy
        >>> int(poisson2d_sigpy((32, 32), acceleration=4).sum())  # doctest: +SKIP
        256
    """
    sizes, budget, center = point_budget(shape, acceleration, center_fraction)
    calibration = (round(sizes[0] * center_fraction), round(sizes[1] * center_fraction))
    inside = torch.from_numpy(_radius(sizes) <= 1.0)

    def draw(item: torch.Generator | None) -> Tensor:
        seed = int(torch.randint(2**31, (1,), generator=item))
        mask = _drawn_by_sigpy(sizes, acceleration, calibration, seed) | center
        surplus = int(mask.sum()) - budget
        changeable = mask & ~center if surplus > 0 else ~mask & inside
        weights = torch.where(changeable, 0.0, -torch.inf).flatten()
        if abs(surplus) > int(changeable.sum()):
            raise InputError(
                f"the ellipse of k-space has fewer samples than the {budget} of acceleration "
                f"{acceleration:g}: raise the acceleration or use variable_density2d"
            )
        changed = weighted_choice(weights, abs(surplus), item)
        mask.view(-1)[changed] = surplus < 0
        return mask

    return draw_batch(draw, batch_size, generator)


def _drawn_by_sigpy(shape: Shape, acceleration: float, calibration: Shape, seed: int) -> Tensor:
    """Return sigpy's mask ``(ny, nx)``, bool."""
    from sigpy.mri import poisson

    for tolerance in (_SIGPY_TOLERANCE, acceleration / 10):
        try:
            drawn = poisson(shape, acceleration, calibration, dtype=bool, seed=seed, tol=tolerance)
        except ValueError:
            continue
        return torch.from_numpy(drawn)
    raise InputError(
        f"sigpy found no Poisson mask of shape {shape} at acceleration {acceleration:g}: use "
        "poisson_disk2d or another acceleration"
    )


def radial2d(
    shape: Shape,
    acceleration: float,
    center_fraction: float = 0.0,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Draw radial spokes on the Cartesian grid, a golden angle apart, starting at a random angle.

    Spokes through the zero frequency are added until the budget is spent. The last one is acquired
    from the center outwards only as far as the samples reach, so that the budget is exact. Spokes
    end at the edge of the grid. Arguments, result and errors are identical to
    :func:`variable_density2d`, except that there is no fully sampled box by default.

    Example:
        >>> from ctxrecon.masks import radial2d
        >>> int(radial2d((64, 64), acceleration=8).sum())
        512
    """
    sizes, budget, center = point_budget(shape, acceleration, center_fraction)

    def draw(item: torch.Generator | None) -> Tensor:
        start = math.pi * float(random_uniform(1, item))
        return _spokes(sizes, budget, center, start)

    return draw_batch(draw, batch_size, generator)


def point_budget(
    shape: Shape, acceleration: float, center_fraction: float
) -> tuple[Shape, int, Tensor]:
    """Return the grid, the number of samples and the fully sampled box ``(ny, nx)``, bool.

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: Grid size divided by the number of samples.
        center_fraction: Side of the box as a share of each axis.

    Raises:
        InputError: If the shape, acceleration or fraction is invalid, or the box exceeds the
            budget.
    """
    ny, nx = check_shape(shape)
    budget = exact_budget(ny * nx, acceleration, "samples")
    check_center_fraction(center_fraction)
    center = torch.zeros(ny, nx, dtype=torch.bool)
    rows = center_slice(ny, round(ny * center_fraction))
    columns = center_slice(nx, round(nx * center_fraction))
    center[rows, columns] = True
    check_center_fits(int(center.sum()), budget, "samples", acceleration)
    return (ny, nx), budget, center


def _weighted_points(
    log_weights: Tensor, budget: int, center: Tensor, batch_size: int, generator: Generators
) -> Tensor:
    """Draw samples by their weights ``(ny, nx)`` and add the center."""
    outside = log_weights.masked_fill(center, -torch.inf).flatten()
    count = budget - int(center.sum())

    def draw(item: torch.Generator | None) -> Tensor:
        mask = center.clone()
        mask.view(-1)[weighted_choice(outside, count, item)] = True
        return mask

    return draw_batch(draw, batch_size, generator)


def _radius(shape: Shape) -> np.ndarray:
    """Return the elliptical ``|k|``, 0 at ``n // 2`` and 1 at the axis ends, ``(ny, nx)``."""
    ny, nx = shape
    ky = (np.arange(ny) - ny // 2) / max(ny / 2, 1)
    kx = (np.arange(nx) - nx // 2) / max(nx / 2, 1)
    return np.hypot(ky[:, None], kx[None, :])


def _poisson_disk(
    radius: np.ndarray, allowed: np.ndarray, center: np.ndarray, order: np.ndarray, budget: int
) -> np.ndarray:
    """Search the scale ``s`` by bisection; return a bool ``(ny, nx)`` with ``budget`` samples."""
    growth = 1.0 + (_EDGE_TO_CENTER - 1.0) * radius
    # From disks smaller than the grid spacing to disks as large as the grid.
    low, high = 1.0 / _EDGE_TO_CENTER, float(max(radius.shape))
    best = allowed
    # The number of samples is roughly proportional to 1 / s², so the first guess is good.
    scale = math.sqrt(max(0.16 * allowed.sum() / max(budget - center.sum(), 1), low**2))
    for _ in range(12):
        kept = _throw_darts(np.ceil((scale * growth) ** 2).astype(int), allowed, center, order)
        count = int(kept.sum())
        if count >= budget:
            low, best = scale, kept
            if count <= 1.01 * budget:
                break
        else:
            high = scale
        guess = scale * math.sqrt(count / (1.005 * budget))
        scale = guess if low < guess < high else math.sqrt(low * high)
    surplus = order[(best & ~center).flat[order]][budget - int(center.sum()) :]
    best = best.copy()
    best.flat[surplus] = False
    return best


def _throw_darts(
    disk: np.ndarray, allowed: np.ndarray, center: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Keep grid points in ``order`` unless one already kept lies closer than its radius.

    Args:
        disk: Squared distance below which a kept point forbids others, ``(ny, nx)`` int.
        allowed: Points that may be kept, ``(ny, nx)`` bool.
        center: Points that are always kept, ``(ny, nx)`` bool.
        order: Flat indices of all points in the order of their visit.
    """
    ny, nx = disk.shape
    reach = math.isqrt(int(disk[allowed].max()) - 1)
    reach = min(reach, max(ny, nx))
    width = nx + 2 * reach
    # Padding by the radius of the largest disk makes bounds checks unnecessary.
    forbidden = bytearray((ny + 2 * reach) * width)
    frame = np.frombuffer(forbidden, dtype=np.uint8)
    offset = np.arange(-reach, reach + 1)
    distance = offset[:, None] ** 2 + offset[None, :] ** 2
    flat_offset = offset[:, None] * width + offset[None, :]
    disks = {int(d): flat_offset[distance < d] for d in np.unique(disk[allowed]) if d > 1}

    kept = center.copy()
    candidates = order[(allowed & ~center).flat[order]]
    positions = (candidates // nx + reach) * width + candidates % nx + reach
    frame.reshape(-1, width)[reach : reach + ny, reach : reach + nx][center] = 1
    accepted = []
    for index, position, size in zip(
        candidates.tolist(), positions.tolist(), disk.flat[candidates].tolist(), strict=True
    ):
        if forbidden[position]:
            continue
        accepted.append(index)
        if size > 1:
            frame[disks[size] + position] = 1
    kept.flat[accepted] = True
    return kept


def _spokes(shape: Shape, budget: int, center: Tensor, start: float) -> Tensor:
    ny, nx = shape
    half = math.hypot(ny, nx) / 2.0
    steps = torch.arange(0.0, half + 1.0, 0.5, dtype=torch.float64)
    steps = torch.stack([steps, -steps], dim=1).flatten()  # outwards from the center, both ways
    num_spokes = max(1, budget // min(ny, nx))
    while True:
        angle = start + GOLDEN_ANGLE * torch.arange(num_spokes, dtype=torch.float64)[:, None]
        y = (ny // 2 + torch.round(steps * torch.sin(angle))).long()
        x = (nx // 2 + torch.round(steps * torch.cos(angle))).long()
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        visited = (y * nx + x)[inside]  # in acquisition order
        rank = torch.full((ny * nx,), visited.numel(), dtype=torch.long)
        rank.scatter_reduce_(0, visited, torch.arange(visited.numel()), "amin")
        rank[center.flatten()] = -1
        if int((rank < visited.numel()).sum()) >= budget:
            mask = torch.zeros(ny * nx, dtype=torch.bool)
            mask[torch.argsort(rank, stable=True)[:budget]] = True
            return mask.view(shape)
        num_spokes *= 2
