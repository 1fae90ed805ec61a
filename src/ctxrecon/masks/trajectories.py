"""Non-Cartesian trajectories: where in k-space the samples of each readout lie.

All are ``(shots·samples, 2)`` float64, shot by shot, with columns ``(k_y, k_x)`` in radians per
pixel: the edge of the k-space of an image lies at π whatever its size, and a Cartesian grid of
``n`` lines has the spacing ``2π / n``.
"""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.masks.points import GOLDEN_ANGLE

_OUTER = (0.9, 0.97)
"""Of the largest radius: spokes of an even number of samples reach it at one end alone."""


def radial_trajectory(num_spokes: int, num_samples: int, *, golden_angle: bool = True) -> Tensor:
    """Full spokes through the zero frequency, from one edge of k-space to the other.

    Spoke ``s`` has ``k_j = 2π (j − N//2) / N`` in the direction ``(sin θ_s, cos θ_s)``: a
    Cartesian line of ``N = num_samples`` samples, turned by ``θ_s``. An image of ``n`` pixels needs
    ``N ≥ n``, ``2n`` with the usual readout oversampling, and is fully sampled by ``π n / 2``
    spokes.

    Args:
        num_spokes: number of spokes.
        num_samples: ``N``, samples of each spoke.
        golden_angle: ``θ_s = s · 111.246°`` (Winkelmann et al., IEEE Trans. Med. Imaging 26, 68,
            2007), nearly uniform for any number of spokes taken in a row, so that a scan may be
            cut anywhere; the default because most radial scans use it. Otherwise
            ``θ_s = s · 180° / num_spokes``, exactly uniform.

    Returns:
        ``(num_spokes · num_samples, 2)`` float64, ``|k| ≤ π``.

    Raises:
        InputError: a number that is no positive integer.
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
    """Spirals from the zero frequency outwards, at nearly constant speed along the arc.

    ``k = π τ^α``, ``θ = 2π (T τ + s / num_interleaves)`` with ``τ = (j / (N − 1))^(1/(α + 1))``,
    ``T = num_turns`` and ``α = alpha``: the part of a variable-density spiral readout that the
    gradient amplitude limits (Kim, Adalsteinsson and Spielman, MRM 50, 214, 2003); for ``α = 1``
    Archimedean (Glover, MRM 42, 412, 1999). The slower start that the slew rate allows is not
    modelled. An image of ``n`` pixels is fully sampled if ``num_interleaves · T ≥ α n / 2`` and
    ``N ≥ π n T / (α + 1)``; with fewer turns and ``α > 1`` its centre still is.

    Args:
        num_interleaves: number of spirals, evenly rotated.
        num_samples: ``N``, samples of each spiral, at least 2.
        num_turns: ``T``, turns of each spiral, positive.
        alpha: ``α``, positive; above 1 the centre is sampled more densely than the edge.

    Returns:
        ``(num_interleaves · num_samples, 2)`` float64, ``|k| ≤ π``.

    Raises:
        InputError: a number that is not of that range.
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
    """How many times fewer shots there are than the Nyquist criterion asks for at the edge.

    The distance between neighbouring paths far out in k-space, in units of the inverse field of
    view: the area there over the length of the paths in it. Of ``S`` full spokes it is
    ``π n / (2 S)``, of ``I`` Archimedean spirals of ``T`` turns ``n / (2 I T)``.

    Args:
        trajectory: ``(shots, samples, 2)`` in radians per pixel.
        shape: ``(ny, nx)`` of the image.

    Returns:
        Below 1 where k-space is sampled more densely; infinity where no path gets there.
    """
    size = torch.tensor(shape, dtype=torch.float64)
    radius = trajectory.norm(dim=-1)
    edge = float(radius.max())
    first, last = (share * edge for share in _OUTER)
    bounds = radius.clamp(first, last)
    span, inside = radius.diff(dim=1).abs(), bounds.diff(dim=1).abs()
    along = (radius[:, 1:] >= first) & (radius[:, 1:] <= last)  # steps that keep their radius
    share = torch.where(span > 1e-9 * edge, inside / span.clamp_min(1e-30), along.double())
    length = share * (trajectory.diff(dim=1) * size).norm(dim=-1) / (2 * math.pi)
    # Paths that diverge, as spokes do, are as far from one another as at the edge.
    crossed = float((length * (bounds[:, 1:] + bounds[:, :-1]) / 2).sum()) / max(edge, 1e-30)
    area = (last**2 - first**2) * math.prod(shape) / (4 * math.pi)
    return area / crossed if crossed > 0 else math.inf


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    """Radii and angles, broadcast to ``(shots, samples)``, as ``(shots·samples, 2)``."""
    return torch.stack([radius * torch.sin(angle), radius * torch.cos(angle)], dim=-1).flatten(0, 1)


def _count(value: int, name: str, least: int) -> int:
    if not isinstance(value, Integral) or value < least:
        raise InputError(f"expected {name} as an integer of at least {least}, got {value!r}")
    return int(value)
