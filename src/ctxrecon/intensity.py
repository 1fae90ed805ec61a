"""The intensity scale: the 99 % quantile of an image's magnitude, which is 1 in training.

Images of scanners have arbitrary units. Phantom and data sets divide by this scale, and pipelines,
networks and baselines divide k-space by that of a quick reconstruction.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

QUANTILE = 0.99


def intensity_scale(
    images: Tensor, *, interpolation: Literal["order", "linear"] = "order"
) -> Tensor:
    """99 % quantile of the magnitude of each image, ``(batch,)`` float32.

    Where fewer than 1 % of the pixels are not zero, as with point sources, it is the largest
    magnitude, and 1 for an empty image.

    Args:
        images: ``(batch, …)`` complex or real.
        interpolation: "order" takes the smallest magnitude that 99 % of the pixels do not exceed;
            "linear" interpolates between two pixels, the scale that the networks which invert
            directly were trained with.
    """
    magnitudes = images.detach().abs().flatten(1)
    if interpolation == "linear":
        scale = torch.quantile(magnitudes, QUANTILE, dim=1)
    else:
        rank = max(math.ceil(QUANTILE * magnitudes.shape[1]), 1)
        scale = magnitudes.kthvalue(rank, dim=1).values
    scale = torch.where(scale > 0, scale, magnitudes.amax(dim=1))
    return torch.where(scale > 0, scale, 1.0)
