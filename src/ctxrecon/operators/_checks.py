"""Validation of arguments shared by the operators."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.operators.base import check_shape


def check_mask(mask: Tensor) -> None:
    if not isinstance(mask, Tensor):
        raise InputError(f"expected the mask as a torch tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        if bool(((mask == 0) | (mask == 1)).all()):
            raise InputError(f"expected a bool mask, got {mask.dtype}; convert it with mask.bool()")
        raise InputError(
            f"expected a bool mask, got {mask.dtype} with values other than 0 and 1; "
            "threshold or draw it first"
        )
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise InputError(
            f"expected a mask of shape (batch or 1, 1, ny, nx), got {tuple(mask.shape)}"
        )
    empty = [item for item, any_sample in enumerate(mask.flatten(1).any(dim=1)) if not any_sample]
    if empty or mask.numel() == 0:
        raise InputError(
            f"the mask samples nothing in batch items {empty}: include at least one sample"
        )


def check_coil_maps(coil_maps: Tensor, mask: Tensor) -> None:
    if not isinstance(coil_maps, Tensor):
        raise InputError(
            f"expected the coil maps as a torch tensor, got {type(coil_maps).__name__}"
        )
    if coil_maps.dtype != torch.complex64:
        raise InputError(
            f"expected complex64 coil maps, got {coil_maps.dtype}; "
            "convert them with coil_maps.to(torch.complex64)"
        )
    if coil_maps.ndim != 4 or coil_maps.shape[2:] != mask.shape[2:] or coil_maps.shape[1] < 1:
        expected = f"(batch or 1, coils, {mask.shape[2]}, {mask.shape[3]})"
        raise InputError(
            f"expected coil maps of shape {expected} to fit the mask, got {tuple(coil_maps.shape)}"
        )
    if coil_maps.shape[0] != mask.shape[0] and 1 not in {coil_maps.shape[0], mask.shape[0]}:
        raise InputError(
            f"the coil maps have batch {coil_maps.shape[0]} and the mask {mask.shape[0]}: "
            "make them equal, or one of them 1"
        )
    if coil_maps.device != mask.device:
        raise InputError(
            f"the coil maps are on {coil_maps.device} and the mask on {mask.device}: "
            "move them to one device"
        )
    if not bool(torch.isfinite(torch.view_as_real(coil_maps)).all()):
        raise InputError("the coil maps contain NaN or infinite values: estimate them again")


def check_complex64(value: Tensor, shape: tuple[int, ...], what: str) -> None:
    check_shape(value, shape, what)
    if value.dtype != torch.complex64:
        raise InputError(
            f"expected {what} of complex64, got {value.dtype}; convert it with .to(torch.complex64)"
        )


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether two shapes, batch first, are equal, where a batch of 1 matches any batch."""
    return one[1:] == other[1:] and (one[0] == other[0] or 1 in {one[0], other[0]})


def common_shape(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """Return the common shape of two matching shapes, either of which may have a batch of 1."""
    return (max(one[0], other[0]), *one[1:])
