"""2-D masks: single samples of the phase-encode plane ``(ny, nx)``.

Each has exactly ``round(ny * nx / acceleration)`` samples. The fully sampled centre is a box of
``round(ny * center_fraction)`` by ``round(nx * center_fraction)`` around the zero frequency
``(ny // 2, nx // 2)`` and is part of that number.
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
# Poisson disks at the edge of k-space are three times as wide as in the middle.
_EDGE_TO_CENTER = 3.0
_SIGPY_TOLERANCE = 0.1  # of the acceleration, sigpy's default
GOLDEN_ANGLE = math.pi * (math.sqrt(5.0) - 1.0) / 2.0


def variable_density2d(
    shape: Shape,
    acceleration: float,
    center_fraction: float = 0.08,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Independent samples whose density falls as ``(1 - |k|)³``, plus the centre.

    ``|k|`` is 0 at the zero frequency and 1 in the corners; the polynomial density is that of
    Lustig, Donoho and Pauly (2007).

    Args:
        shape: ``(ny, nx)``.
        acceleration: ``ny * nx`` over the number of samples, centre included.
        center_fraction: side of the fully sampled box, as a share of each axis.
        batch_size: number of masks, drawn independently.
        generator: one, drawn from mask after mask, or a list with one for each mask.

    Returns:
        ``(batch_size, 1, ny, nx)`` bool on the CPU, ``True`` where sampled.

    Raises:
        InputError: for a shape that is not two positive integers, an acceleration below 1, a
            fraction outside [0, 1], a centre beyond the budget, or too few generators.
    """
    sizes, budget, center = point_budget(shape, acceleration, center_fraction)
    radius = torch.from_numpy(_radius(sizes)) / math.sqrt(2.0)
    # The floor keeps the outermost corner possible, which acceleration 1 needs.
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
    """Samples drawn with equal probability, plus the centre.

    The incoherent sampling of Candès, Romberg and Tao (2006), and the weakest baseline of InfoMRI,
    there without a centre: ``center_fraction=0``. Arguments, result and errors are those of
    :func:`variable_density2d`.
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
    """Variable-density Poisson-disk samples in the ellipse of k-space, plus the centre.

    Samples are random but never closer than a radius that grows from the middle of k-space to
    its edge: ``r(k) = s (1 + 2|k|)``, with ``|k| = 1`` on the ellipse. Grid points are visited in
    random order and kept unless a kept one forbids them (Bridson 2007 on a grid; the corners are
    left out as in sigpy). ``s`` is searched until hardly more samples than the budget are kept,
    and the surplus, the last ones kept, is taken out again: that breaks no minimum distance, and
    the budget is exact. Arguments, result and errors are those of :func:`variable_density2d`.

    Raises:
        InputError: also where the budget exceeds the ellipse, which is ``π / 4`` of the grid.
    """
    sizes, budget, center = point_budget(shape, acceleration, center_fraction)
    radius = _radius(sizes)
    allowed = (radius <= 1.0) | center.numpy()
    if budget > allowed.sum():
        raise InputError(
            f"the ellipse of k-space has {int(allowed.sum())} samples, fewer than the {budget} of "
            f"acceleration {acceleration:g}: raise it, or use variable_density2d"
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
    """:func:`sigpy.mri.poisson`, the mask of ContextMRI's 2-D experiments, plus the centre.

    It is denser in the middle of k-space than :func:`poisson_disk2d`. sigpy's acceleration is
    within 0.1 of the one that was asked for, on small grids within a tenth of it: random samples
    outside the centre are then taken out, or added inside the ellipse, until the budget is exact.
    Arguments, result and errors are those of :func:`variable_density2d`.

    Raises:
        InputError: also for an acceleration that sigpy does not reach.
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
                f"{acceleration:g}: raise it, or use variable_density2d"
            )
        changed = weighted_choice(weights, abs(surplus), item)
        mask.view(-1)[changed] = surplus < 0
        return mask

    return draw_batch(draw, batch_size, generator)


def _drawn_by_sigpy(shape: Shape, acceleration: float, calibration: Shape, seed: int) -> Tensor:
    """Return sigpy's mask ``(ny, nx)``."""
    from sigpy.mri import poisson

    for tolerance in (_SIGPY_TOLERANCE, acceleration / 10):
        try:
            drawn = poisson(shape, acceleration, calibration, dtype=bool, seed=seed, tol=tolerance)
        except ValueError:
            continue
        return torch.from_numpy(drawn)
    raise InputError(
        f"sigpy has no Poisson mask of {shape} and acceleration {acceleration:g}: take "
        "poisson_disk2d, or another acceleration"
    )


