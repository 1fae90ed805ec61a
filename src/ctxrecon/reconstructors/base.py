"""What every reconstructor provides: one call, a measurement in, a complex image out."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.intensity import intensity_scale
from ctxrecon.operators import CartesianSense, SenseOperator, SoftSense, WeightedSense
from ctxrecon.reconstructors.blocks import Convolution, to_network

_STD_WIDTH = 16
_SMALLEST_STD = 1e-3
"""Of the bright signal: a likelihood has no upper bound where the error can be 0."""


@dataclass
class ReconstructorOutput(BaseOutput):
    """What a reconstructor makes of a measurement.

    Attributes:
        images: ``(batch, ny, nx)`` complex64.
        expected_error: ``(batch, ny, nx)`` float32, the error that the network expects of each
            pixel, real and imaginary parts together; ``None`` where it predicts none.
        penalty: ``(batch,)`` float32, what the network's own constraint adds to a training loss;
            ``None`` where it has none.
    """

    images: Tensor
    expected_error: Tensor | None = None
    penalty: Tensor | None = None


class Reconstructor(ModelMixin, ConfigMixin):
    """A network that inverts ``y = A x + n`` directly.

    Intensities are divided by the 99 % quantile of the magnitude of ``Aᴴ y`` of each slice before
    the network sees them, and multiplied afterwards: ``f(c y) = c f(y)`` for every ``c > 0``. No
    layer takes statistics over the batch, so a batch gives what its slices give one by one, and
    any matrix size is taken.

    Args:
        text_width: width of the prompt embeddings that modulate the features; ``None`` for a
            network that reads no prompt.
        predict_std: whether the error of each pixel is predicted as well.
    """

    def __init__(self, text_width: int | None = None, predict_std: bool = False) -> None:
        super().__init__()
        self.text_width = text_width
        self.error_head = ErrorHead() if predict_std else None

    @abstractmethod
    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """The image, and the penalty of each slice or ``None``, at the network's intensity.

        Args:
            operator: ``A``.
            y: ``(batch, coils, ny, nx)`` complex64.
            zero_filled: ``Aᴴ y``, ``(batch, ny, nx)`` complex64.
            embeds: ``(batch, text_width)``, or ``None`` where no prompt is read.
        """

    def forward(
        self, operator: SenseOperator, y: Tensor, prompt_embeds: Tensor | None = None
    ) -> ReconstructorOutput:
        """Reconstruct a batch of slices.

        Args:
            operator: ``A``; its mask may differ from slice to slice.
            y: ``(batch, coils, ny, nx)`` complex64, zero outside the mask.
            prompt_embeds: ``(batch, text_width)``, one for each slice; a network that reads
                prompts needs them, with those of the empty prompt where there is none.

        Raises:
            InputError: an operator of another kind; prompt embeddings that are missing, of another
                shape, or given to a network that reads none.
        """
        if not isinstance(operator, CartesianSense | WeightedSense | SoftSense):
            raise InputError(
                f"{type(self).__name__} takes Cartesian k-space, got data of a "
                f"{type(operator).__name__}: take a baseline or the diffusion prior"
            )
        check_embeds(self, prompt_embeds, (len(y),))
        zero_filled = operator.adjoint(y)
        scale = intensity(zero_filled)
        zero_filled = zero_filled / scale
        images, penalty = self.reconstruct(operator, y / scale[:, None], zero_filled, prompt_embeds)
        error = None
        if self.error_head is not None:
            error = self.error_head(images, zero_filled) * scale
        return ReconstructorOutput(images * scale, error, penalty)


class ErrorHead(nn.Module):
    """Standard deviation of each pixel, from the image and the zero-filled one.

    Kendall and Gal, NeurIPS 2017: trained by a Gaussian likelihood whose variance is predicted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Convolution(4, _STD_WIDTH),
            nn.ReLU(),
            Convolution(_STD_WIDTH, _STD_WIDTH),
            nn.ReLU(),
            Convolution(_STD_WIDTH, 1),
        )

    def forward(self, images: Tensor, zero_filled: Tensor) -> Tensor:
        """``(batch, ny, nx)`` float32, positive; the image itself gets no gradient through it."""
        seen = [to_network(self, image) for image in (images.detach(), zero_filled)]
        # A tenth of the bright signal to start with.
        logarithm = self.layers(torch.cat(seen, dim=1))[:, 0].float() - 2.3
        return _SMALLEST_STD + logarithm.exp()


def intensity(images: Tensor) -> Tensor:
    """The intensity scale of each image, ``(batch, 1, 1)``."""
    return intensity_scale(images, interpolation="linear")[:, None, None]


def data_gradient(operator: SenseOperator, x: Tensor, zero_filled: Tensor) -> Tensor:
    """``Aᴴ(A x − y)``, the gradient of ``½ ‖A x − y‖²``, with ``Aᴴ y`` computed before."""
    return operator.normal(x) - zero_filled


def check_embeds(network: nn.Module, embeds: Tensor | None, leading: tuple[int, ...]) -> None:
    """Refuse prompt embeddings that a network cannot read, or does without.

    Args:
        network: with ``text_width``.
        embeds: what was given.
        leading: batch, and contrasts where there are several.

    Raises:
        InputError: in a sentence of its own for each.
    """
    if network.text_width is None:
        if embeds is not None:
            raise InputError(
                f"this {type(network).__name__} was built without text_width and reads no "
                "prompt: leave the prompt out"
            )
        return
    wanted = (*leading, network.text_width)
    if embeds is None or tuple(embeds.shape) != wanted:
        came = "none" if embeds is None else str(tuple(embeds.shape))
        raise InputError(f"expected prompt embeddings of shape {wanted}, got {came}")
