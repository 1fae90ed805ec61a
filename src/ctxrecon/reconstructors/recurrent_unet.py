"""Recurrent networks, in which each contrast helps those that come after it."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import check_counts
from ctxrecon.operators import MaskedSense
from ctxrecon.reconstructors.blocks import to_network
from ctxrecon.reconstructors.multi_contrast import MultiContrastReconstructor, unet_cascade
from ctxrecon.reconstructors.recurrent_blocks import ImageRecurrentUNet, run_cascade


class HRUNet(MultiContrastReconstructor):
    """The holistic recurrent U-Net: features of every decoder level are handed over.

    JoJoNet, Section IV-C: the states of block j go to block j + 1, and those of the last block to
    the first block of the next contrast; the first block of all starts from zeros. Blocks differ
    in their weights, contrasts share them.

    Args:
        width: features at full size; 64/128/256/512 in the paper.
        depth: halvings.
        blocks: U-Nets with data consistency, one after another; ``N_l`` in the paper.
        text_width: see :class:`~.multi_contrast.MultiContrastReconstructor`.
        predict_std: likewise.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        depth: int = 3,
        blocks: int = 3,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        networks = unet_cascade(width, depth, blocks, text_width, handed=depth + 1)
        super().__init__(networks, text_width, predict_std)


class RUNet(MultiContrastReconstructor):
    """The recurrent U-Net, which hands over the features of its bottleneck only.

    The baseline of JoJoNet after Wang et al., ICCV 2019: :class:`HRUNet` but for the levels that
    hand on. Their gated units are left out, so that nothing else differs.

    Args:
        width: see :class:`HRUNet`.
        depth: likewise.
        blocks: likewise.
        text_width: see :class:`~.multi_contrast.MultiContrastReconstructor`.
        predict_std: likewise.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        depth: int = 3,
        blocks: int = 3,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        networks = unet_cascade(width, depth, blocks, text_width, handed=1)
        super().__init__(networks, text_width, predict_std)


class GRUUNet(MultiContrastReconstructor):
    """A U-Net that sees the image of the contrast before, and nothing else of it.

    The baseline "GRU-U-Net" of JoJoNet: a convolution of the previous contrast's reconstruction
    lies beside the zero-filled image (beside that of the block before, with more than one block).
    Its text names no gates, and there are none here. The first contrast sees an image of zeros.

    Args:
        width: see :class:`HRUNet`.
        depth: likewise.
        blocks: U-Nets with data consistency, one after another; the paper's baseline has one.
        text_width: see :class:`~.multi_contrast.MultiContrastReconstructor`.
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
        check_counts(width=width, depth=depth, blocks=blocks)
        networks = nn.ModuleList(
            ImageRecurrentUNet(width, depth, text_width) for _ in range(blocks)
        )
        super().__init__(networks, text_width, predict_std)

    def reconstruct(
        self,
        contrast: int,
        operator: MaskedSense,
        zero_filled: Tensor,
        embeds: Tensor | None,
        states: list[Tensor],
    ) -> tuple[Tensor, list[Tensor]]:
        """See :meth:`MultiContrastReconstructor.reconstruct`; the state is the image."""
        seen = states or [to_network(self, torch.zeros_like(zero_filled))]
        image, _ = run_cascade(self.networks, operator, zero_filled, embeds, seen)
        return image, [to_network(self, image)]
