"""A U-Net that hands the features of its decoder on, and what makes a cascade of such networks."""

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
    """A U-Net whose decoder reads, and hands on, the features of its levels.

    Level n of the decoder, n = 1 the lowest, merges what comes up from below, ``d_{n−1}``, the
    encoder's features ``s_n`` and a convolution of the hidden state ``h_n`` that it was given. Its
    output is both ``d_n`` and the next ``h_n``: the holistic recurrent U-Net of JoJoNet
    (Section IV-C, Figure 3). The lowest level has no ``s_n``; there ``d_0`` is what the encoder
    gives. Without levels that hand on it is the plain :class:`~.blocks.UNet`. Its
    image is 0 to start with.

    Args:
        in_channels: of the input.
        width: of the features at full size; twice as many at each half of it.
        depth: number of halvings.
        text_width: see :class:`~.blocks.Modulation`.
        handed: number of levels, from the lowest up, that hand on their features; ``depth + 1``
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
        """The image's two channels ``(batch, 2, ny, nx)``, and the states to hand on.

        Args:
            x: ``(batch, in_channels, ny, nx)``; padded with zeros inside where halves are not
                whole.
            embeds: ``(batch, text_width)``, or ``None`` where no prompt is read.
            states: ``h_n`` as a network of the same sizes gave them, the lowest level first; empty
                for the first network of all, whose hidden state is 0.
        """
        ny, nx = x.shape[-2:]
        # One pixel alone could not be normalised.
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
        """The convolution of ``h_n``, of the matrix size of ``like``."""
        if states:
            return self.hand[level](states[level])
        # A convolution of zeros, not left out: every parameter is used by every call.
        shape = (len(like), self.state_widths[level], *like.shape[-2:])
        return self.hand[level](like.new_zeros(shape))


class ImageRecurrentUNet(nn.Module):
    """A U-Net beside whose input a convolution of the previous contrast's image is laid.

    The state is that image alone, ``(batch, 2, ny, nx)``, and is handed on as it came.

    Args:
        width: of the U-Net's features at full size, and of the convolution.
        depth: number of halvings.
        text_width: see :class:`~.blocks.Modulation`.
    """

    def __init__(self, width: int, depth: int, text_width: int | None) -> None:
        super().__init__()
        self.hand = Convolution(2, width)
        self.network = RecurrentUNet(2 + width, width, depth, text_width, handed=0)

    def forward(
        self, x: Tensor, embeds: Tensor | None, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`RecurrentUNet.forward`, with the one state."""
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
    """``x ← DC(x + U_j(x, h))`` for each block j, from ``x = Aᴴy``, each state handed to the next.

    The direct connection makes the network learn residuals; DC, formula (4) of JoJoNet with coil
    maps, puts what was measured back in place
    (:func:`~ctxrecon.reconstructors.generators.hard_data_consistency`).

    Args:
        networks: ``U_j``, which give a correction and their states.
        operator: ``A``.
        zero_filled: ``Aᴴ y``, ``(batch, ny, nx)`` complex64.
        embeds: ``(batch, text_width)``, or ``None``.
        states: for the first network.

    Returns:
        The image, and the states of the last network.
    """
    x = zero_filled
    for network in networks:
        correction, states = network(to_network(network, x), embeds, states)
        x = hard_data_consistency(operator, x + channels_to_complex(correction), zero_filled)
    return x, states
