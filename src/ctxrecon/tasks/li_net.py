"""LI-Net: segmentation through a predicted latent."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from ctxrecon.errors import check_counts
from ctxrecon.tasks.halves import check_classes, check_size, decoder_half, encoder_half
from ctxrecon.tasks.segmenter import DeterministicSegmenter
from ctxrecon.tasks.zero_filled import as_channels, one_hot


class LINet(DeterministicSegmenter):
    """Autoencoder of segmentations, whose latent a second encoder predicts from k-space.

    Schlemper et al., MICCAI 2018, with the encoder and decoder used in InfoMRI's comparison. The
    decoder always returns a plausible segmentation. The encoder of segmentations is used in
    training only.

    Args:
        num_classes: Number of classes, background included.
        width: Number of channels of the first level; the next two have twice and four times as
            many.
        depth: Number of levels; the latent is smaller than the image by ``2^(depth − 1)``.
        layers: Number of residual blocks per level; a decoder has one more.
        latent_channels: Number of latent channels.

    Raises:
        InputError: If a size is not a positive whole number, the width is odd, or there are fewer
            than two classes or levels.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import LINet
        >>> segmenter = LINet(num_classes=3, width=4, depth=2, layers=1)
        >>> zero_filled = torch.ones(1, 32, 32, dtype=torch.complex64)
        >>> noise = torch.zeros(1, 1, 0)  # the network is deterministic
        >>> segmenter(zero_filled, noise).shape
        torch.Size([1, 1, 3, 32, 32])
    """

    @register_to_config
    def __init__(
        self,
        num_classes: int = 2,
        width: int = 16,
        depth: int = 3,
        layers: int = 2,
        latent_channels: int = 16,
    ) -> None:
        super().__init__()
        check_counts(latent_channels=latent_channels)
        check_classes(num_classes)
        sizes = (width, depth, layers)
        self.encoder = encoder_half(2, latent_channels, *sizes, gaussian=False)
        self.label_encoder = encoder_half(num_classes - 1, latent_channels, *sizes, gaussian=False)
        self.decoder = decoder_half(latent_channels, num_classes, *sizes)

    def encode(self, zero_filled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the predicted latent ``(batch, latent_channels, ny/f, nx/f)`` and the scale."""
        check_size(zero_filled, self.config.depth)
        channels, scale = as_channels(self, zero_filled)
        return self.encoder(channels), scale

    def encode_labels(self, labels: Tensor) -> Tensor:
        """Return the latent of a segmentation.

        Args:
            labels: Integer labels z, ``(batch, ny, nx)``.
        """
        return self.label_encoder(one_hot(self, labels, self.config.num_classes))

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits, see :class:`~ctxrecon.tasks.segmenter.DeterministicSegmenter`."""
        return self.decoder(features).float()
