"""Recurrent U-Nets whose decoder features are passed on, and cascades of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxrecon.fourier import channels_to_complex
from ctxrecon.operators import MaskedSense
from ctxrecon.reconstructors.blocks import (
    Convolution,
    ConvolutionBlock,
    pad_to_multiple,
    to_network,
)
from ctxrecon.reconstructors.generators import hard_data_consistency


class RecurrentUNet(nn.Module):
    """U-Net whose decoder reads and passes on the features of its levels.

    Level n of the decoder, with n = 1 the lowest, merges the output ``d_{n−1}`` of the level below,
    the encoder's features ``s_n`` and a convolution of the received hidden state ``h_n``. Its
    output is both ``d_n`` and the next ``h_n``: the holistic recurrent U-Net of JoJoNet
    (Section IV-C, Figure 3). The lowest level has no ``s_n``; its ``d_0`` is the encoder's output.
    If no level passes on its features, the network is the plain :class:`~.blocks.UNet`. The output
    is initially 0.

    Args:
        in_channels: Number of input channels.
        width: Number of features at full resolution, doubled at each downsampling step.
        depth: Number of downsampling steps.
        text_width: Width of the prompt embeddings, see :class:`~.blocks.Modulation`.
        handed: Number of levels, from the lowest up, that pass on their features; ``depth + 1``
            for all.
    """

    def __init__(
        self, in_channels: int, width: int, depth: int, text_width: int | None, handed: int
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        before = [in_channels, *widths]
        self.down = nn.ModuleList(
            ConvolutionBlock(before[level], widths[level], text_width) for level in range(depth)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * after, after, 2, stride=2) for after in widths[-2::-1]
        )
        lowest_first = widths[::-1]
        self.state_widths = lowest_first[:handed]
        self.hand = nn.ModuleList(Convolution(after, after) for after in self.state_widths)
        seen = [before[depth], *(2 * after for after in lowest_first[1:])]
        self.merge = nn.ModuleList(
            ConvolutionBlock(channels + (after if level < handed else 0), after, text_width)
            for level, (channels, after) in enumerate(zip(seen, lowest_first, strict=True))
        )
        self.last = nn.Conv2d(width, 2, 1)
        for value in self.last.parameters():
            nn.init.zeros_(value)
        self.multiple = 2**depth

    def forward(
        self, x: Tensor, embeds: Tensor | None, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the image channels ``(batch, 2, ny, nx)`` and the states to pass on.

        Args:
            x: Input ``(batch, in_channels, ny, nx)``, zero-padded internally to a multiple of
                ``2^depth``.
            embeds: Prompt embeddings ``(batch, text_width)``, or ``None`` for a network without
                text conditioning.
            states: Hidden states ``h_n`` from a network of the same size, lowest level first;
                empty for the very first network, whose hidden states are 0.
        """
        ny, nx = x.shape[-2:]
        # Instance normalization needs more than one pixel.
        features = pad_to_multiple(x, self.multiple, least=2)
        skipped = []
        for block in self.down:
            features = block(features, embeds)
            skipped.append(features)
            features = functional.avg_pool2d(features, 2)
        handed_on = []
        for level, merge in enumerate(self.merge):
            seen = [features] if level == 0 else [self.up[level - 1](features), skipped.pop()]
            if level < len(self.hand):
                seen.append(self._state(level, states, like=seen[0]))
            features = merge(torch.cat(seen, dim=1), embeds)
            if level < len(self.hand):
                handed_on.append(features)
        return self.last(features)[..., :ny, :nx], handed_on

    def _state(self, level: int, states: list[Tensor], like: Tensor) -> Tensor:
        """Return the convolution of ``h_n``, with the matrix size of ``like``."""
        if states:
            return self.hand[level](states[level])
        # Convolve zeros rather than skip the layer, so that every call uses every parameter.
        shape = (len(like), self.state_widths[level], *like.shape[-2:])
        return self.hand[level](like.new_zeros(shape))


class ImageRecurrentUNet(nn.Module):
    """U-Net that also receives a convolution of the previous contrast's image.

    The state consists of this image, ``(batch, 2, ny, nx)``, and is passed on unchanged.

    Args:
        width: Number of features of the U-Net at full resolution, and of the convolution.
        depth: Number of downsampling steps.
        text_width: Width of the prompt embeddings, see :class:`~.blocks.Modulation`.
    """

    def __init__(self, width: int, depth: int, text_width: int | None) -> None:
        super().__init__()
        self.hand = Convolution(2, width)
        self.network = RecurrentUNet(2 + width, width, depth, text_width, handed=0)

    def forward(
        self, x: Tensor, embeds: Tensor | None, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the correction as :meth:`RecurrentUNet.forward`, and the unchanged state."""
        (image,) = states
        correction, _ = self.network(torch.cat([x, self.hand(image)], dim=1), embeds, [])
        return correction, states


def run_cascade(
    networks: Iterable[nn.Module],
    operator: MaskedSense,
    zero_filled: Tensor,
    embeds: Tensor | None,
    states: list[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Run ``x ← DC(x + U_j(x, h))`` for each block j from ``x = Aᴴy``, passing on the states.

    The skip connection makes the networks learn residuals. DC is formula (4) of JoJoNet with coil
    maps and restores the measured samples
    (:func:`~ctxrecon.reconstructors.generators.hard_data_consistency`).

    Args:
        networks: Networks ``U_j``, which return a correction and their states.
        operator: Forward operator ``A``.
        zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64.
        embeds: Prompt embeddings ``(batch, text_width)``, or ``None``.
        states: States for the first network.

    Returns:
        The image, and the states of the last network.
    """
    x = zero_filled
    for network in networks:
        correction, states = network(to_network(network, x), embeds, states)
        x = hard_data_consistency(operator, x + channels_to_complex(correction), zero_filled)
    return x, states
