"""LI-Net: the latent of the segmentation is predicted, and decoded."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from ctxrecon.errors import check_counts
from ctxrecon.tasks.halves import check_classes, check_size, decoder_half, encoder_half
from ctxrecon.tasks.segmenter import DeterministicSegmenter
from ctxrecon.tasks.zero_filled import as_channels, one_hot


class LINet(DeterministicSegmenter):
    """An autoencoder of segmentations, whose latent a second encoder predicts from k-space.

    Schlemper et al., MICCAI 2018, with the halves that InfoMRI compares it with: what is decoded is
    always a segmentation that there could be. The encoder of segmentations is for training alone.

    Args:
        num_classes: the background included.
        width: see :class:`~ctxrecon.tasks.LatentSegmenter`, as are the others.
        depth: likewise.
        layers: likewise.
        latent_channels: likewise.

    Raises:
        InputError: as there.
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
        """The latent that is predicted, ``(batch, latent_channels, ny/f, nx/f)``, and the scale."""
        check_size(zero_filled, self.config.depth)
        channels, scale = as_channels(self, zero_filled)
        return self.encoder(channels), scale

    def encode_labels(self, labels: Tensor) -> Tensor:
        """The latent of a segmentation.

        Args:
            labels: z, ``(batch, ny, nx)`` whole numbers.
        """
        return self.label_encoder(one_hot(self, labels, self.config.num_classes))

    def logits(self, features: Tensor) -> Tensor:
        """See :class:`~ctxrecon.tasks.segmenter.DeterministicSegmenter`."""
        return self.decoder(features).float()
