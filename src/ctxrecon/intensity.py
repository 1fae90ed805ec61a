"""Intensity scale: the 99 % quantile of an image's magnitude, which is 1 in training.

Scanner images have arbitrary units. Phantoms and data sets are divided by this scale; pipelines,
networks and baselines divide k-space by the scale of a quick reconstruction.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

QUANTILE = 0.99


Interpolation: TypeAlias = Literal["order", "lower", "linear"]


def magnitude_quantile(images: Tensor, interpolation: Interpolation = "order") -> Tensor:
    """Compute the 99 % quantile of the magnitude of each image, ``(batch,)`` float32.

    Example:
        >>> import torch
        >>> from ctxrecon.intensity import magnitude_quantile
        >>> magnitude_quantile(torch.arange(1, 101.0)[None])
        tensor([99.])

    Args:
        images: Images of shape ``(batch, …)``, complex or real.
        interpolation: "order" is the smallest magnitude that 99 % of the pixels do not exceed;
            "lower" is the order statistic below the interpolated quantile, used for training
            images; "linear" interpolates between two pixels, as in the training of the networks
            that reconstruct directly. They differ by at most one rank.
    """
    magnitudes = images.detach().abs().flatten(1)
    if interpolation == "linear":
        return torch.quantile(magnitudes, QUANTILE, dim=1)
    number = magnitudes.shape[1]
    lower = int(QUANTILE * (number - 1)) + 1
    rank = lower if interpolation == "lower" else max(math.ceil(QUANTILE * number), 1)
    return magnitudes.kthvalue(rank, dim=1).values


def intensity_scale(images: Tensor, interpolation: Interpolation = "order") -> Tensor:
    """Compute the intensity scale of each image, the :func:`magnitude_quantile` if non-zero.

    If fewer than 1 % of the pixels are non-zero, as with point sources, the scale is the largest
    magnitude; for an empty image it is 1.

    Example:
        >>> import torch
        >>> from ctxrecon.intensity import intensity_scale
        >>> intensity_scale(torch.zeros(1, 8, 8))
        tensor([1.])

    Args:
        images: Images of shape ``(batch, …)``, complex or real.
        interpolation: Definition of the quantile; see :func:`magnitude_quantile`.

    Returns:
        Scales of shape ``(batch,)``, float32.
    """
    scale = magnitude_quantile(images, interpolation)
    scale = torch.where(scale > 0, scale, images.detach().abs().flatten(1).amax(dim=1))
    return torch.where(scale > 0, scale, 1.0)
