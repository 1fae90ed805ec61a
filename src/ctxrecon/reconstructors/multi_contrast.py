"""Base class of multi-contrast reconstructors, and networks without a state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from ctxrecon.errors import InputError, check_counts
from ctxrecon.operators import MaskedSense
from ctxrecon.reconstructors.base import (
    ErrorHead,
    Reconstructor,
    check_embeds,
    check_predict_std,
    intensity,
)
from ctxrecon.reconstructors.recurrent_blocks import RecurrentUNet, run_cascade


@dataclass
class MultiContrastOutput(BaseOutput):
    """Reconstruction of a multi-contrast measurement.

    Attributes:
        images: Reconstructed images ``(batch, contrasts, ny, nx)``, complex64.
        expected_error: Predicted error of each pixel, real and imaginary part together,
            ``(batch, contrasts, ny, nx)`` float32; ``None`` if the network predicts none.
        penalty: Contribution of the network's own constraint to a training loss, ``(batch,)``
            float32; ``None`` if it has none.
        part_std: Predicted errors of the real and of the imaginary part,
            ``(batch, contrasts, 2, ny, nx)`` float32; ``None`` if they are not predicted
            separately.
    """

    images: Tensor
    expected_error: Tensor | None = None
    penalty: Tensor | None = None
    part_std: Tensor | None = None


class MultiContrastReconstructor(ModelMixin, ConfigMixin):
    """Network that inverts ``y^c = A^c x^c + n``, one contrast after another.

    Contrasts are reconstructed in the given order, and each may pass a state to the next one. An
    image depends on its own measurement and on the preceding ones, never on later ones. Any number
    of contrasts is accepted unless a subclass restricts it.

    The data of each slice and contrast are divided by the 99 % quantile of the magnitude of
    ``(A^c)ᴴ y^c``, and the result is multiplied by it. A contrast measured with another gain
    ``g_c > 0`` therefore yields ``g_c`` times its image and leaves the other contrasts unchanged.
    Sequences differ in their receiver gains, and a late, dark echo then fills the network's range
    as a bright one does. The network does not see the ratios between echoes; the returned images
    preserve them. No layer uses batch statistics, and any matrix size is accepted.

    Args:
        networks: One network per block, as accepted by :func:`~.recurrent_blocks.run_cascade`, or
            such a list for each contrast.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel, with one head for all
            contrasts. With a Gaussian likelihood this is the diagonal Gaussian of InfoMRI
            (Section III-F).
    """

    def __init__(self, networks: nn.ModuleList, text_width: int | None, predict_std: bool) -> None:
        super().__init__()
        self.networks = networks
        self.text_width = text_width
        check_predict_std(self, predict_std, serves_joint=False)
        self.error_head = ErrorHead() if predict_std else None

    @property
    def predicts_error(self) -> bool:
        """``True`` if outputs have an expected error."""
        return self.error_head is not None

    def reconstruct(
        self,
        contrast: int,
        operator: MaskedSense,
        zero_filled: Tensor,
        embeds: Tensor | None,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Return one contrast's image at the network's intensity, and states for the next one.

        Args:
            contrast: Index of the contrast, from 0.
            operator: Forward operator ``A^c``.
            zero_filled: Zero-filled images ``(A^c)ᴴ y^c``, ``(batch, ny, nx)`` complex64.
            embeds: Prompt embeddings ``(batch, text_width)``, or ``None`` for a network without
                text conditioning.
            states: States of the previous contrast; empty for the first one.
        """
        return run_cascade(self.networks, operator, zero_filled, embeds, states)

    def forward(
        self,
        operators: Sequence[MaskedSense],
        y: Tensor,
        prompt_embeds: Tensor | None = None,
    ) -> MultiContrastOutput:
        """Reconstruct all contrasts of a batch of slices.

        Args:
            operators: Forward operators ``A^c``, one per contrast.
            y: Measured k-space ``(batch, contrasts, coils, ny, nx)``, complex64, zero outside the
                masks.
            prompt_embeds: Prompt embeddings ``(batch, contrasts, text_width)``, one per slice and
                contrast. A network with text conditioning requires them; images without a prompt
                use the embedding of the empty prompt.

        Returns:
            The reconstructions, in the units of ``y``.

        Raises:
            InputError: If there is not one operator per contrast of ``y``, ``y`` has another
                shape or dtype, or the prompt embeddings are missing, have another shape, or are
                passed to a network without text conditioning.
        """
        _check_measurement(operators, y)
        check_embeds(self, prompt_embeds, (y.shape[0], y.shape[1]))
        zero_filled = torch.stack(
            [operator.adjoint(y[:, c]) for c, operator in enumerate(operators)], dim=1
        )
        scale = intensity(zero_filled.flatten(0, 1)).unflatten(0, y.shape[:2])
        zero_filled = zero_filled / scale
        found: list[Tensor] = []
        states: list[Tensor] = []
        for c, operator in enumerate(operators):
            embeds = None if prompt_embeds is None else prompt_embeds[:, c]
            image, states = self.reconstruct(c, operator, zero_filled[:, c], embeds, states)
            found.append(image)
        images = torch.stack(found, dim=1)
        error = None
        if self.error_head is not None:
            expected = self.error_head(images.flatten(0, 1), zero_filled.flatten(0, 1))
            error = expected.unflatten(0, y.shape[:2]) * scale
        return MultiContrastOutput(images * scale, error)


