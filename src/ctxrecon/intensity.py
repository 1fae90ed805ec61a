"""The intensity scale: the 99 % quantile of an image's magnitude, which is 1 in training.

Images of scanners have arbitrary units. Phantom and data sets divide by this scale, and pipelines,
networks and baselines divide k-space by that of a quick reconstruction.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor

QUANTILE = 0.99


Interpolation: TypeAlias = Literal["order", "lower", "linear"]


def magnitude_quantile(images: Tensor, interpolation: Interpolation = "order") -> Tensor:
    """99 % quantile of the magnitude of each image, ``(batch,)`` float32.

    Args:
        images: ``(batch, …)`` complex or real.
        interpolation: "order" takes the smallest magnitude that 99 % of the pixels do not exceed;
            "lower" the one below the interpolated quantile, by which training images are scaled;
            "linear" interpolates between two pixels, the scale that the networks which invert
            directly were trained with. They differ by one pixel's rank at most.
    """
    magnitudes = images.detach().abs().flatten(1)
    if interpolation == "linear":
        return torch.quantile(magnitudes, QUANTILE, dim=1)
    number = magnitudes.shape[1]
    lower = int(QUANTILE * (number - 1)) + 1
    rank = lower if interpolation == "lower" else max(math.ceil(QUANTILE * number), 1)
    return magnitudes.kthvalue(rank, dim=1).values


def intensity_scale(images: Tensor, interpolation: Interpolation = "order") -> Tensor:
    """Scale of each image, ``(batch,)`` float32: :func:`magnitude_quantile` where it is not zero.

    Where fewer than 1 % of the pixels are not zero, as with point sources, it is the largest
    magnitude, and 1 for an empty image.

    Args:
        images: ``(batch, …)`` complex or real.
        interpolation: see :func:`magnitude_quantile`.
    """
    scale = magnitude_quantile(images, interpolation)
    scale = torch.where(scale > 0, scale, images.detach().abs().flatten(1).amax(dim=1))
    return torch.where(scale > 0, scale, 1.0)
