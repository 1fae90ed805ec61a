"""A critic whose convolutions are normalized by their largest singular value."""

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
    """Pairs of convolutions, halved in size between, and the mean of the last map as the score.

    The Kantorovich potential of Wang et al., arXiv:2305.02774, of complex images as two channels.
    Every convolution is divided by the largest singular value of its kernel, which Miyato et al.
    (arXiv:1802.05957) take as a matrix ``(out, in · 9)``. That bounds the 3 × 3 convolution itself
    only up to a factor of ``√9 = 3``, so the score changes by at most :attr:`lipschitz` where an
    image does by 1, and usually by far less.

    Args:
        width: features at full size, doubled at each half of it up to four times as many.
        depth: sizes, each with two convolutions.
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
        """Bound of ``|D(a) − D(b)| / ‖a − b‖``: 3 for each convolution, ½ for each halving."""
        return 3.0 ** (2 * len(self.layers) + 1) * 0.5 ** (len(self.layers) - 1)

    def forward(self, images: Tensor) -> Tensor:
        """Score of each image, ``(batch,)``.

        Args:
            images: what :meth:`seen` gives.
        """
        features = images
        for level, convolutions in enumerate(self.layers):
            if level:
                features = functional.avg_pool2d(features, 2)
            for convolution in convolutions:  # type: ignore[attr-defined]
                features = functional.leaky_relu(convolution(features), _SLOPE)
        return self.last(features).flatten(1).mean(dim=1)

    def seen(self, images: Tensor) -> Tensor:
        """What the critic sees of complex images ``(batch, ny, nx)``, ``(batch, 2, ny, nx)``.

        Raises:
            InputError: real images, or ones with fewer pixels than the halvings leave one of.
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
