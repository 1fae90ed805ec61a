"""InfoMRI's latent-variable networks, which draw coherent segmentations from k-space.

From the zero-filled image, which contains the samples and their mask, a prior encoder predicts the
distribution q(h|y) of a latent. Each draw of it is decoded to a segmentation, so that draws differ
as a whole and not pixel by pixel where the data are ambiguous. In training, a posterior encoder
that also sees the segmentation predicts the latent, and a second decoder predicts the image and
its error. All networks are the encoder and decoder of Stable Diffusion's autoencoder, which
matches their published sizes.
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
"""Lower bound relative to the bright signal; without it the likelihood would be unbounded."""


class Gaussian(NamedTuple):
    """Independent normal distributions.

    Attributes:
        mean: Means, of any shape.
        log_variance: Log-variances, with the shape of ``mean``.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """Transform standard normal noise to a draw, differentiable in mean and variance."""
        return self.mean + (self.log_variance / 2).exp() * noise


def kl_divergence(first: Gaussian, second: Gaussian) -> Tensor:
    """Return ``KL(first ‖ second)`` of each element, in nats."""
    difference = (first.mean - second.mean).square()
    variances = (difference + first.log_variance.exp()) / second.log_variance.exp()
    return (second.log_variance - first.log_variance + variances - 1) / 2


class LatentSegmenter(Segmenter):
    """Segmentation network: the prior encoder ``q(h|y)`` and the decoder ``q(z|h)``.

    Args:
        num_classes: Number of classes, background included.
        width: Number of channels of the first level; the next two have twice and four times as
            many.
        depth: Number of levels; the latent is smaller than the image by ``2^(depth − 1)``.
        layers: Number of residual blocks per level; a decoder has one more.
        latent_channels: Number of channels of h.
        decoder_sees_measurement: If true, the decoder also receives the encoder's features,
            ``q(z|y, h)``. Uncertainty may then bypass h.
        deterministic: If true, h is always the mean. This is InfoMRI without a latent, for
            comparison: its draws are identical, and it represents only marginal probabilities of
            single pixels.

    Raises:
        InputError: If a size is not a positive whole number, the width is odd, or there are fewer
            than two classes or levels.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import LatentSegmenter
        >>> segmenter = LatentSegmenter(num_classes=3, width=4, depth=2, layers=1)
        >>> noise = segmenter.draw_noise((32, 32), [torch.Generator(), torch.Generator()])
        >>> zero_filled = torch.ones(1, 32, 32, dtype=torch.complex64)
        >>> segmenter(zero_filled, noise[None]).shape
        torch.Size([1, 2, 3, 32, 32])
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
        # The published "latent decoder", the last convolution of the moments in Stable Diffusion.
        self.latent_head = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        seen = 2 * latent_channels if decoder_sees_measurement else 0
        self.decoder = decoder_half(latent_channels + seen, num_classes, width, depth, layers)

    def encode(self, zero_filled: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of the measurement and the intensity scale that was divided out.

        Args:
            zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64.

        Returns:
            Features ``(batch, 2 latent_channels, ny/f, nx/f)`` with ``f = 2^(depth − 1)``, and the
            scale ``(batch, 1, 1)``.

        Raises:
            InputError: If the matrix size is not a multiple of f.
        """
        check_size(zero_filled, self.config.depth)
        channels, scale = as_channels(self, zero_filled)
        return self.encoder(channels), scale

    def prior(self, features: Tensor) -> Gaussian:
        """Return ``q(h|y)`` from the features; its variance is 0 if deterministic."""
        found = _gaussian(self.latent_head(features))
        if self.config.deterministic:
            return found._replace(log_variance=torch.full_like(found.mean, -torch.inf))
        return found

    def decode(self, latent: Tensor, features: Tensor) -> Tensor:
        """Return logits of ``q(z|h)``, ``(batch, num_classes, ny, nx)`` float32.

        Args:
            latent: Latent h, ``(batch, latent_channels, ny/f, nx/f)``.
            features: Features of the measurement, used if ``decoder_sees_measurement`` is set.
        """
        if self.config.decoder_sees_measurement:
            latent = torch.cat([latent, features], dim=1)
        return self.decoder(latent).float()

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the shape of h for an image size ``(ny, nx)``."""
        factor = 2 ** (self.config.depth - 1)
        return self.config.latent_channels, shape[-2] // factor, shape[-1] // factor

    def draw_noise(self, shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
        """Draw the noise of one draw of h per generator, ``(draws, …)`` on the CPU.

        Args:
            shape: Image size ``(ny, nx)``.
            generators: One generator per draw, so that results do not depend on the batch.
        """
        latent = self.latent_shape(shape)
        drawn = [torch.randn(latent, generator=one, device=one.device).cpu() for one in generators]
        return torch.stack(drawn)

    def draws(self, features: Tensor, noise: Tensor) -> Tensor:
        """Return logits of segmentations, one per draw of h; see :class:`Segmenter`.

        Args:
            features: Features of the measurement.
            noise: Standard normal noise ``(batch, draws, latent_channels, ny/f, nx/f)``.
        """
        prior, count = self.prior(features), noise.shape[1]
        latent = Gaussian(*(value[:, None] for value in prior)).sample(noise.to(prior.mean))
        repeated = features.repeat_interleave(count, dim=0)
        return self.decode(latent.flatten(0, 1), repeated).unflatten(0, (-1, count))


class PosteriorEncoder(ModelMixin, ConfigMixin):
    """Posterior encoder ``q(h|y, z)``, which sees the segmentation; used in training only.

    The arguments are those of :class:`LatentSegmenter`.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import PosteriorEncoder
        >>> encoder = PosteriorEncoder(num_classes=3, width=4, depth=2, layers=1)
        >>> zero_filled = torch.ones(1, 32, 32, dtype=torch.complex64)
        >>> encoder(zero_filled, torch.zeros(1, 32, 32, dtype=torch.long)).mean.shape
        torch.Size([1, 16, 16, 16])
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
        """Return the distribution of h.

        Args:
            zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64.
            labels: Integer labels z, ``(batch, ny, nx)``.
        """
        channels, _ = as_channels(self, zero_filled)
        marked = one_hot(self, labels, self.config.num_classes)
        return _gaussian(self.encoder(torch.cat([channels, marked], dim=1)))


