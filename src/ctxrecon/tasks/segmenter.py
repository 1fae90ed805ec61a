"""Base classes of networks that segment from k-space."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor


class Segmenter(ModelMixin, ConfigMixin):
    """Network that draws segmentations from the zero-filled image.

    Its configuration has ``num_classes``, background included, and ``width``. Inputs are divided by
    the 99 % quantile of the zero-filled image's magnitude, so that the result does not depend on
    the intensity scale.
    """

    @abstractmethod
    def encode(self, zero_filled: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of the measurement and the intensity scale that was divided out.

        Args:
            zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64.

        Returns:
            Features, and the scale ``(batch, 1, 1)``.

        Raises:
            InputError: If the network does not support the matrix size.
        """

    @abstractmethod
    def draw_noise(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """Draw the noise of one sample per generator, ``(draws, …)`` on the CPU.

        Args:
            shape: Image size ``(ny, nx)``.
            generators: One generator per draw, so that results do not depend on the batch.
        """

    @abstractmethod
    def draws(self, features: Tensor, noise: Tensor) -> Tensor:
        """Return logits of segmentations, ``(batch, draws, num_classes, ny, nx)`` float32.

        Args:
            features: Features from :meth:`encode`.
            noise: Standard normal noise ``(batch, draws, …)``.
        """

    def forward(self, zero_filled: Tensor, noise: Tensor) -> Tensor:
        """Return the logits of :meth:`draws` for zero-filled images."""
        features, _ = self.encode(zero_filled)
        return self.draws(features, noise)

    def images(self, features: Tensor, scale: Tensor) -> Tensor | None:
        """Return intermediate images ``(batch, ny, nx)``, complex64; ``None`` if there are none.

        Args:
            features: Features from :meth:`encode`.
            scale: Intensity scale from :meth:`encode`, ``(batch, 1, 1)``.
        """
        return None


class DeterministicSegmenter(Segmenter):
    """Segmenter without a latent, whose draws are identical."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Return the logits of the segmentation, ``(batch, num_classes, ny, nx)`` float32."""

    def draw_noise(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """Return empty noise, ``(draws, 0)``."""
        return torch.zeros(len(generators), 0)

    def draws(self, features: Tensor, noise: Tensor) -> Tensor:
        """Return the logits once per draw, see :class:`Segmenter`."""
        return self.logits(features)[:, None].expand(-1, noise.shape[1], -1, -1, -1)
