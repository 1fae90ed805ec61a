"""Coils that are not the axis before those of k-space."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.plausibility._kspace import sum_of_squares
from ctxrecon.plausibility._report import Finding

_MOST_COILS, _SOME_COILS = 128, 16
_COIL_PEAK = 4.0
"""Most receivers of an array, and so many that they could be an axis of k-space; energy of the
middle coils over the mean."""

_LAST = (2.5, 2.0)
"""Coils last: energy in the middle of the coil axis over the mean (right scans up to 1.6), and in
the middle or at the ends of the last axis."""


def check_coil_axis(kspace: Tensor) -> list[Finding]:
    """Coils that are not the axis before ``(ny, nx)``.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex64.

    Raises:
        InputError: coils whose energy is that of an axis of k-space, or more than any array has.
    """
    coils, ny, nx = kspace.shape[1:]
    last = "give np.moveaxis(kspace, -1, -3) where the coils are the last axis"
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
                "the energy of k-space lies in the middle coils, and not in the middle of the last "
                f"axis, as if that were the {nx} coils: {last}"
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
            f"than any array has: {last}, and kspace[:, None] where they are slices of one coil"
        )
    return [Finding(f"there are {coils} coils of {ny}x{nx} pixels, more than pixels: {last}")]


def _coil_energy(kspace: Tensor) -> Tensor:
    """Energy of each coil, ``(batch, coils)``."""
    return sum_of_squares(kspace.flatten(2).mT[..., None])[..., 0]


def _middle(energy: Tensor) -> Tensor:
    """Energy in the middle of the last axis over the mean."""
    size = energy.shape[-1]
    width = max(size // 16, 1)
    middle = energy[..., size // 2 - width : size // 2 + width + 1]
    return middle.mean(dim=-1) / energy.mean(dim=-1).clamp_min(1e-38)