class ImageDecoder(ModelMixin, ConfigMixin):
    """Image decoder ``q(x|y)``: predicts the image and the error of each pixel.

    Its network corrects the zero-filled image, so that the features need not contain the whole
    image next to the segmentation. The published decoder predicts the image from the features
    alone. The arguments are those of :class:`LatentSegmenter`, whose features it decodes.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import ImageDecoder, LatentSegmenter
        >>> segmenter = LatentSegmenter(width=4, depth=2, layers=1)
        >>> decoder = ImageDecoder(width=4, depth=2, layers=1)
        >>> zero_filled = torch.ones(1, 32, 32, dtype=torch.complex64)
        >>> images, errors = decoder(*segmenter.encode(zero_filled), zero_filled)
        >>> images.shape, errors.shape
        (torch.Size([1, 32, 32]), torch.Size([1, 32, 32]))
    """

    @register_to_config
    def __init__(
        self, width: int = 16, depth: int = 3, layers: int = 2, latent_channels: int = 16
    ) -> None:
        super().__init__()
        self.decoder = decoder_half(2 * latent_channels, 3, width, depth, layers)

    def forward(
        self, features: Tensor, scale: Tensor, zero_filled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return images and their expected errors, real and imaginary part together.

        Args:
            features: Features of the measurement.
            scale: Intensity scale of the measurement, ``(batch, 1, 1)``.
            zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64.

        Returns:
            Images ``(batch, ny, nx)`` complex64, and errors of the same shape, float32.
        """
        real, imaginary, logarithm = self.decoder(features).float().unbind(dim=1)
        # Initially a tenth of the bright signal.
        std = _SMALLEST_STD + (logarithm - 2.3).exp()
        return zero_filled + torch.complex(real, imaginary) * scale, std * scale


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the categorical cross-entropy, averaged over the pixels, ``(batch,)``.

    Args:
        logits: Logits ``(batch, num_classes, ny, nx)``.
        labels: Integer labels ``(batch, ny, nx)``.
    """
    loss = nn.functional.cross_entropy(logits, labels.long(), reduction="none")
    return loss.flatten(1).mean(dim=1)


def _gaussian(moments: Tensor) -> Gaussian:
    mean, log_variance = moments.float().chunk(2, dim=1)
    return Gaussian(mean, log_variance.clamp(*_LOG_VARIANCES))
