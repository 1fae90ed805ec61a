"""Local polynomial interpolation as a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

_TAPS = 6


def lagrange_matrix(position: Tensor, points: int, *, periodic: bool) -> Tensor:
    """Return the matrix that interpolates ``points`` samples at 0, 1, 2, … at given positions.

    It uses Lagrange polynomials through the six nearest samples, with an error of sixth order in
    the spacing and without ringing beyond them. At the ends, samples continue periodically, or the
    six samples are taken from inside.

    Args:
        position: Coordinates of shape ``(size,)``, float64.
        points: Number of samples, at least 6.
        periodic: Whether sample ``points`` equals sample 0.

    Returns:
        Matrix of shape ``(size, points)``, float32, on the device of ``position``.
    """
    first = torch.floor(position) - (_TAPS // 2 - 1)
    if not periodic:
        first = first.clamp(0, points - _TAPS)
    taps = first[:, None] + torch.arange(_TAPS, device=position.device)
    distance = position[:, None] - taps
    weights = torch.ones_like(taps)
    for j in range(_TAPS):
        for k in range(_TAPS):
            if j != k:
                weights[:, j] *= distance[:, k] / (j - k)
    matrix = torch.zeros(len(position), points, dtype=torch.float64, device=position.device)
    return matrix.scatter_add_(1, taps.long() % points, weights).float()
