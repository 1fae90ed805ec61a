"""Non-Cartesian trajectories: k-space coordinates of the samples of each readout.

Every trajectory is a float64 tensor ``(shots·samples, 2)``, shot by shot, with columns
``(k_y, k_x)`` in radians per pixel. The edge of k-space lies at π for any image size, and a
Cartesian grid of ``n`` lines has the spacing ``2π / n``.
"""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.masks.points import GOLDEN_ANGLE

_OUTER = (0.9, 0.97)
"""Share of the maximum radius; spokes with an even number of samples reach it at one end only."""


def radial_trajectory(num_spokes: int, num_samples: int, *, golden_angle: bool = True) -> Tensor:
    """Return full spokes through the zero frequency, from one edge of k-space to the other.

    Spoke ``s`` has ``k_j = 2π (j − N//2) / N`` along the direction ``(sin θ_s, cos θ_s)``: a
    Cartesian line of ``N = num_samples`` samples, rotated by ``θ_s``. An image of ``n`` pixels
    needs ``N ≥ n`` (``2n`` with the usual readout oversampling) and is fully sampled by
    ``π n / 2`` spokes.

    Args:
        num_spokes: Number of spokes.
        num_samples: Number of samples ``N`` of each spoke.
        golden_angle: Use ``θ_s = s · 111.246°`` (Winkelmann et al., IEEE Trans. Med. Imaging 26,
            68, 2007), which is nearly uniform for any number of consecutive spokes. This is the
            default, since most radial scans use it. Otherwise ``θ_s = s · 180° / num_spokes``,
            which is exactly uniform.

    Returns:
        Coordinates ``(num_spokes · num_samples, 2)`` in radians per pixel, float64, ``|k| ≤ π``.

    Raises:
        InputError: If a number is not a positive integer.

    Example:
        >>> from ctxrecon.masks import radial_trajectory
        >>> radial_trajectory(num_spokes=13, num_samples=128).shape
        torch.Size([1664, 2])
    """
    spokes = _count(num_spokes, "num_spokes", 1)
    samples = _count(num_samples, "num_samples", 1)
    step = GOLDEN_ANGLE if golden_angle else math.pi / spokes
    angle = step * torch.arange(spokes, dtype=torch.float64)[:, None]
    radius = 2 * math.pi / samples * (torch.arange(samples, dtype=torch.float64) - samples // 2)
    return _polar(radius, angle)


def spiral_trajectory(
    num_interleaves: int, num_samples: int, num_turns: float, *, alpha: float = 1.0
) -> Tensor:
    """Return spirals from the zero frequency outwards with nearly constant speed along the arc.

    ``k = π τ^α``, ``θ = 2π (T τ + s / num_interleaves)`` with ``τ = (j / (N − 1))^(1/(α + 1))``,
    ``T = num_turns`` and ``α = alpha``: the part of a variable-density spiral readout that is
    limited by the gradient amplitude (Kim, Adalsteinsson and Spielman, MRM 50, 214, 2003). For
    ``α = 1`` the spiral is Archimedean (Glover, MRM 42, 412, 1999). The slower start imposed by
    the slew rate is not modeled. An image of ``n`` pixels is fully sampled if
    ``num_interleaves · T ≥ α n / 2`` and ``N ≥ π n T / (α + 1)``. With fewer turns and ``α > 1``
    the center of k-space is still fully sampled.

    Args:
        num_interleaves: Number of spirals, evenly rotated.
        num_samples: Number of samples ``N`` of each spiral, at least 2.
        num_turns: Turns ``T`` of each spiral, positive.
        alpha: Exponent ``α``, positive. Above 1, the center is sampled more densely than the edge.

    Returns:
        Coordinates ``(num_interleaves · num_samples, 2)`` in radians per pixel, float64,
        ``|k| ≤ π``.

    Raises:
        InputError: If a number lies outside its range.

    Example:
        >>> from ctxrecon.masks import spiral_trajectory
        >>> spiral_trajectory(num_interleaves=4, num_samples=512, num_turns=8).shape
        torch.Size([2048, 2])
    """
    interleaves = _count(num_interleaves, "num_interleaves", 1)
    samples = _count(num_samples, "num_samples", 2)
    if not (math.isfinite(num_turns) and num_turns > 0):
        raise InputError(f"expected a positive num_turns, got {num_turns}")
    if not (math.isfinite(alpha) and alpha > 0):
        raise InputError(f"expected a positive alpha, got {alpha}")
    tau = torch.linspace(0, 1, samples, dtype=torch.float64) ** (1 / (alpha + 1))
    start = torch.arange(interleaves, dtype=torch.float64)[:, None] / interleaves
    return _polar(math.pi * tau**alpha, 2 * math.pi * (num_turns * tau + start))


def nyquist_undersampling(trajectory: Tensor, shape: tuple[int, int]) -> float:
    """Return the factor by which a trajectory undersamples the edge of k-space.

    The factor is the distance between neighboring paths at a large k-space radius, in units of the
    inverse field of view: the area of the outer ring divided by the length of the paths in it. It
    is ``π n / (2 S)`` for ``S`` full spokes and ``n / (2 I T)`` for ``I`` Archimedean spirals of
    ``T`` turns.

    Args:
        trajectory: Coordinates ``(shots, samples, 2)`` in radians per pixel.
        shape: Image size ``(ny, nx)``.

    Returns:
        Undersampling factor: below 1 if k-space is oversampled, infinity if no path reaches the
        edge.

    Example:
        >>> from ctxrecon.masks import nyquist_undersampling, radial_trajectory
        >>> spokes = radial_trajectory(50, 128, golden_angle=False).view(50, 128, 2)
        >>> round(nyquist_undersampling(spokes, (64, 64)), 1)
        2.0
    """
    size = torch.tensor(shape, dtype=torch.float64)
    radius = trajectory.norm(dim=-1)
    edge = float(radius.max())
    first, last = (share * edge for share in _OUTER)
    bounds = radius.clamp(first, last)
    span, inside = radius.diff(dim=1).abs(), bounds.diff(dim=1).abs()
    along = (radius[:, 1:] >= first) & (radius[:, 1:] <= last)  # steps at constant radius
    share = torch.where(span > 1e-9 * edge, inside / span.clamp_min(1e-30), along.double())
    length = share * (trajectory.diff(dim=1) * size).norm(dim=-1) / (2 * math.pi)
    # Diverging paths, such as spokes, are weighted by radius to match the distance at the edge.
    crossed = float((length * (bounds[:, 1:] + bounds[:, :-1]) / 2).sum()) / max(edge, 1e-30)
    area = (last**2 - first**2) * math.prod(shape) / (4 * math.pi)
    return area / crossed if crossed > 0 else math.inf


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    """Convert radii and angles, broadcast to ``(shots, samples)``, to ``(shots·samples, 2)``."""
    return torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=-1).flatten(0, 1)


def _count(value: int, name: str, least: int) -> int:
    if not isinstance(value, Integral) or value < least:
        raise InputError(f"expected `{name}` as an integer of at least {least}, got {value!r}")
    return int(value)
