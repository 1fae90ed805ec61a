"""Coil maps of the slices of a scan, from their own k-space or from a separate calibration scan."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor

from ctxrecon.coils.calibration import estimate_coil_maps
from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)


def estimate_slice_maps(
    y: Tensor, mask: Tensor, filled: Tensor, calibration: Tensor | None = None
) -> Tensor:
    """Maps of the slices that hold signal; the same for every coil in the others.

    Args:
        y: ``(batch, coils, ny, nx)`` complex64, zero where not sampled.
        mask: ``(batch or 1, 1, ny, nx)`` bool.
        filled: ``(batch,)`` bool, the slices that hold signal.
        calibration: ``(batch or 1, coils, cy, cx)`` complex64, the center of a separate scan;
            ``None`` takes the calibration region of ``y``.

    Returns:
        ``(batch or 1, [2,] coils, ny, nx)``, one map for all slices where the calibration scan has
        one.

    Raises:
        InputError: no calibration region, or a calibration scan of other coils or slices.
    """
    batch, coils, ny, nx = y.shape
    same = torch.full_like(y, coils**-0.5)
    if not bool(filled.any()):
        return same
    if calibration is None:
        logger.info("no coil maps given: estimating them from the calibration region")
        found = estimate_coil_maps(y[filled], mask if len(mask) == 1 else mask[filled])
    else:
        if len(calibration) not in {1, batch} or calibration.shape[1] != coils:
            raise InputError(
                f"expected a calibration scan (batch or 1, coils, cy, cx) for k-space "
                f"{tuple(y.shape)}, got {tuple(calibration.shape)}: give one of the same coils, "
                "and of the same slices or of one"
            )
        if len(calibration) == 1:
            return maps_of_calibration(calibration, (ny, nx))
        found = maps_of_calibration(calibration[filled], (ny, nx))
    if bool(filled.all()):
        return found
    maps = same if found.ndim == 4 else torch.stack([same, torch.zeros_like(same)], dim=1)
    maps[filled] = found
    return maps


def maps_of_calibration(
    calibration: Tensor, shape: tuple[int, int], num_maps: Literal[1, "auto"] = "auto"
) -> Tensor:
    """Maps ``(batch, [2,] coils, ny, nx)`` from a separate calibration scan.

    Args:
        calibration: ``(batch, coils, cy, cx)`` complex, fully sampled, zero frequency at
            ``n // 2``, of the field of view of the images.
        shape: ``(ny, nx)`` of the images; what lies outside of their k-space is left out.
        num_maps: as in :func:`~ctxrecon.coils.estimate_coil_maps`.
    """
    logger.info(
        "no coil maps given: estimating them from a separate calibration scan of %d×%d samples",
        *calibration.shape[2:],
    )
    # It is the center of a scan that is not sampled elsewhere.
    own, there = [], []
    for size, full in zip(calibration.shape[2:], shape, strict=True):
        before = min(size // 2, full // 2)
        after = min(size - size // 2, full - full // 2)
        own.append(slice(size // 2 - before, size // 2 + after))
        there.append(slice(full // 2 - before, full // 2 + after))
    kspace = calibration.new_zeros((*calibration.shape[:2], *shape))
    mask = torch.zeros((1, 1, *shape), dtype=torch.bool, device=calibration.device)
    kspace[:, :, there[0], there[1]] = calibration[:, :, own[0], own[1]]
    mask[:, :, there[0], there[1]] = True
    return estimate_coil_maps(kspace, mask, num_maps=num_maps)
