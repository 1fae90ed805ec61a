"""What every network that segments from k-space provides: features, and draws from them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor


class Segmenter(ModelMixin, ConfigMixin):
    """A network that draws segmentations from the zero-filled image.

    Its configuration has ``num_classes``, the background included, and ``width``. Intensities are
    divided by the 99 % quantile of the zero-filled image's magnitude, so that scanners may have any
    unit.
    """

    @abstractmethod
    def encode(self, zero_filled: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the measurement, and the scale ``(batch, 1, 1)`` that they are free of.

        Args:
            zero_filled: ``Aᴴ y``, ``(batch, ny, nx)`` complex64.

        Raises:
            InputError: a matrix size that the network does not take.
        """

    @abstractmethod
    def draw_noise(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """Noise of one draw for each generator, ``(draws, …)`` on the CPU.

        Args:
            shape: ``(ny, nx)`` of the images.
            generators: each draws for itself, so that batches do not change results.
        """

    @abstractmethod
    def draws(self, features: Tensor, noise: Tensor) -> Tensor:
        """Logits of segmentations, ``(batch, draws, num_classes, ny, nx)`` float32.

        Args:
            features: of :meth:`encode`.
            noise: standard normal, ``(batch, draws, …)``.
        """

    def forward(self, zero_filled: Tensor, noise: Tensor) -> Tensor:
        """:meth:`draws`, from the zero-filled image."""
        features, _ = self.encode(zero_filled)
        return self.draws(features, noise)

    def images(self, features: Tensor, scale: Tensor) -> Tensor | None:
        """Images ``(batch, ny, nx)`` complex64 on the way to the segmentation, if there are any.

        Args:
            features: of :meth:`encode`.
            scale: likewise.
        """
        return None


class DeterministicSegmenter(Segmenter):
    """A network without a latent, whose draws are all the same."""

    @abstractmethod
    def logits(self, features: Tensor) -> Tensor:
        """Of the one segmentation, ``(batch, num_classes, ny, nx)`` float32."""

    def draw_noise(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """None at all, ``(draws, 0)``."""
        return torch.zeros(len(generators), 0)

    def draws(self, features: Tensor, noise: Tensor) -> Tensor:
        """See :class:`Segmenter`."""
        return self.logits(features)[:, None].expand(-1, noise.shape[1], -1, -1, -1)
