"""Recurrent multi-contrast networks, in which each contrast supports the following ones."""

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
    """Holistic recurrent U-Net: the features of every decoder level are passed on.

    JoJoNet, Section IV-C: the states of block j are passed to block j + 1, and those of the last
    block to the first block of the next contrast. The very first block starts from zeros. Each
    block has its own weights, which are shared by all contrasts.

    Args:
        width: Number of features at full resolution; 64/128/256/512 by level in the paper.
        depth: Number of downsampling steps.
        blocks: Number of successive U-Nets with data consistency; ``N_l`` in the paper.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import HRUNet
        >>> operators = [CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))] * 2
        >>> network = HRUNet(width=4, depth=2, blocks=1)
        >>> network(operators, torch.ones(1, 2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([1, 2, 32, 32])
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
    """Recurrent U-Net that passes on the features of its bottleneck only.

    The baseline of JoJoNet after Wang et al., ICCV 2019: identical to :class:`HRUNet` except for
    the levels that are passed on. The gated units of the original are left out, so that nothing
    else differs.

    Args:
        width: Number of features at full resolution.
        depth: Number of downsampling steps.
        blocks: Number of successive U-Nets with data consistency.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import RUNet
        >>> operators = [CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))] * 2
        >>> network = RUNet(width=4, depth=2, blocks=1)
        >>> network(operators, torch.ones(1, 2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([1, 2, 32, 32])
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
    """U-Net that also receives the reconstruction of the previous contrast.

    The baseline "GRU-U-Net" of JoJoNet: a convolution of the previous contrast's reconstruction is
    concatenated to the zero-filled image, or to the image of the previous block. The paper's text
    mentions no gates, and this network has none. The first contrast receives an image of zeros.

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
        >>> from ctxrecon.reconstructors import GRUUNet
        >>> operators = [CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))] * 2
        >>> network = GRUUNet(width=4, depth=2)
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
        """Return the image as :meth:`MultiContrastReconstructor.reconstruct`; it is the state."""
        seen = states or [to_network(self, torch.zeros_like(zero_filled))]
        image, _ = run_cascade(self.networks, operator, zero_filled, embeds, seen)
        return image, [to_network(self, image)]