class SharedUNet(MultiContrastReconstructor):
    """A single U-Net for all contrasts, applied to each of them separately (U-Net-S of JoJoNet).

    Args:
        width: Number of features at full resolution.
        depth: Number of downsampling steps.
        blocks: Number of successive U-Nets with data consistency; the paper's baseline has one.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import SharedUNet
        >>> operators = [CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))] * 2
        >>> network = SharedUNet(width=4, depth=2)
        >>> network(operators, torch.ones(1, 2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([1, 2, 32, 32])
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        depth: int = 3,
        blocks: int = 1,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        networks = unet_cascade(width, depth, blocks, text_width, handed=0)
        super().__init__(networks, text_width, predict_std)


class IndividualUNets(MultiContrastReconstructor):
    """A separate U-Net for each contrast (U-Net-I of JoJoNet).

    Args:
        contrasts: Number of contrasts; calls must pass this number, in the same order.
        width: Number of features at full resolution.
        depth: Number of downsampling steps.
        blocks: Number of successive U-Nets with data consistency; the paper's baseline has one.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import IndividualUNets
        >>> operators = [CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))] * 2
        >>> network = IndividualUNets(contrasts=2, width=4, depth=2)
        >>> network(operators, torch.ones(1, 2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([1, 2, 32, 32])
    """

    @register_to_config
    def __init__(
        self,
        contrasts: int,
        width: int = 64,
        depth: int = 3,
        blocks: int = 1,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        check_counts(contrasts=contrasts)
        networks = nn.ModuleList(
            unet_cascade(width, depth, blocks, text_width, handed=0) for _ in range(contrasts)
        )
        super().__init__(networks, text_width, predict_std)

    def forward(
        self,
        operators: Sequence[MaskedSense],
        y: Tensor,
        prompt_embeds: Tensor | None = None,
    ) -> MultiContrastOutput:
        """Reconstruct all contrasts, see :meth:`MultiContrastReconstructor.forward`.

        Raises:
            InputError: If an argument is invalid, or the number of contrasts differs from that of
                the network.
        """
        _check_measurement(operators, y)
        if y.shape[1] != len(self.networks):
            raise InputError(
                f"expected the {len(self.networks)} contrasts that this network was built for, "
                f"got {y.shape[1]}: build it with contrasts={y.shape[1]}, or use a network that "
                "is shared by all contrasts"
            )
        return super().forward(operators, y, prompt_embeds)

    def reconstruct(
        self,
        contrast: int,
        operator: MaskedSense,
        zero_filled: Tensor,
        embeds: Tensor | None,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """Return one contrast's image, see :meth:`MultiContrastReconstructor.reconstruct`."""
        own: nn.ModuleList = self.networks[contrast]  # type: ignore[assignment]
        return run_cascade(own, operator, zero_filled, embeds, states)


def reconstruct_contrasts(
    network: Reconstructor | MultiContrastReconstructor,
    operators: Sequence[MaskedSense],
    y: Tensor,
    prompt_embeds: Tensor | None = None,
) -> MultiContrastOutput:
    """Reconstruct several contrasts with a multi-contrast network, or each contrast separately.

    Args:
        network: Multi- or single-contrast network.
        operators: Forward operators ``A^c``, one per contrast.
        y: Measured k-space ``(batch, contrasts, coils, ny, nx)``, complex64.
        prompt_embeds: Prompt embeddings ``(batch, contrasts, text_width)``, or ``None`` for a
            network without text conditioning.

    Raises:
        InputError: If an argument is invalid, as in :meth:`MultiContrastReconstructor.forward`.
    """
    if isinstance(network, MultiContrastReconstructor):
        return network(operators, y, prompt_embeds)
    _check_measurement(operators, y)
    each = [
        network(operator, y[:, c], None if prompt_embeds is None else prompt_embeds[:, c])
        for c, operator in enumerate(operators)
    ]
    penalty = _stacked([output.penalty for output in each])
    return MultiContrastOutput(
        torch.stack([output.images for output in each], dim=1),
        _stacked([output.expected_error for output in each]),
        None if penalty is None else penalty.mean(dim=1),
        _stacked([output.part_std for output in each]),
    )


def _stacked(values: Sequence[Tensor | None]) -> Tensor | None:
    """Stack the values of all contrasts along axis 1; ``None`` if there are none."""
    known = [value for value in values if value is not None]
    return torch.stack(known, dim=1) if known else None


def unet_cascade(
    width: int, depth: int, blocks: int, text_width: int | None, handed: int
) -> nn.ModuleList:
    """Return the U-Nets of the blocks of a cascade, each with its own weights.

    Args:
        width: Number of features at full resolution.
        depth: Number of downsampling steps.
        blocks: Number of blocks.
        text_width: Width of the prompt embeddings, or ``None``.
        handed: Number of levels, from the lowest up, whose features are passed on.

    Raises:
        InputError: If a size is not a positive whole number.
    """
    check_counts(width=width, depth=depth, blocks=blocks)
    return nn.ModuleList(RecurrentUNet(2, width, depth, text_width, handed) for _ in range(blocks))


def _check_measurement(operators: Sequence[MaskedSense], y: Tensor) -> None:
    if not isinstance(operators, Sequence) or len(operators) == 0:
        raise InputError(
            f"expected a sequence of operators, one per contrast, got {operators!r}: "
            "wrap a single operator in a list"
        )
    if y.ndim != 5 or y.shape[1] != len(operators):
        raise InputError(
            f"expected k-space of shape (batch, {len(operators)}, coils, ny, nx) for "
            f"{len(operators)} operators, got {tuple(y.shape)}; stack the contrasts along axis 1"
        )
