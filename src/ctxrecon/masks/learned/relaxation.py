"""The mathematics that learned samplers share: rescaling, straight-through tosses, exact choice."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ctxrecon.masks.budget import random_uniform

# Left sides this near to 1 are enough positions to correct a count of tosses, but on small grids.
_NEAR = 1.1


def rescale(probabilities: Tensor, ratio: Tensor | float) -> Tensor:
    """Probabilities with the mean ``r``, differentiable in both.

    ``p r / p̄`` where ``p̄ ≥ r``, else ``1 − (1 − p)(1 − r) / (1 − p̄)``: the rescaling of LOUPE
    (Bahadir et al., IEEE Trans Comput Imaging 6:1139, 2020), which keeps them in [0, 1].

    Args:
        probabilities: p, ``(..., n)``.
        ratio: r, from 0 to 1, a number or ``(..., 1)``.

    Returns:
        ``(..., n)``, in [0, 1].
    """
    mean = probabilities.mean(dim=-1, keepdim=True)
    ratio = torch.as_tensor(ratio, dtype=probabilities.dtype, device=probabilities.device)
    # The branch that is not taken must stay finite, or its gradient would be 0 times infinity.
    lowered = probabilities * (ratio / mean.clamp_min(1e-12))
    raised = 1 - (1 - probabilities) * ((1 - ratio) / (1 - mean).clamp_min(1e-12))
    return torch.where(mean >= ratio, lowered, raised)


def straight_through(
    probabilities: Tensor, uniform: Tensor, slope: float, taken: Tensor | None = None
) -> Tensor:
    """``u ≤ p`` as 0 or 1, with the gradient of ``σ_s(p − u) = 1 / (1 + e^{−s (p − u)})``.

    JoJoNet (Zhao et al.), after equation (2), and LOUPE.

    Args:
        probabilities: p.
        uniform: u, of the same shape.
        slope: s.
        taken: bool, what to give in place of ``u ≤ p``.

    Returns:
        float32, 0 or 1.
    """
    if taken is None:
        taken = uniform <= probabilities
    soft = torch.sigmoid(slope * (probabilities - uniform))
    return taken.to(soft.dtype) + (soft - soft.detach())


def draw_uniform(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """float32 in [0, 1) on the CPU, one toss for each probability."""
    return random_uniform(shape, generator, torch.float32)


class ExactChoice:
    """The tosses ``u ≤ p``, with the threshold moved until a given number is taken.

    ``u ≤ p`` is ``u / (1 − u) · (1 − p) / p ≤ 1``; the positions where the left side is smallest
    are taken. That is Pareto sampling (Rosén, J Stat Plan Inference 62:159, 1997): for
    probabilities whose sum is that number, each position is taken with very nearly its p.

    Args:
        probabilities: p, ``(n,)`` on the CPU; 1 is always taken.
    """

    def __init__(self, probabilities: Tensor) -> None:
        self._odds = (1 - probabilities) / probabilities
        # Where the left side is surely, and possibly, small enough: one comparison for each draw.
        self._sure = 1 / (1 + _NEAR * self._odds)
        self._possible = 1 / (1 + self._odds / _NEAR)

    def __call__(self, uniform: Tensor, count: int) -> Tensor:
        """``(n,)`` bool with ``count`` positions.

        Args:
            uniform: u, ``(n,)``.
            count: at most n.
        """
        # About ``count`` are below the threshold, so that sorting a few near it spares sorting all.
        taken = uniform < self._sure
        # NumPy finds and counts them several times faster than torch.
        near = torch.from_numpy(np.flatnonzero((uniform < self._possible) ^ taken))
        missing = count - int(np.count_nonzero(taken.numpy()))
        if not 0 <= missing <= len(near):
            taken, near, missing = torch.zeros_like(taken), torch.arange(len(taken)), count
        few = uniform[near]
        key = few / (1 - few) * self._odds[near]
        taken[near[key.topk(missing, largest=False, sorted=False).indices]] = True
        return taken


def water_fill(shares: Tensor, mean: float, low: float, high: float) -> Tensor:
    """``clip(λ a_c, low, high)`` with the λ that gives the wanted mean.

    Where nothing is clipped this is ``C · mean · a_c / Σ a``, whose gradient by a it has in any
    case: a share at a bound would else have none, and never leave it.

    Args:
        shares: a, ``(C,)`` float64, positive.
        mean: between ``low`` and ``high``.
        low: at least 0.
        high: at least ``low``.

    Returns:
        ``(C,)`` float64.
    """
    total = mean * len(shares)
    with torch.no_grad():
        # The sum grows with λ, linearly between those λ at which a share meets a bound.
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
    """Whole numbers next to ``expected`` whose sum is ``total``, the sum of ``expected``."""
    values = expected.double()
    # Sums that are whole but for rounding stay whole.
    counts = torch.floor(values + 1e-6)
    order = torch.argsort(values - counts, descending=True, stable=True)
    counts[order[: total - int(counts.sum())]] += 1
    return [int(count) for count in counts]
