"""How good a mask is, without a reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError


def redundancy_ratio(mask: Tensor) -> Tensor:
    """``|S₂| / (|S₁| + |S₂|)``, the share of samples whose point reflection is sampled too.

    InfoMRI, equation (43): S₂ holds the sampled positions whose reflection through the zero
    frequency is sampled, S₁ the others. Where images are real but for a smooth phase, a reflected
    sample is nearly the complex conjugate and tells little that is new. A position that is its own
    reflection counts as S₂, so that a symmetric mask has the ratio 1.

    Args:
        mask: ``(batch, 1, ny, nx)``, or with several contrasts ``(batch, contrasts, 1, ny, nx)``,
            bool; zero frequency at ``n // 2``.

    Returns:
        ``(batch,)`` or ``(batch, contrasts)`` float32.

    Raises:
        InputError: a mask of another shape, not bool, or one that samples nothing.
    """
    if mask.dtype != torch.bool or mask.ndim not in {4, 5} or mask.shape[-3] != 1:
        raise InputError(
            "expected a bool mask (batch, 1, ny, nx) or (batch, contrasts, 1, ny, nx), got "
            f"{mask.dtype} {tuple(mask.shape)}"
        )
    mask = mask.squeeze(-3)
    samples = mask.sum(dim=(-2, -1))
    if not bool((samples > 0).all()):
        raise InputError("a mask that samples nothing has no redundancy ratio: leave it out")
    ny, nx = mask.shape[-2:]
    rows, columns = ((2 * (n // 2) - torch.arange(n, device=mask.device)) % n for n in (ny, nx))
    reflected = mask[..., rows[:, None], columns[None, :]]
    return (mask & reflected).sum(dim=(-2, -1)).float() / samples
