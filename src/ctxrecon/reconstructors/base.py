"""Base class of reconstructors: one call from a measurement to a complex image."""

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
"""Log of √2: real and imaginary part each have half the variance of a complex number."""
_SMALLEST_STD = 1e-3
"""Lower bound relative to the bright signal; without it the likelihood would be unbounded."""


@dataclass
class ReconstructorOutput(BaseOutput):
    """Reconstruction of a single-contrast measurement.

    Attributes:
        images: Reconstructed images ``(batch, ny, nx)``, complex64.
        expected_error: Predicted error of each pixel, real and imaginary part together,
            ``(batch, ny, nx)`` float32; ``None`` if the network predicts none.
        penalty: Contribution of the network's own constraint to a training loss, ``(batch,)``
            float32; ``None`` if it has none.
        part_std: Predicted errors of the real and of the imaginary part,
            ``(batch, 2, ny, nx)`` float32; ``None`` if they are not predicted separately.
    """

    images: Tensor
    expected_error: Tensor | None = None
    penalty: Tensor | None = None
    part_std: Tensor | None = None


class Estimate(NamedTuple):
    """Result of :meth:`Reconstructor.reconstruct`, at the network's intensity.

    Attributes:
        image: Reconstructed images ``(batch, ny, nx)``, complex64.
        penalty: Penalty of each slice ``(batch,)``, or ``None``.
        log_variance: Log-variance of the real and of the imaginary part, ``(batch, 2, ny, nx)``,
            of a network that predicts it jointly with the image; otherwise ``None``.
    """

    image: Tensor
    penalty: Tensor | None = None
    log_variance: Tensor | None = None


