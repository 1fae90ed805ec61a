"""Rescaling, straight-through sampling and exact selection for learned samplers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ctxrecon.masks.budget import random_uniform

# Margin around the threshold; except on small grids it holds enough positions to fix the count.
_NEAR = 1.1


def rescale(probabilities: Tensor, ratio: Tensor | float) -> Tensor:
    """Rescale probabilities to the mean ``r``; differentiable in both.

    Returns ``p r / p̄`` if ``p̄ ≥ r``, otherwise ``1 − (1 − p)(1 − r) / (1 − p̄)``. This is the
    rescaling of LOUPE (Bahadir et al., IEEE Trans Comput Imaging 6:1139, 2020), which keeps the
    probabilities in [0, 1].

    Args:
        probabilities: Probabilities p of shape ``(..., n)``.
        ratio: Mean r from 0 to 1, a number or a tensor ``(..., 1)``.

    Returns:
        Rescaled probabilities ``(..., n)`` in [0, 1].

    Example:
        >>> import torch
        >>> from ctxrecon.masks.learned import rescale
        >>> rescale(torch.tensor([0.2, 0.6]), 0.2)
        tensor([0.1000, 0.3000])
    """
    mean = probabilities.mean(dim=-1, keepdim=True)
    ratio = torch.as_tensor(ratio, dtype=probabilities.dtype, device=probabilities.device)
    # Both branches must stay finite, or the gradient of the unused one is 0 times infinity.
    lowered = probabilities * (ratio / mean.clamp_min(1e-12))
    raised = 1 - (1 - probabilities) * ((1 - ratio) / (1 - mean).clamp_min(1e-12))
    return torch.where(mean >= ratio, lowered, raised)


def straight_through(
    probabilities: Tensor, uniform: Tensor, slope: float, taken: Tensor | None = None
) -> Tensor:
    """Return ``u ≤ p`` as 0 or 1, with the gradient of ``σ_s(p − u) = 1 / (1 + e^{−s (p − u)})``.

    Follows JoJoNet (Zhao et al.), after equation (2), and LOUPE.

    Args:
        probabilities: Probabilities p.
        uniform: Uniform random numbers u, of the same shape as ``probabilities``.
        slope: Slope s of the sigmoid.
        taken: Bool tensor returned in place of ``u ≤ p``.

    Returns:
        Decisions as float32, 0 or 1.
    """
    if taken is None:
        taken = uniform <= probabilities
    soft = torch.sigmoid(slope * (probabilities - uniform))
    return taken.to(soft.dtype) + (soft - soft.detach())


def draw_uniform(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Draw float32 numbers in [0, 1) on the CPU, one for each probability."""
    return random_uniform(shape, generator, torch.float32)


class ExactChoice:
    """The decisions ``u ≤ p``, with the threshold shifted until a given number is selected.

    ``u ≤ p`` is equivalent to ``u / (1 − u) · (1 − p) / p ≤ 1``; the positions with the smallest
    left-hand side are selected. This is Pareto sampling (Rosén, J Stat Plan Inference 62:159,
    1997): if the probabilities sum to that number, each position is selected with a probability
    very close to its p.

    Args:
        probabilities: Probabilities p of shape ``(n,)`` on the CPU. Positions with p = 1 are
            always selected.
    """

    def __init__(self, probabilities: Tensor) -> None:
        self._odds = (1 - probabilities) / probabilities
        # Bounds of u between which the exact comparison is needed: one comparison for each draw.
        self._sure = 1 / (1 + _NEAR * self._odds)
        self._possible = 1 / (1 + self._odds / _NEAR)

    def __call__(self, uniform: Tensor, count: int) -> Tensor:
        """Select ``count`` positions; return them as ``(n,)`` bool.

        Args:
            uniform: Uniform random numbers u of shape ``(n,)``.
            count: Number of positions, at most n.
        """
        # About ``count`` values are below the threshold; only the few close to it are sorted.
        taken = uniform < self._sure
        # NumPy is several times faster than torch here.
        near = torch.from_numpy(np.flatnonzero((uniform < self._possible) ^ taken))
        missing = count - int(np.count_nonzero(taken.numpy()))
        if not 0 <= missing <= len(near):
            taken, near, missing = torch.zeros_like(taken), torch.arange(len(taken)), count
        few = uniform[near]
        key = few / (1 - few) * self._odds[near]
        taken[near[key.topk(missing, largest=False, sorted=False).indices]] = True
        return taken


def water_fill(shares: Tensor, mean: float, low: float, high: float) -> Tensor:
    """Return ``clip(λ a_c, low, high)`` with the λ that yields the requested mean.

    The gradient with respect to a is that of the unclipped solution ``C · mean · a_c / Σ a``.
    Otherwise a share at a bound would have no gradient and could never leave it.

    Args:
        shares: Positive shares a of shape ``(C,)``, float64.
        mean: Requested mean, between ``low`` and ``high``.
        low: Lower bound, at least 0.
        high: Upper bound, at least ``low``.

    Returns:
        Clipped shares ``(C,)``, float64.
    """
    total = mean * len(shares)
    with torch.no_grad():
        # The sum grows piecewise linearly in λ; the knots are where a share reaches a bound.
        bends = torch.cat([low / shares, high / shares]).sort().values
        sums = (bends[:, None] * shares).clamp(low, high).sum(dim=1)
        piece = (int((sums <= total).sum()) - 1) if total > low * len(shares) else 0
        piece = min(max(piece, 0), len(bends) - 2)
        scaled = (bends[piece] + bends[piece + 1]) / 2 * shares
        filled = torch.full_like(shares, high).masked_fill(scaled <= low, low)
        free = (scaled > low) & (scaled < high)
        if bool(free.any()):
            level = (total - filled[~free].sum()) / shares[free].sum()
            filled = torch.where(free, level * shares, filled)
    unclipped = total * shares / shares.sum()
    return filled + (unclipped - unclipped.detach())


def largest_remainder(expected: Tensor, total: int) -> list[int]:
    """Round ``expected`` to whole numbers whose sum is ``total``, the sum of ``expected``."""
    values = expected.double()
    # Sums that are whole up to rounding errors stay whole.
    counts = torch.floor(values + 1e-6)
    order = torch.argsort(values - counts, descending=True, stable=True)
    counts[order[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]
