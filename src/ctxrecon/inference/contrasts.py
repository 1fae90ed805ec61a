"""Validation of several contrasts of one slice: k-space, masks, prompts and coil maps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike, as_tensor, check_kspace, check_mask
from ctxrecon.coils import estimate_coil_maps
from ctxrecon.emptiness import find_empty
from ctxrecon.errors import InputError
from ctxrecon.scan import FULLY_SAMPLED


def check_contrasts(kspace: ArrayLike) -> tuple[Tensor, tuple[int, int]]:
    """Validate k-space of several contrasts.

    Args:
        kspace: Complex k-space of shape ``(batch, contrasts, coils, ny, nx)`` or
            ``(contrasts, coils, ny, nx)``.

    Returns:
        K-space ``(batch, contrasts, coils, ny, nx)``, complex64, and its first two sizes.

    Raises:
        InputError: If the shape is wrong or :func:`~ctxrecon.arrays.check_kspace` fails.
    """
    y = as_tensor(kspace, "k-space")
    if y.ndim not in (4, 5):
        raise InputError(
            "expected k-space (batch, contrasts, coils, ny, nx) or (contrasts, coils, ny, nx), got "
            f"shape {tuple(y.shape)}"
        )
    y = y[(None,) * (5 - y.ndim)]
    leading = (y.shape[0], y.shape[1])
    return check_kspace(y.flatten(0, 1)).unflatten(0, leading), leading


def check_masks(mask: ArrayLike, y: Tensor) -> Tensor:
    """Validate the masks of several contrasts.

    Args:
        mask: Sampling mask, bool or 0 and 1, of shape ``(batch or 1, contrasts or 1, 1, ny, nx)``
            or ``(contrasts or 1, 1, ny, nx)``.
        y: K-space of shape ``(batch, contrasts, coils, ny, nx)``.

    Returns:
        Mask of shape ``(batch or 1, contrasts or 1, 1, ny, nx)``, bool.

    Raises:
        InputError: If the shape or the values are wrong.
    """
    masks = as_tensor(mask, "the mask")
    masks = masks[(None,) * (5 - masks.ndim)] if masks.ndim in (4, 5) else masks
    batch, contrasts, _, ny, nx = y.shape
    fits = masks.ndim == 5 and masks.shape[0] in (1, batch) and masks.shape[1] in (1, contrasts)
    if not fits or tuple(masks.shape[2:]) != (1, ny, nx):
        raise InputError(
            f"mask of shape {tuple(mask.shape)} does not fit k-space of shape {tuple(y.shape)}: "
            f"expected {(batch, contrasts, 1, ny, nx)}, {(contrasts, 1, ny, nx)} or 1 in place of "
            "batch or contrasts"
        )
    count = masks.shape[0] * masks.shape[1]
    checked = check_mask(masks.reshape(count, 1, ny, nx), (count, ny, nx))
    return checked.reshape(masks.shape)


def find_empty_contrasts(y: Tensor, masks: Tensor) -> Tensor:
    """Find the contrasts without signal, bool ``(batch, contrasts)``."""
    batch, contrasts = y.shape[:2]
    masks = masks.expand(batch, contrasts, -1, -1, -1)
    found = find_empty(y.flatten(0, 1), masks.flatten(0, 1)).to(y.device)
    return found.unflatten(0, (batch, contrasts))


def keep_measured(y: Tensor, masks: Tensor, empty: Tensor) -> Tensor:
    """Remove samples that were never measured from masks, such as those of partial Fourier scans.

    Args:
        y: K-space of shape ``(batch, contrasts, coils, ny, nx)``, at least nearly fully sampled.
        masks: Sampling masks of shape ``(batch, contrasts or 1, 1, ny, nx)``, bool.
        empty: Contrasts without signal, bool ``(batch, contrasts)``; their masks do not change.

    Raises:
        InputError: If most of a contrast's k-space is missing.
    """
    there = (y != 0).any(dim=2, keepdim=True) | empty[:, :, None, None, None]
    share = float(there.float().mean(dim=(2, 3, 4)).min())
    if share < FULLY_SAMPLED:
        raise InputError(
            f"only {100 * share:.0f} % of a contrast's k-space is not zero: the sampler needs "
            "fully sampled k-space; pass the mask of undersampled k-space"
        )
    return masks & there


def contrast_prompts(
    prompt: str | list[str] | list[list[str]] | None, leading: tuple[int, int]
) -> list[list[str]]:
    """Return the prompt of each slice and contrast, empty if none is given.

    Raises:
        InputError: If the number of prompts is wrong or a prompt is not a string.
    """
    batch, contrasts = leading
    if prompt is None or isinstance(prompt, str):
        return [[prompt or ""] * contrasts] * batch
    lists: list[Any] = list(prompt)
    if all(isinstance(text, str) for text in lists):
        lists = [lists] * batch
    right = len(lists) == batch and all(
        isinstance(one, list | tuple)
        and len(one) == contrasts
        and all(isinstance(text, str) for text in one)
        for one in lists
    )
    if not right:
        raise InputError(
            f"expected one prompt, one for each of the {contrasts} contrasts, or such a list for "
            f"each of the {batch} slices, got {prompt!r}"
        )
    return [list(one) for one in lists]


def shared_coil_maps(y: Tensor, masks: Tensor) -> Tensor:
    """Estimate shared coil maps from the contrast with the most signal.

    The signal is compared at positions that all contrasts sample.

    Args:
        y: K-space of shape ``(batch, contrasts, coils, ny, nx)``.
        masks: Sampling masks of shape ``(batch or 1, contrasts or 1, 1, ny, nx)``, bool.

    Returns:
        Coil maps of shape ``(batch, coils, ny, nx)``, complex64, for all contrasts.
    """
    masks = masks.expand(*y.shape[:2], -1, -1, -1)
    common = masks.all(dim=1)
    found = []
    for kspace, mask, center in zip(y, masks, common, strict=True):
        energy = (kspace * center).abs().square().flatten(1).sum(dim=1)
        best = int(energy.argmax())
        if not bool(energy[best] > 0):
            found.append(torch.full_like(kspace[:1], len(kspace[0]) ** -0.5))
            continue
        found.append(
            estimate_coil_maps((kspace[best] * mask[best])[None], mask[best][None], num_maps=1)
        )
    return torch.cat(found)
