"""What every reconstructor provides: one call, a measurement in, a complex image out."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.intensity import intensity_scale
from ctxrecon.operators import CartesianSense, SenseOperator, SoftSense, WeightedSense
from ctxrecon.reconstructors.blocks import Convolution, to_network

_STD_WIDTH = 16
_HALF = math.log(2.0) / 2
"""Of the variance of a complex number each part has half."""
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
        part_std: ``(batch, 2, ny, nx)`` float32, the error that is expected of the real and of the
            imaginary part; ``None`` where they are not told apart.
    """

    images: Tensor
    expected_error: Tensor | None = None
    penalty: Tensor | None = None
    part_std: Tensor | None = None


class Estimate(NamedTuple):
    """What :meth:`Reconstructor.reconstruct` gives, at the network's intensity.

    Attributes:
        image: ``(batch, ny, nx)`` complex64.
        penalty: ``(batch,)``, or ``None``.
        log_variance: ``(batch, 2, ny, nx)``, of the real and of the imaginary part, from a network
            that predicts it jointly with the image.
    """

    image: Tensor
    penalty: Tensor | None = None
    log_variance: Tensor | None = None


class Reconstructor(ModelMixin, ConfigMixin):
    """A network that inverts ``y = A x + n`` directly.

    Intensities are divided by the 99 % quantile of the magnitude of ``Aᴴ y`` of each slice before
    the network sees them, and multiplied afterwards: ``f(c y) = c f(y)`` for every ``c > 0``. No
    layer takes statistics over the batch, so a batch gives what its slices give one by one, and
    any matrix size is taken.

    Args:
        text_width: width of the prompt embeddings that modulate the features; ``None`` for a
            network that reads no prompt.
        predict_std: whether the error of each pixel is predicted as well: ``True`` by a small
            network of its own (:class:`ErrorHead`), "joint" by two more channels that the network
            gives beside the image, as in InfoMRI.

    Raises:
        InputError: a ``predict_std`` that is none of these, or that this network does not serve.
    """

    serves_joint: ClassVar[bool] = False
    """Whether ``predict_std="joint"`` may be asked for."""
    learns_prior: ClassVar[bool] = False
    """Whether a part of it is trained by :meth:`prior_loss` alone."""

    def __init__(self, text_width: int | None = None, predict_std: bool | str = False) -> None:
        super().__init__()
        self.text_width = text_width
        check_predict_std(self, predict_std, self.serves_joint)
        self.joint = predict_std == "joint"
        self.error_head = ErrorHead() if predict_std and not self.joint else None

    @property
    def predicts_error(self) -> bool:
        """Whether outputs have an expected error."""
        return self.joint or self.error_head is not None

    @property
    def out_channels(self) -> int:
        """Channels of the last layer: those of the image, and of its log-variance."""
        return 4 if self.joint else 2

    def channels_of(self, iterations: int) -> list[int]:
        """The same of the last layer of each iteration: the last one alone has more."""
        return [2] * (iterations - 1) + [self.out_channels]

    @abstractmethod
    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> Estimate | tuple[Tensor, Tensor | None]:
        """The image, and the penalty of each slice or ``None``, at the network's intensity.

        A network with ``joint`` gives the log-variance as the third.

        Args:
            operator: ``A``.
            y: ``(batch, coils, ny, nx)`` complex64.
            zero_filled: ``Aᴴ y``, ``(batch, ny, nx)`` complex64.
            embeds: ``(batch, text_width)``, or ``None`` where no prompt is read.
        """

    def prior_loss(
        self,
        images: Tensor,
        generators: Sequence[torch.Generator],
        embeds: Tensor | None = None,
    ) -> Tensor:
        """What a network learns of images without a measurement, ``(batch,)``.

        Training adds it to the loss of the reconstruction where ``learns_prior`` is set.

        Args:
            images: ``(batch, ny, nx)`` complex64, of any intensity.
            generators: one for each image, on the CPU.
            embeds: ``(batch, text_width)``, or ``None`` where no prompt is read.
        """
        raise NotImplementedError

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
        found = Estimate(
            *self.reconstruct(operator, y / scale[:, None], zero_filled, prompt_embeds)
        )
        error, part_std = None, None
        if self.error_head is not None:
            error = self.error_head(found.image, zero_filled) * scale
        elif found.log_variance is not None:
            part_std = positive_std(found.log_variance / 2 - _HALF) * scale[:, None]
            error = part_std.square().sum(dim=1).sqrt()
        return ReconstructorOutput(found.image * scale, error, found.penalty, part_std)


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
        return positive_std(self.layers(torch.cat(seen, dim=1))[:, 0])


def positive_std(logarithm: Tensor) -> Tensor:
    """A standard deviation from what a network gives, float32.

    A tenth of the bright signal where that is 0, as networks start.
    """
    return _SMALLEST_STD + (logarithm.float() - 2.3).exp()


def likelihood_std(output: Any) -> Tensor | None:
    """The standard deviation that a likelihood is taken with: of each part, where it is known.

    Args:
        output: a :class:`ReconstructorOutput` or one of several contrasts.
    """
    return output.expected_error if output.part_std is None else output.part_std


def check_predict_std(network: nn.Module, predict_std: bool | str, serves_joint: bool) -> None:
    """Refuse a prediction of the error that a network does not have.

    Raises:
        InputError: in a sentence of its own for each.
    """
    if predict_std not in (True, False, "joint"):
        raise InputError(f"expected predict_std as true, false or 'joint', got {predict_std!r}")
    if predict_std == "joint" and not serves_joint:
        raise InputError(
            f"{type(network).__name__} gives no variance beside its image: take predict_std=true, "
            "or a network that does, such as unet or ista_net"
        )


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
