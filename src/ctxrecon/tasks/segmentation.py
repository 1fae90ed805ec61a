"""Segmentations from k-space that differ where experts would: InfoMRI's networks with a latent h.

From the zero-filled image, which carries the samples and their mask, a prior encoder gives the
distribution q(h|y) of a latent; each draw of it is decoded to a segmentation, so that what is not
known differs from draw to draw as a whole and not pixel by pixel. In training a posterior encoder,
which sees the segmentation, says which h explains it, and a second decoder gives the image with
its error. All are the halves of Stable Diffusion's autoencoder, as their published sizes say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import check_counts
from ctxrecon.tasks.halves import check_classes, check_size, decoder_half, encoder_half
from ctxrecon.tasks.segmenter import Segmenter
from ctxrecon.tasks.zero_filled import as_channels, one_hot

_LOG_VARIANCES = (-10.0, 10.0)
_SMALLEST_STD = 1e-3
"""Of the bright signal: a likelihood has no upper bound where the error can be 0."""


class Gaussian(NamedTuple):
    """Independent normal distributions.

    Attributes:
        mean: of any shape.
        log_variance: likewise.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """A draw, differentiable in mean and variance, from standard normal noise."""
        return self.mean + (self.log_variance / 2).exp() * noise


def kl_divergence(first: Gaussian, second: Gaussian) -> Tensor:
    """``KL(first ‖ second)`` of each element, in nats."""
    difference = (first.mean - second.mean).square()
    variances = (difference + first.log_variance.exp()) / second.log_variance.exp()
    return (second.log_variance - first.log_variance + variances - 1) / 2


