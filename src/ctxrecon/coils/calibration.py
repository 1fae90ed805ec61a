"""Coil maps from the calibration region of the scan itself."""

from __future__ import annotations

import logging
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ctxrecon.coils._checks import check_kspace
from ctxrecon.coils._selection import Candidate, choose_settings, chosen_maps, kernel_for
from ctxrecon.coils._walsh import walsh
from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)

Settings: TypeAlias = (
    'tuple[tuple[int, int], float | Literal["auto"], float | Literal["auto"], Literal[1, 2]]'
)

MIN_CALIBRATION = 4
"""Smallest size of a calibration region along each axis."""

MAX_CALIBRATION = (48, 24)
"""Largest longer and shorter side of a calibration region that is found automatically.

Coil sensitivities vary slowly, so samples further out add noise and computation. With few lines, a
long readout window compensates for their number.
"""

_SQUARE = (24, 24)

SETTINGS: tuple[Settings, ...] = (
    # Largest region, threshold, crop, sets of maps
    (_SQUARE, 0.02, 0.9, 2),
    (_SQUARE, "auto", 0.95, 1),
    (_SQUARE, "auto", "auto", 1),
    (MAX_CALIBRATION, 0.02, 0.9, 2),
)
"""Settings compared for each slice, the default first.

One set with a strict crop suits scans with much air, one that keeps 99.5 % of the energy those with
dark regions, and the longer region objects that wrap.
"""


