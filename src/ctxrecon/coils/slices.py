"""Coil maps of the slices of a scan, from their own k-space or a separate calibration scan."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor

from ctxrecon.coils.calibration import estimate_coil_maps
from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)


def estimate_slice_maps(
    y: Tensor,
    mask: Tensor,
    filled: Tensor,
    calibration: Tensor | None = None,
    num_maps: Literal[1, "auto"] = "auto",
) -> Tensor:
    """Estimate coil maps of the slices with signal; the other slices get equal maps for all coils.

    Args:
        y: K-space of shape ``(batch, coils, ny, nx)``, complex64, zero where not sampled.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool.
        filled: Mask of the slices with signal, bool ``(batch,)``.
        calibration: Center of a separate calibration scan, ``(batch or 1, coils, cy, cx)``,
            complex64; ``None`` uses the calibration region of ``y``.
        num_maps: Number of sets of maps, 1 or "auto"; see
            :func:`~ctxrecon.coils.estimate_coil_maps`.

    Returns:
        Coil maps of shape ``(batch, [2,] coils, ny, nx)``, with batch 1 if the calibration scan has
        one slice.

    Raises:
        InputError: If there is no calibration region, or the calibration scan has other coils or
            slices.
    """
    batch, coils, ny, nx = y.shape
    if not bool(filled.any()):
        return in_all_slices(y[:0], filled)
    if calibration is None:
        logger.info("no coil maps given: estimating them from the calibration region")
        masks = mask if len(mask) == 1 else mask[filled]
        found = estimate_coil_maps(y[filled], masks, num_maps=num_maps)
    else:
        if len(calibration) not in {1, batch} or calibration.shape[1] != coils:
            raise InputError(
                f"expected a calibration scan (batch or 1, coils, cy, cx) for k-space "
                f"{tuple(y.shape)}, got {tuple(calibration.shape)}: pass one with the same coils "
                "and with the same slices or one slice"
            )
        if len(calibration) == 1:
            return maps_of_calibration(calibration, (ny, nx), num_maps)
        found = maps_of_calibration(calibration[filled], (ny, nx), num_maps)
    return in_all_slices(found, filled)


def in_all_slices(maps: Tensor, filled: Tensor) -> Tensor:
    """Return coil maps of all slices, with equal maps for all coils in slices without signal.

    Args:
        maps: Coil maps of the slices with signal, ``(slices, [2,] coils, ny, nx)``.
        filled: Mask of the slices with signal, bool ``(batch,)``.
    """
    if bool(filled.all()):
        return maps
    found = maps.new_zeros((len(filled), *maps.shape[1:]))
    first = found if found.ndim == 4 else found[:, 0]
    first.fill_(maps.shape[-3] ** -0.5)
    found[filled] = maps
    return found


def maps_of_calibration(
    calibration: Tensor, shape: tuple[int, int], num_maps: Literal[1, "auto"] = "auto"
) -> Tensor:
    """Estimate coil maps ``(batch, [2,] coils, ny, nx)`` from a separate calibration scan.

    Args:
        calibration: Calibration scan of shape ``(batch, coils, cy, cx)``, complex, fully sampled,
            zero frequency at ``n // 2``, with the field of view of the images.
        shape: Shape ``(ny, nx)`` of the images; samples outside their k-space are dropped.
        num_maps: Number of sets of maps, 1 or "auto"; see
            :func:`~ctxrecon.coils.estimate_coil_maps`.
    """
    logger.info(
        "no coil maps given: estimating them from a separate calibration scan of %d×%d samples",
        *calibration.shape[2:],
    )
    # Treated as the center of a scan without other samples
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
