"""The critic of the Wasserstein GAN paper."""

from __future__ import annotations

from itertools import pairwise

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from ctxrecon.errors import InputError, check_counts
from ctxrecon.fourier import complex_to_channels

_SLOPE = 0.2


class Critic(ModelMixin, ConfigMixin):
    """Seven convolutions and the mean of the last map as the score.

    Lei et al., IEEE Trans Med Imaging 40:105 (2021), figure 6: features 4, 8, 16 and 32 at strides
    of 2, then three more convolutions; leaky rectifiers, no normalisation, which a gradient
    penalty of each sample forbids.

    Args:
        magnitude: whether it sees magnitudes, one channel, or complex images, two.
        width: features of the first convolution, doubled by each of the next three.
    """

    @register_to_config
    def __init__(self, magnitude: bool = False, width: int = 4) -> None:
        super().__init__()
        check_counts(width=width)
        channels = [1 if magnitude else 2, *(width * 2**level for level in range(4))]
        last = channels[-1]
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(before, after, 3, stride=2, padding=1)
                for before, after in pairwise(channels)
            ]
            + [nn.Conv2d(last, after, 3, padding=1) for after in (last, last, 1)]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Score of each image, ``(batch,)``.

        Args:
            images: what :meth:`seen` gives.
        """
        features = images
        for layer in self.layers[:-1]:
            features = functional.leaky_relu(layer(features), _SLOPE)
        return self.layers[-1](features).flatten(1).mean(dim=1)

    def seen(self, images: Tensor) -> Tensor:
        """What the critic sees of images, ``(batch, 1 or 2, ny, nx)`` float32.

        Args:
            images: ``(batch, ny, nx)``, complex or, for a critic of magnitudes, real as well.

        Raises:
            InputError: real images for a critic of complex ones.
        """
        if self.config.magnitude:
            parts = torch.view_as_real(images) if images.is_complex() else images[..., None]
            # The root has no gradient at 0.
            return (parts.square().sum(dim=-1) + 1e-12).sqrt()[:, None]
        if not images.is_complex():
            raise InputError(
                "expected complex images for this critic, got magnitudes: build it with "
                "magnitude=True"
            )
        return complex_to_channels(images)
