"""Detection of a coil axis at the wrong position."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.plausibility._kspace import sum_of_squares
from ctxrecon.plausibility._report import Finding

_MOST_COILS, _SOME_COILS = 128, 16
_COIL_PEAK = 4.0
"""Largest number of receivers in an array, smallest number that could be an axis of k-space, and
least energy of the middle coils relative to the mean."""

_LAST = (2.5, 2.0)
"""Thresholds for coils as last axis: energy in the middle of the coil axis relative to the mean (at
most 1.6 in correct scans), and energy in the middle or at the ends of the last axis."""


def check_coil_axis(kspace: Tensor) -> list[Finding]:
    """Detect coils that are not the axis before ``(ny, nx)``.

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex64.

    Raises:
        InputError: If the energy is distributed over the coils as over an axis of k-space, or if
            there are more coils than any array has.
    """
    coils, ny, nx = kspace.shape[1:]
    last = "use np.moveaxis(kspace, -1, -3) if the coils are the last axis"
    if coils <= min(ny, nx):
        if coils < _SOME_COILS or nx > _MOST_COILS:
            return []
        rows = sum_of_squares(kspace).sum(dim=1)
        ends = _middle(rows.roll(nx // 2, dims=-1))
        swapped = _middle(_coil_energy(kspace)) > _LAST[0]
        swapped &= torch.maximum(_middle(rows), ends) < _LAST[1]
        if not bool(swapped.all()):
            return []
        return [
            Finding(
                "the energy of k-space is in the middle coils and not in the middle of the last "
                f"axis, as if the latter were the {nx} coils: {last}"
            )
        ]
    if bool((_middle(_coil_energy(kspace)) > _COIL_PEAK).all()):
        raise InputError(
            f"expected k-space (batch, coils, ny, nx), got {coils} coils of {ny}x{nx} pixels, "
            f"with the energy in the middle coils like an axis of k-space: {last}"
        )
    if coils > _MOST_COILS:
        raise InputError(
            f"expected k-space (batch, coils, ny, nx), got {coils} coils of {ny}x{nx} pixels, more "
            f"than any array has: {last}, or kspace[:, None] if they are slices of one coil"
        )
    return [
        Finding(f"there are more coils ({coils}) than pixels ({ny}x{nx}) along an axis: {last}")
    ]


def _coil_energy(kspace: Tensor) -> Tensor:
    """Compute the energy of each coil, ``(batch, coils)``."""
    return sum_of_squares(kspace.flatten(2).mT[..., None])[..., 0]


def _middle(energy: Tensor) -> Tensor:
    """Compute the energy in the middle of the last axis relative to the mean."""
    size = energy.shape[-1]
    width = max(size // 16, 1)
    middle = energy[..., size // 2 - width : size // 2 + width + 1]
    return middle.mean(dim=-1) / energy.mean(dim=-1).clamp_min(1e-38)