def find_calibration_region(
    mask: Tensor, *, max_size: tuple[int, int] = MAX_CALIBRATION
) -> tuple[slice, slice]:
    """Find the fully sampled rectangle around the k-space center ``(ny // 2, nx // 2)``.

    The region need not be square: a 1-D mask with 6 center lines has one of 48 × 6 samples. Among
    all rectangles that contain the center, it is the one with the most positions of a 4×4 kernel.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import find_calibration_region
        >>> mask = torch.zeros(32, 32, dtype=torch.bool)
        >>> mask[:, 12:20] = True
        >>> find_calibration_region(mask)
        (slice(0, 32, None), slice(12, 20, None))

    Args:
        mask: Sampling mask of shape ``(..., ny, nx)``, bool; the region is sampled in every item of
            the leading axes.
        max_size: Largest longer and shorter side of the region.

    Returns:
        ``(slice_y, slice_x)`` to index k-space.

    Raises:
        InputError: If fewer than 4×4 samples around the center are fully sampled.
    """
    if mask.ndim < 2 or mask.dtype != torch.bool:
        raise InputError(
            f"expected a bool mask (..., ny, nx), got {mask.dtype} of shape {tuple(mask.shape)}: "
            "convert it with mask.bool()"
        )
    sampled = mask.reshape(-1, *mask.shape[-2:]).all(dim=0).cpu().numpy()
    ny, nx = sampled.shape
    longest, shortest = max_size
    first_y, first_x = (max(0, n // 2 - longest // 2) for n in (ny, nx))
    window = sampled[first_y : first_y + longest, first_x : first_x + longest]
    center_y, center_x = ny // 2 - first_y, nx // 2 - first_x
    # For each row, contiguous samples to the left of the center, and from the center to the right
    left = np.cumprod(window[:, :center_x][:, ::-1], axis=1).sum(axis=1)
    right = np.cumprod(window[:, center_x:], axis=1).sum(axis=1)
    # Extents common to all rows from the center up to row -i, and down to row +j
    up_left, up_right = (
        np.minimum.accumulate(side[: center_y + 1][::-1]) for side in (left, right)
    )
    down_left, down_right = (np.minimum.accumulate(side[center_y:]) for side in (left, right))
    width_left = np.minimum.outer(up_left, down_left)
    width_right = np.minimum.outer(up_right, down_right)
    height = np.add.outer(np.arange(len(up_left)), np.arange(len(down_left))) + 1
    width = np.where(width_right > 0, width_left + width_right, 0)
    margin = MIN_CALIBRATION - 1
    positions = np.maximum(height - margin, 0) * np.maximum(width - margin, 0)
    up, down = np.unravel_index(np.argmax(positions), positions.shape)
    if positions[up, down] == 0:
        up, down = np.unravel_index(np.argmax(height * width), height.shape)
        found = (int(height[up, down]), int(width[up, down])) if width[up, down] else (0, 0)
        raise InputError(
            f"expected a fully sampled calibration region of at least {MIN_CALIBRATION}×"
            f"{MIN_CALIBRATION} samples around the k-space center ({ny // 2}, {nx // 2}), found "
            f"{found[0]}×{found[1]}: pass coil_maps or calibration, or sample more center lines "
            "(center_fraction)"
        )
    before_y, after_y = int(up), int(down) + 1
    before_x, after_x = int(width_left[up, down]), int(width_right[up, down])
    half = shortest // 2
    if before_y + after_y >= before_x + after_x:
        before_x, after_x = min(before_x, half), min(after_x, shortest - half)
    else:
        before_y, after_y = min(before_y, half), min(after_y, shortest - half)
    return (
        slice(ny // 2 - before_y, ny // 2 + after_y),
        slice(nx // 2 - before_x, nx // 2 + after_x),
    )


def estimate_coil_maps(
    kspace: Tensor,
    mask: Tensor | None = None,
    *,
    method: Literal["espirit", "walsh", "sigpy"] = "espirit",
    kernel_size: int = 6,
    threshold: float | Literal["auto"] = "auto",
    crop: float | Literal["auto"] = "auto",
    num_maps: Literal[1, 2, "auto"] = "auto",
) -> Tensor:
    """Estimate coil maps from the fully sampled center of undersampled k-space.

    Each slice is processed separately, with the calibration region of its own mask
    (:func:`find_calibration_region`). The kernel shrinks along an axis with few lines (3 for 6
    lines, 5 for 10). See :func:`ctxrecon.coils.espirit` for the method and the phase of the maps.
    Options set to "auto" are chosen for each slice among :data:`SETTINGS` by how well the maps
    predict held-out samples: the calibration region, the threshold, the crop and the number of
    sets of maps.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import estimate_coil_maps
        >>> kspace = torch.zeros(1, 4, 32, 32, dtype=torch.complex64)
        >>> kspace[..., 12:20, 12:20] = 1
        >>> estimate_coil_maps(kspace, num_maps=1).shape
        torch.Size([1, 4, 32, 32])

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex, any scale, zero where not
            sampled.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool; ``None`` uses the non-zero
            samples.
        method: ``"espirit"``; ``"walsh"``, cheaper and less exact
            (:func:`ctxrecon.coils.walsh`), without kernel and threshold; or ``"sigpy"`` for
            ``sigpy.mri.app.EspiritCalib``, whose calibration region is square: with few center
            lines its maps are poor or empty.
        kernel_size: Largest kernel size along an axis.
        threshold: Singular values below ``threshold`` times the largest are treated as noise.
            ``"auto"`` compares 0.02 with the optimal threshold for white noise (0.02 for
            ``method="sigpy"``).
        crop: Eigenvalue below which maps are zero; 0 disables cropping. BART's default is 0.8,
            sigpy's 0.95. ``"auto"`` compares 0.9, 0.95, and the strictest value up to 0.95 that
            keeps 99.5 % of the calibration image's energy; ``method="walsh"`` always uses the last
            (and ``method="sigpy"`` 0.95). Excluding empty regions helps a reconstruction, but
            cropping signal ruins it.
        num_maps: Number of sets of maps: 1, or 2 for a field of view that is smaller than the
            object (``method="espirit"`` only). ``"auto"`` uses two sets for slices where they
            predict better and at least 0.5 % of the pixels have a second map.

    Returns:
        Coil maps of shape ``(batch, coils, ny, nx)``, complex64, with ``Σ_c |S_c|² = 1`` except
        where cropped. Two sets have shape ``(batch, 2, coils, ny, nx)``, orthonormal at each pixel,
        for :class:`ctxrecon.operators.SoftSense`; with ``num_maps="auto"`` they are returned if any
        slice needs them, and the second is zero for the other slices. The map of a single coil is
        one everywhere.

    Raises:
        InputError: If k-space, mask or options are malformed, options exclude each other, or there
            is no calibration region.
    """
    check_kspace(kspace)
    if method not in ("espirit", "walsh", "sigpy"):
        raise InputError(
            f'expected method "espirit", "walsh" or "sigpy", got {method!r}: use one of them'
        )
    if num_maps not in (1, 2, "auto"):
        raise InputError(f'expected num_maps of 1, 2 or "auto", got {num_maps!r}: use one of them')
    if num_maps == 2 and method != "espirit":
        raise InputError(
            f'expected method "espirit" for num_maps=2, got {method!r}: '
            "the others return one set of maps"
        )
    _check_options(kernel_size, threshold, crop)
    batch, coils, ny, nx = kspace.shape
    if coils == 1:
        if num_maps == 2:
            raise InputError(
                "expected at least two coils for num_maps=2, got one: leave num_maps out"
            )
        logger.info("a single coil: its map is one everywhere")
        return torch.ones(kspace.shape, dtype=torch.complex64, device=kspace.device)
    if mask is None:
        mask = (kspace != 0).any(dim=1, keepdim=True)
        logger.info("no mask given: treating the nonzero samples of k-space as sampled")
    elif mask.shape[0] not in (1, batch) or tuple(mask.shape[1:]) != (1, ny, nx):
        raise InputError(
            f"expected a mask (batch or 1, 1, ny, nx) for k-space {tuple(kspace.shape)}, got "
            f"{tuple(mask.shape)}: pass one mask for each slice or one for all"
        )
    kspace = kspace.to(torch.complex64)
    limits = _SQUARE if method == "sigpy" else MAX_CALIBRATION  # sigpy's region is square
    maps = []
    for number in range(batch):
        item, sampled = kspace[number : number + 1], mask[min(number, len(mask) - 1)][None]
        region = find_calibration_region(sampled, max_size=limits)
        calibration = item[:, :, region[0], region[1]]
        if not bool((calibration != 0).any()):
            raise InputError(
                f"expected signal in the calibration region, got only zeros in slice {number}: "
                "leave this slice out"
            )
        if method == "walsh":
            maps.append(walsh(calibration, (ny, nx), crop=crop))
        elif method == "sigpy":
            maps.append(_sigpy_maps(item, region, kernel_size, threshold, crop))
        else:
            chosen = choose_settings(
                item,
                sampled,
                _candidates(sampled, threshold, crop, num_maps),
                kernel_size=kernel_size,
            )
            logger.info(
                "coil maps of slice %d: calibration region %d×%d, kernel %d×%d, threshold %s, "
                "crop %s, %s",
                number,
                *(part.stop - part.start for part in chosen.region),
                *kernel_for(chosen.region, kernel_size),
                chosen.threshold,
                chosen.crop,
                "one set" if chosen.num_maps == 1 else "two sets",
            )
            maps.append(
                chosen_maps(item, chosen, kernel_size=kernel_size, negligible=num_maps == "auto")
            )
    return _joined(maps)


def _candidates(
    mask: Tensor,
    threshold: float | Literal["auto"],
    crop: float | Literal["auto"],
    num_maps: Literal[1, 2, "auto"],
) -> list[Candidate]:
    """Return the settings to compare for a mask, with the given values in place of "auto"."""
    candidates: list[Candidate] = []
    for limits, default_threshold, default_crop, sets in SETTINGS:
        candidate = Candidate(
            find_calibration_region(mask, max_size=limits),
            default_threshold if threshold == "auto" else threshold,
            default_crop if crop == "auto" else crop,
            sets if num_maps == "auto" else num_maps,
        )
        if candidate not in candidates:
            candidates.append(candidate)
    return candidates


def _joined(maps: list[Tensor]) -> Tensor:
    """Concatenate the maps of slices; if any has two sets, the others get a zero second set."""
    if any(item.ndim == 5 for item in maps):
        maps = [
            item if item.ndim == 5 else torch.stack([item, torch.zeros_like(item)], dim=1)
            for item in maps
        ]
    return torch.cat(maps)


def _check_options(kernel_size: int, threshold: float | str, crop: float | str) -> None:
    if kernel_size < 2:
        raise InputError(
            f"expected kernel_size of at least 2, got {kernel_size}: 6 suits most arrays"
        )
    if threshold != "auto" and (isinstance(threshold, str) or not 0 < threshold < 1):
        raise InputError(
            f'expected threshold "auto" or between 0 and 1, got {threshold!r}: leave it at "auto"'
        )
    if crop != "auto" and (isinstance(crop, str) or not 0 <= crop <= 1):
        raise InputError(
            f'expected crop "auto" or between 0 and 1, got {crop!r}: 0 keeps the whole image'
        )


def _sigpy_maps(
    kspace: Tensor,
    region: tuple[slice, slice],
    kernel_size: int,
    threshold: float | str,
    crop: float | str,
) -> Tensor:
    from sigpy.mri.app import EspiritCalib

    width = min(part.stop - part.start for part in region)
    maps = EspiritCalib(
        kspace[0].cpu().numpy(),
        calib_width=width,
        kernel_width=min(kernel_for(region, kernel_size)),
        thresh=0.02 if threshold == "auto" else threshold,
        crop=0.95 if crop == "auto" else crop,
        show_pbar=False,
    ).run()
    return torch.as_tensor(maps, dtype=torch.complex64, device=kspace.device)[None]