def radial2d(
    shape: Shape,
    acceleration: float,
    center_fraction: float = 0.0,
    *,
    batch_size: int = 1,
    generator: Generators = None,
) -> Tensor:
    """Radial spokes rounded to the grid, the golden angle apart, the first at a random angle.

    As many spokes are laid through the zero frequency as the budget holds; the last one is
    acquired only from the middle as far as the samples reach, so that the budget is exact. Spokes
    end at the edge of the grid. Arguments, result and errors are those of
    :func:`variable_density2d`; the centre needs no box, and by default has none.
    """
    sizes, budget, center = point_budget(shape, acceleration, center_fraction)

    def draw(item: torch.Generator | None) -> Tensor:
        start = math.pi * float(random_uniform(1, item))
        return _spokes(sizes, budget, center, start)

    return draw_batch(draw, batch_size, generator)


def point_budget(
    shape: Shape, acceleration: float, center_fraction: float
) -> tuple[Shape, int, Tensor]:
    """Grid, samples of a mask, and the box that is always among them, ``(ny, nx)`` bool.

    Args:
        shape: ``(ny, nx)``.
        acceleration: size of the grid over the number of samples.
        center_fraction: share of each axis that the box has.

    Raises:
        InputError: a shape, acceleration or fraction that makes no sense, a box beyond the budget.
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
    """The centre, and as many samples by their ``(ny, nx)`` weights as the budget has left."""
    outside = log_weights.masked_fill(center, -torch.inf).flatten()
    count = budget - int(center.sum())

    def draw(item: torch.Generator | None) -> Tensor:
        mask = center.clone()
        mask.view(-1)[weighted_choice(outside, count, item)] = True
        return mask

    return draw_batch(draw, batch_size, generator)


def _radius(shape: Shape) -> np.ndarray:
    """Elliptical ``|k|``: 0 at ``n // 2``, 1 where an axis ends; ``(ny, nx)`` float64."""
    ny, nx = shape
    ky = (np.arange(ny) - ny // 2) / max(ny / 2, 1)
    kx = (np.arange(nx) - nx // 2) / max(nx / 2, 1)
    return np.hypot(ky[:, None], kx[None, :])


def _poisson_disk(
    radius: np.ndarray, allowed: np.ndarray, center: np.ndarray, order: np.ndarray, budget: int
) -> np.ndarray:
    """Search the scale ``s`` from above and below; ``(ny, nx)`` bool with ``budget`` samples."""
    growth = 1.0 + (_EDGE_TO_CENTER - 1.0) * radius
    # From every disk smaller than the grid spacing to disks as large as the grid.
    low, high = 1.0 / _EDGE_TO_CENTER, float(max(radius.shape))
    best = allowed
    # The number of samples falls about as 1 / s², so the first guess is good.
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
    """Keep grid points in ``order`` unless a kept one lies nearer than its radius.

    Args:
        disk: ``(ny, nx)`` int; a kept point forbids those at squared distance below it.
    """
    ny, nx = disk.shape
    reach = math.isqrt(int(disk[allowed].max()) - 1)
    reach = min(reach, max(ny, nx))
    width = nx + 2 * reach
    # A frame as wide as the largest disk spares the bounds checks.
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
    steps = torch.stack([steps, -steps], dim=1).flatten()  # from the middle outwards, both ways
    num_spokes = max(1, budget // min(ny, nx))
    while True:
        angle = start + GOLDEN_ANGLE * torch.arange(num_spokes, dtype=torch.float64)[:, None]
        y = (ny // 2 + torch.round(steps * torch.sin(angle))).long()
        x = (nx // 2 + torch.round(steps * torch.cos(angle))).long()
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        visited = (y * nx + x)[inside]  # in the order of acquisition
        rank = torch.full((ny * nx,), visited.numel(), dtype=torch.long)
        rank.scatter_reduce_(0, visited, torch.arange(visited.numel()), "amin")
        rank[center.flatten()] = -1
        if int((rank < visited.numel()).sum()) >= budget:
            mask = torch.zeros(ny * nx, dtype=torch.bool)
            mask[torch.argsort(rank, stable=True)[:budget]] = True
            return mask.view(shape)
        num_spokes *= 2
