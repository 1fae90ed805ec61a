"""Critic of Lei et al.'s Wasserstein GAN."""

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
    """Convolutional critic whose score is the mean of the last feature map.

    Lei et al., IEEE Trans Med Imaging 40:105 (2021), figure 6: four convolutions of stride 2 with
    4, 8, 16 and 32 features, then three more convolutions, with leaky ReLUs. There is no
    normalization, because the gradient penalty is computed for each sample separately.

    Args:
        magnitude: If true, the input is the magnitude in one channel; otherwise a complex image in
            two.
        width: Number of features of the first convolution, doubled by each of the next three.

    Example:
        >>> import torch
        >>> from ctxrecon.reconstructors import Critic
        >>> critic = Critic()
        >>> critic(critic.seen(torch.ones(2, 32, 32, dtype=torch.complex64))).shape
        torch.Size([2])
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
        """Return the score of each image, ``(batch,)``.

        Args:
            images: Input channels as returned by :meth:`seen`.
        """
        features = images
        for layer in self.layers[:-1]:
            features = functional.leaky_relu(layer(features), _SLOPE)
        return self.layers[-1](features).flatten(1).mean(dim=1)

    def seen(self, images: Tensor) -> Tensor:
        """Convert images to the critic's input, ``(batch, 1 or 2, ny, nx)`` float32.

        Args:
            images: Images ``(batch, ny, nx)``, complex, or real for a critic of magnitudes.

        Raises:
            InputError: If real images are passed to a critic of complex ones.
        """
        if self.config.magnitude:
            parts = torch.view_as_real(images) if images.is_complex() else images[..., None]
            # The square root has no gradient at 0.
            return (parts.square().sum(dim=-1) + 1e-12).sqrt()[:, None]
        if not images.is_complex():
            raise InputError(
                "expected complex images for this critic, got magnitudes: build it with "
                "magnitude=True"
            )
        return complex_to_channels(images)