class LatentSegmenter(Segmenter):
    """What segments: the prior encoder ``q(h|y)`` and the decoder ``q(z|h)``.

    Example:
        >>> segmenter = LatentSegmenter(num_classes=3, **PRESETS["small"])
        >>> logits = segmenter(zero_filled, noise)

    Args:
        num_classes: the background included.
        width: channels of the first level; the next two have twice and four times as many.
        depth: levels; the latent is smaller than the image by ``2^(depth − 1)``.
        layers: residual blocks of a level; a decoder has one more.
        latent_channels: of h.
        decoder_sees_measurement: whether the decoder is given the encoder's features beside h,
            ``q(z|y, h)``. Everything that is uncertain may then bypass h.
        deterministic: whether h is always the mean, for comparison: InfoMRI without a latent, whose
            draws are all the same and which knows probabilities of single pixels alone.

    Raises:
        InputError: sizes that are no positive whole numbers, an odd width, or fewer than two
            classes or levels.
    """

    @register_to_config
    def __init__(
        self,
        num_classes: int = 2,
        width: int = 16,
        depth: int = 3,
        layers: int = 2,
        latent_channels: int = 16,
        decoder_sees_measurement: bool = False,
        deterministic: bool = False,
    ) -> None:
        super().__init__()
        check_counts(latent_channels=latent_channels)
        check_classes(num_classes)
        self.encoder = encoder_half(2, latent_channels, width, depth, layers)
        # The published "latent decoder": as in Stable Diffusion, the moments' last convolution.
        self.latent_head = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        seen = 2 * latent_channels if decoder_sees_measurement else 0
        self.decoder = decoder_half(latent_channels + seen, num_classes, width, depth, layers)

    def encode(self, zero_filled: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the measurement, and the scale that they are free of.

        Args:
            zero_filled: ``Aᴴ y``, ``(batch, ny, nx)`` complex64.

        Returns:
            ``(batch, 2 latent_channels, ny/f, nx/f)`` with ``f = 2^(depth − 1)``, and
            ``(batch, 1, 1)``.

        Raises:
            InputError: a matrix size that is no multiple of f.
        """
        check_size(zero_filled, self.config.depth)
        channels, scale = as_channels(self, zero_filled)
        return self.encoder(channels), scale

    def prior(self, features: Tensor) -> Gaussian:
        """``q(h|y)`` from the features of a measurement; without variance if deterministic."""
        found = _gaussian(self.latent_head(features))
        if self.config.deterministic:
            return found._replace(log_variance=torch.full_like(found.mean, -torch.inf))
        return found

    def decode(self, latent: Tensor, features: Tensor) -> Tensor:
        """Logits of ``q(z|h)``, ``(batch, num_classes, ny, nx)`` float32.

        Args:
            latent: h, ``(batch, latent_channels, ny/f, nx/f)``.
            features: of the measurement; used where the decoder sees it.
        """
        if self.config.decoder_sees_measurement:
            latent = torch.cat([latent, features], dim=1)
        return self.decoder(latent).float()

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Of h for an image ``(ny, nx)``."""
        factor = 2 ** (self.config.depth - 1)
        return self.config.latent_channels, shape[-2] // factor, shape[-1] // factor

    def draw_noise(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """Noise of one draw of h for each generator, ``(draws, …)`` on the CPU.

        Args:
            shape: ``(ny, nx)`` of the images.
            generators: each draws for itself, so that batches do not change results.
        """
        latent = self.latent_shape(shape)
        drawn = [torch.randn(latent, generator=one, device=one.device).cpu() for one in generators]
        return torch.stack(drawn)

    def draws(self, features: Tensor, noise: Tensor) -> Tensor:
        """Logits of segmentations, one for each draw of h; see :class:`Segmenter`.

        Args:
            features: of the measurement.
            noise: ``(batch, draws, latent_channels, ny/f, nx/f)``.
        """
        prior, count = self.prior(features), noise.shape[1]
        latent = Gaussian(*(value[:, None] for value in prior)).sample(noise.to(prior.mean))
        repeated = features.repeat_interleave(count, dim=0)
        return self.decode(latent.flatten(0, 1), repeated).unflatten(0, (-1, count))


class PosteriorEncoder(ModelMixin, ConfigMixin):
    """``q(h|y, z)``: which latent explains a segmentation. For training alone.

    Arguments are those of :class:`LatentSegmenter`.
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
        self.encoder = encoder_half(2 + num_classes - 1, latent_channels, width, depth, layers)

    def forward(self, zero_filled: Tensor, labels: Tensor) -> Gaussian:
        """The distribution of h.

        Args:
            zero_filled: ``Aᴴ y``, ``(batch, ny, nx)`` complex64.
            labels: z, ``(batch, ny, nx)`` whole numbers.
        """
        channels, _ = as_channels(self, zero_filled)
        marked = one_hot(self, labels, self.config.num_classes)
        return _gaussian(self.encoder(torch.cat([channels, marked], dim=1)))


class ImageDecoder(ModelMixin, ConfigMixin):
    """``q(x|y)``: the image from the features of a measurement, with the error of each pixel.

    Arguments are those of :class:`LatentSegmenter`, whose features it decodes.
    """

    @register_to_config
    def __init__(
        self, width: int = 16, depth: int = 3, layers: int = 2, latent_channels: int = 16
    ) -> None:
        super().__init__()
        self.decoder = decoder_half(2 * latent_channels, 3, width, depth, layers)

    def forward(self, features: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Images and the errors that are expected of them, real and imaginary parts together.

        Args:
            features: of the measurement.
            scale: of the measurement, ``(batch, 1, 1)``.

        Returns:
            ``(batch, ny, nx)`` complex64, and float32.
        """
        real, imaginary, logarithm = self.decoder(features).float().unbind(dim=1)
        # A tenth of the bright signal to start with.
        std = _SMALLEST_STD + (logarithm - 2.3).exp()
        return torch.complex(real, imaginary) * scale, std * scale


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Categorical cross entropy, its mean over the pixels, ``(batch,)``.

    Args:
        logits: ``(batch, num_classes, ny, nx)``.
        labels: ``(batch, ny, nx)`` whole numbers.
    """
    loss = nn.functional.cross_entropy(logits, labels.long(), reduction="none")
    return loss.flatten(1).mean(dim=1)


def _gaussian(moments: Tensor) -> Gaussian:
    mean, log_variance = moments.float().chunk(2, dim=1)
    return Gaussian(mean, log_variance.clamp(*_LOG_VARIANCES))
