"""Quality of sampling masks without a reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError


def redundancy_ratio(mask: Tensor) -> Tensor:
    r"""Compute the fraction of samples whose point reflection is sampled as well.

    .. math::

        |S_2| \,/\, (|S_1| + |S_2|)

    InfoMRI, equation (43): S₂ contains the sampled positions whose reflection through the zero
    frequency is sampled, S₁ the others. For images that are real up to a smooth phase, a reflected
    sample is nearly the complex conjugate and adds little information. Positions that are their own
    reflection count as S₂, so that a symmetric mask has the ratio 1.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import redundancy_ratio
        >>> redundancy_ratio(torch.ones(1, 1, 8, 8, dtype=torch.bool))
        tensor([1.])

    Args:
        mask: Sampling mask of shape ``(batch, 1, ny, nx)``, or ``(batch, contrasts, 1, ny, nx)``
            for several contrasts, bool, zero frequency at ``n // 2``.

    Returns:
        Ratios of shape ``(batch,)`` or ``(batch, contrasts)``, float32.

    Raises:
        InputError: If the mask is not bool, has the wrong shape or samples nothing.
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