class Reconstructor(ModelMixin, ConfigMixin):
    """Network that inverts ``y = A x + n`` directly.

    The data of each slice are divided by the 99 % quantile of the magnitude of ``Aᴴ y`` before they
    enter the network, and the result is multiplied by it: ``f(c y) = c f(y)`` for every ``c > 0``.
    No layer uses batch statistics, so that a batch yields the same images as its slices one by
    one, and any matrix size is accepted.

    Args:
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: Predict the error of each pixel as well: ``True`` with a separate small
            network (:class:`ErrorHead`), "joint" with two additional output channels, as in
            InfoMRI.

    Raises:
        InputError: If ``predict_std`` is none of these, or not supported by the network.
    """

    serves_joint: ClassVar[bool] = False
    """``True`` if the network supports ``predict_std="joint"``."""
    learns_prior: ClassVar[bool] = False
    """``True`` if a part of the network is trained by :meth:`prior_loss` only."""

    def __init__(self, text_width: int | None = None, predict_std: bool | str = False) -> None:
        super().__init__()
        self.text_width = text_width
        check_predict_std(self, predict_std, self.serves_joint)
        self.joint = predict_std == "joint"
        self.error_head = ErrorHead() if predict_std and not self.joint else None

    @property
    def predicts_error(self) -> bool:
        """``True`` if outputs have an expected error."""
        return self.joint or self.error_head is not None

    @property
    def out_channels(self) -> int:
        """Channels of the last layer: two for the image, and two for a joint log-variance."""
        return 4 if self.joint else 2

    def channels_of(self, iterations: int) -> list[int]:
        """Return the output channels of each iteration; only the last predicts a variance."""
        return [2] * (iterations - 1) + [self.out_channels]

    @abstractmethod
    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> Estimate | tuple[Tensor, Tensor | None]:
        """Return the image and the penalty of each slice or ``None``, at the network's intensity.

        A network with ``joint`` returns the log-variance as a third value.

        Args:
            operator: Forward operator ``A``.
            y: Measured k-space ``(batch, coils, ny, nx)``, complex64.
            zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64.
            embeds: Prompt embeddings ``(batch, text_width)``, or ``None`` for a network without
                text conditioning.
        """

    def prior_loss(
        self,
        images: Tensor,
        generators: Sequence[torch.Generator],
        embeds: Tensor | None = None,
    ) -> Tensor:
        """Return a loss that needs images only and no measurement, ``(batch,)``.

        Training adds it to the reconstruction loss if ``learns_prior`` is set.

        Args:
            images: Images ``(batch, ny, nx)``, complex64, of arbitrary intensity.
            generators: One generator per image, on the CPU.
            embeds: Prompt embeddings ``(batch, text_width)``, or ``None`` for a network without
                text conditioning.
        """
        raise NotImplementedError

    def forward(
        self, operator: SenseOperator, y: Tensor, prompt_embeds: Tensor | None = None
    ) -> ReconstructorOutput:
        """Reconstruct a batch of slices.

        Args:
            operator: Forward operator ``A``; its mask may differ between slices.
            y: Measured k-space ``(batch, coils, ny, nx)``, complex64, zero outside the mask.
            prompt_embeds: Prompt embeddings ``(batch, text_width)``, one per slice. A network with
                text conditioning requires them; slices without a prompt use the embedding of the
                empty prompt.

        Returns:
            The reconstruction, in the units of ``y``.

        Raises:
            InputError: If the operator is of another type, or the prompt embeddings are missing,
                have another shape, or are passed to a network without text conditioning.
        """
        if not isinstance(operator, CartesianSense | WeightedSense | SoftSense):
            raise InputError(
                f"{type(self).__name__} needs Cartesian k-space, got data of a "
                f"{type(operator).__name__}: use a baseline or the diffusion prior"
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
    """Standard deviation of each pixel, predicted from reconstruction and zero-filled image.

    Kendall and Gal, NeurIPS 2017: trained by a Gaussian likelihood with predicted variance.
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
        """Return positive ``(batch, ny, nx)`` float32; no gradient reaches the reconstruction."""
        seen = [to_network(self, image) for image in (images.detach(), zero_filled)]
        return positive_std(self.layers(torch.cat(seen, dim=1))[:, 0])


def positive_std(logarithm: Tensor) -> Tensor:
    """Convert a network output to a standard deviation, float32.

    An output of 0, the initial one of the networks, corresponds to a tenth of the bright signal.
    """
    return _SMALLEST_STD + (logarithm.float() - 2.3).exp()


def likelihood_std(output: Any) -> Tensor | None:
    """Return the standard deviation of the likelihood, for each part of a pixel if available.

    Args:
        output: Output of a single- or multi-contrast network.
    """
    return output.expected_error if output.part_std is None else output.part_std


def check_predict_std(network: nn.Module, predict_std: bool | str, serves_joint: bool) -> None:
    """Validate that a network supports the requested error prediction.

    Raises:
        InputError: If ``predict_std`` is not a bool or "joint", or "joint" is not supported.
    """
    if predict_std not in (True, False, "joint"):
        raise InputError(f"expected `predict_std` as true, false or 'joint', got {predict_std!r}")
    if predict_std == "joint" and not serves_joint:
        raise InputError(
            f"{type(network).__name__} does not predict a joint variance: use predict_std=true, "
            "or a network that supports it, such as unet or ista_net"
        )


def intensity(images: Tensor) -> Tensor:
    """Return the intensity scale of each image, ``(batch, 1, 1)``."""
    return intensity_scale(images, interpolation="linear")[:, None, None]


def data_gradient(operator: SenseOperator, x: Tensor, zero_filled: Tensor) -> Tensor:
    """Return ``Aᴴ(A x − y)``, the gradient of ``½ ‖A x − y‖²``, from a precomputed ``Aᴴ y``."""
    return operator.normal(x) - zero_filled


def check_embeds(network: nn.Module, embeds: Tensor | None, leading: tuple[int, ...]) -> None:
    """Validate prompt embeddings against a network.

    Args:
        network: Network with an attribute ``text_width``.
        embeds: Prompt embeddings, or ``None``.
        leading: Expected leading dimensions: batch, and contrasts if there are several.

    Raises:
        InputError: If embeddings are missing, have another shape, or are passed to a network
            without text conditioning.
    """
    if network.text_width is None:
        if embeds is not None:
            raise InputError(
                f"this {type(network).__name__} was built without text_width and accepts no "
                "prompt: omit the prompt"
            )
        return
    wanted = (*leading, network.text_width)
    if embeds is None or tuple(embeds.shape) != wanted:
        came = "none" if embeds is None else str(tuple(embeds.shape))
        raise InputError(f"expected prompt embeddings of shape {wanted}, got {came}")
