"""Several contrasts of one slice: what their reconstructors share, and those without a state."""

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
    """What a reconstructor makes of the measurements of several contrasts.

    Attributes:
        images: ``(batch, contrasts, ny, nx)`` complex64.
        expected_error: ``(batch, contrasts, ny, nx)`` float32, the error that the network expects
            of each pixel, real and imaginary parts together; ``None`` where it predicts none.
        penalty: ``(batch,)`` float32, what a network's own constraint adds to a training loss;
            ``None`` where it has none.
        part_std: ``(batch, contrasts, 2, ny, nx)`` float32, the error that is expected of the real
            and of the imaginary part; ``None`` where they are not told apart.
    """

    images: Tensor
    expected_error: Tensor | None = None
    penalty: Tensor | None = None
    part_std: Tensor | None = None


class MultiContrastReconstructor(ModelMixin, ConfigMixin):
    """A network that inverts ``y^c = A^c x^c + n``, contrast after contrast.

    Contrasts are reconstructed in the order in which they come, and each may hand a state to the
    next; an image depends on its own measurement and on those before it, never on later ones. Any
    number of contrasts is taken unless a class says otherwise.

    Intensities are divided by the 99 % quantile of the magnitude of ``(A^c)ᴴ y^c``, of each slice
    and each contrast for itself, and multiplied afterwards: a contrast measured with another gain
    ``g_c > 0`` gives ``g_c`` times its image and leaves the other contrasts as they are. Sequences
    differ in their receiver gains, and a late, dark echo then fills the network's range as a
    bright one does; the network does not see the ratios between echoes, the images given back have
    them. No layer takes statistics over the batch, and any matrix size is taken.

    Args:
        networks: one for each block, as :func:`~.recurrent_blocks.run_cascade` takes them, or such
            a list for each contrast.
        text_width: width of the prompt embeddings that modulate the features; ``None`` for a
            network that reads no prompt.
        predict_std: whether the error of each pixel is predicted as well, by one head for all
            contrasts: with a Gaussian likelihood, the diagonal Gaussian of InfoMRI
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
        """Whether outputs have an expected error."""
        return self.error_head is not None

    def reconstruct(
        self,
        contrast: int,
        operator: MaskedSense,
        zero_filled: Tensor,
        embeds: Tensor | None,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """One contrast's image, at the network's intensity, and the states for the next contrast.

        Args:
            contrast: its number, from 0 on.
            operator: ``A^c``.
            zero_filled: ``(A^c)ᴴ y^c``, ``(batch, ny, nx)`` complex64.
            embeds: ``(batch, text_width)``, or ``None`` where no prompt is read.
            states: of the contrast before; empty for the first one.
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
            operators: ``A^c``, one for each contrast.
            y: ``(batch, contrasts, coils, ny, nx)`` complex64, zero outside the masks.
            prompt_embeds: ``(batch, contrasts, text_width)``, one for each slice and contrast; a
                network that reads prompts needs them, with those of the empty prompt where there
                is none.

        Raises:
            InputError: operators that are not one for each contrast of ``y``; ``y`` of another
                shape or dtype; prompt embeddings that are missing, of another shape, or given to
                a network that reads none.
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
    """One U-Net for every contrast, which sees each of them alone: U-Net-S of JoJoNet.

    Args:
        width: features at full size.
        depth: halvings.
        blocks: U-Nets with data consistency, one after another; the paper's baseline has one.
        text_width: see :class:`MultiContrastReconstructor`.
        predict_std: likewise.
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
    """A U-Net of its own for each contrast, which sees that one alone: U-Net-I of JoJoNet.

    Args:
        contrasts: how many; calls have just as many, in the same order.
        width: features at full size.
        depth: halvings.
        blocks: see :class:`SharedUNet`.
        text_width: see :class:`MultiContrastReconstructor`.
        predict_std: likewise.
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
        """See :meth:`MultiContrastReconstructor.forward`.

        Raises:
            InputError: also for another number of contrasts than the network was built for.
        """
        _check_measurement(operators, y)
        if y.shape[1] != len(self.networks):
            raise InputError(
                f"expected the {len(self.networks)} contrasts that this network was built for, "
                f"got {y.shape[1]}: build it with contrasts={y.shape[1]}, or take a network that "
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
        """See :meth:`MultiContrastReconstructor.reconstruct`; there are no states."""
        own: nn.ModuleList = self.networks[contrast]  # type: ignore[assignment]
        return run_cascade(own, operator, zero_filled, embeds, states)


def reconstruct_contrasts(
    network: Reconstructor | MultiContrastReconstructor,
    operators: Sequence[MaskedSense],
    y: Tensor,
    prompt_embeds: Tensor | None = None,
) -> MultiContrastOutput:
    """Reconstruct several contrasts by a network of them, or each by itself.

    Arguments and errors are those of :meth:`MultiContrastReconstructor.forward`.
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
    """One of each contrast, along axis 1, where there are any."""
    known = [value for value in values if value is not None]
    return torch.stack(known, dim=1) if known else None


def unet_cascade(
    width: int, depth: int, blocks: int, text_width: int | None, handed: int
) -> nn.ModuleList:
    """U-Nets for the blocks of a cascade, each with weights of its own.

    Args:
        width: features at full size.
        depth: halvings.
        blocks: how many.
        text_width: see :class:`MultiContrastReconstructor`.
        handed: levels whose features are handed on, from the lowest up.

    Raises:
        InputError: sizes that are not whole numbers from 1 on.
    """
    check_counts(width=width, depth=depth, blocks=blocks)
    return nn.ModuleList(RecurrentUNet(2, width, depth, text_width, handed) for _ in range(blocks))


def _check_measurement(operators: Sequence[MaskedSense], y: Tensor) -> None:
    if not isinstance(operators, Sequence) or len(operators) == 0:
        raise InputError(
            f"expected a sequence of operators, one for each contrast, got {operators!r}: "
            "put a single one into a list"
        )
    if y.ndim != 5 or y.shape[1] != len(operators):
        raise InputError(
            f"expected k-space of shape (batch, {len(operators)}, coils, ny, nx) for "
            f"{len(operators)} operators, got {tuple(y.shape)}; stack the contrasts along axis 1"
        )
