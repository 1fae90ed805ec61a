"""Validation of arguments shared by this package."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError


def check_kspace(kspace: Tensor) -> None:
    """Validate that k-space ``(batch, coils, ny, nx)`` is complex and finite."""
    if not isinstance(kspace, Tensor):
        raise InputError(
            f"expected k-space as a torch tensor, got {type(kspace).__name__}: "
            "convert it with torch.as_tensor"
        )
    if kspace.ndim != 4 or not kspace.is_complex():
        raise InputError(
            "expected complex k-space (batch, coils, ny, nx), got "
            f"{kspace.dtype} of shape {tuple(kspace.shape)}: add the missing axes"
        )
    if kspace.numel() == 0:
        raise InputError(
            f"expected k-space with samples, got the empty shape {tuple(kspace.shape)}: "
            "check how it was read"
        )
    if not bool(torch.isfinite(torch.view_as_real(kspace)).all()):
        raise InputError(
            "expected finite k-space, got NaN or infinite samples: "
            "set samples that were not measured to zero and leave them out of the mask"
        )
