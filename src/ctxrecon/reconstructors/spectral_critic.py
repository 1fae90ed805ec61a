"""Critic with spectrally normalized convolutions."""

from __future__ import annotations

from itertools import pairwise

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from ctxrecon.errors import InputError, check_counts
from ctxrecon.fourier import complex_to_channels
from ctxrecon.reconstructors.blocks import Convolution

_SLOPE = 0.2


class SpectralCritic(ModelMixin, ConfigMixin):
    """Spectrally normalized convolutional critic whose score is the mean of the last feature map.

    The Kantorovich potential of Wang et al., arXiv:2305.02774, on complex images as two channels:
    pairs of convolutions with average pooling between them. Every convolution is divided by the
    largest singular value of its kernel as a matrix ``(out, in · 9)`` (Miyato et al.,
    arXiv:1802.05957). This bounds the 3 × 3 convolution itself only up to a factor of ``√9 = 3``,
    so that :attr:`lipschitz` is an upper bound, and the actual slope is usually far smaller.

    Args:
        width: Number of features at full resolution, doubled at each downsampling step up to a
            factor of four.
        depth: Number of resolutions, each with two convolutions.

    Example:
        >>> import torch
        >>> from ctxrecon.reconstructors import SpectralCritic
        >>> critic = SpectralCritic(width=4, depth=3)
        >>> critic(critic.seen(torch.ones(2, 32, 32, dtype=torch.complex64))).shape
        torch.Size([2])
    """

    @register_to_config
    def __init__(self, width: int = 64, depth: int = 5) -> None:
        super().__init__()
        check_counts(width=width, depth=depth)
        channels = [2, *(width * min(2**level, 4) for level in range(depth))]
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    spectral_norm(Convolution(before, after)),
                    spectral_norm(Convolution(after, after)),
                ]
            )
            for before, after in pairwise(channels)
        )
        self.last = spectral_norm(Convolution(channels[-1], 1))

    @property
    def lipschitz(self) -> float:
        """Bound of ``|D(a) − D(b)| / ‖a − b‖``: a factor 3 per convolution, ½ per pooling."""
        return 3.0 ** (2 * len(self.layers) + 1) * 0.5 ** (len(self.layers) - 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the score of each image, ``(batch,)``.

        Args:
            images: Input channels as returned by :meth:`seen`.
        """
        features = images
        for level, convolutions in enumerate(self.layers):
            if level:
                features = functional.avg_pool2d(features, 2)
            for convolution in convolutions:  # type: ignore[attr-defined]
                features = functional.leaky_relu(convolution(features), _SLOPE)
        return self.last(features).flatten(1).mean(dim=1)

    def seen(self, images: Tensor) -> Tensor:
        """Convert complex images ``(batch, ny, nx)`` to the critic's input, ``(batch, 2, ny, nx)``.

        Raises:
            InputError: If the images are real, or too small for the number of resolutions.
        """
        if not images.is_complex():
            raise InputError("expected complex images for this critic, got magnitudes")
        least = 2 ** (len(self.layers) - 1)
        if min(images.shape[-2:]) < least:
            raise InputError(
                f"this critic halves images {len(self.layers) - 1} times: expected {least} pixels "
                f"or more along each axis, got {tuple(images.shape[-2:])}"
            )
        return complex_to_channels(images)
