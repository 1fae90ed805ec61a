"""Convolutional building blocks: plain, residual and U-shaped, with features modulated by text."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxrecon.fourier import channels_to_complex, complex_to_channels

_SLOPE = 0.2


class Convolution(nn.Conv2d):
    """3×3, of the input's size."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)


class Modulation(nn.Module):
    """``h (1 + a(e)) + b(e)``, a and b linear in the prompt's embedding e and 0 to start with.

    Feature-wise linear modulation (Perez et al., AAAI 2018).

    Args:
        text_width: width of e; ``None`` for a block that reads no prompt and changes nothing.
        channels: of the features h.
    """

    def __init__(self, text_width: int | None, channels: int) -> None:
        super().__init__()
        self.linear = None if text_width is None else nn.Linear(text_width, 2 * channels)
        for value in self.parameters():
            nn.init.zeros_(value)

    def forward(self, features: Tensor, embeds: Tensor | None) -> Tensor:
        """Modulated features ``(batch, channels, ny, nx)``."""
        if self.linear is None or embeds is None:
            return features
        embeds = embeds.to(self.linear.weight.dtype)
        factor, shift = self.linear(embeds)[:, :, None, None].chunk(2, dim=1)
        return features * (1 + factor) + shift


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity, which they are to start with."""

    def __init__(self, channels: int, text_width: int | None) -> None:
        super().__init__()
        self.first, self.second = Convolution(channels, channels), Convolution(channels, channels)
        self.modulation = Modulation(text_width, channels)
        for value in self.second.parameters():
            nn.init.zeros_(value)

    def forward(self, features: Tensor, embeds: Tensor | None) -> Tensor:
        """Of the input's shape."""
        inner = self.modulation(self.first(functional.relu(features)), embeds)
        return features + self.second(functional.relu(inner, inplace=True))


class ResNet(nn.Module):
    """A convolution, residual blocks, and convolutions back to the image's channels.

    Its output is 0 to start with, so that what adds it to an image starts from the physics alone.

    Args:
        channels: in and out.
        width: of the features.
        blocks: number of residual blocks.
        last: number of convolutions after them.
        text_width: see :class:`Modulation`.
        out_channels: of the output, where they are others.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        blocks: int,
        last: int,
        text_width: int | None,
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.first = Convolution(channels, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, text_width) for _ in range(blocks))
        self.middle = nn.ModuleList(Convolution(width, width) for _ in range(last - 1))
        self.last = Convolution(width, out_channels or channels)
        for value in self.last.parameters():
            nn.init.zeros_(value)

    def forward(self, x: Tensor, embeds: Tensor | None) -> Tensor:
        """``(batch, channels, ny, nx)``."""
        features = self.first(channels_last(x))
        for block in self.blocks:
            features = block(features, embeds)
        for convolution in self.middle:
            features = convolution(functional.relu(features))
        return self.last(functional.relu(features))


class ConvolutionBlock(nn.Module):
    """Two convolutions, each normalised over the pixels of a slice and rectified."""

    def __init__(self, in_channels: int, out_channels: int, text_width: int | None) -> None:
        super().__init__()
        self.first = Convolution(in_channels, out_channels, bias=False)
        self.second = Convolution(out_channels, out_channels, bias=False)
        self.modulation = Modulation(text_width, out_channels)

    def forward(self, features: Tensor, embeds: Tensor | None) -> Tensor:
        """``(batch, out_channels, ny, nx)``."""
        features = functional.leaky_relu(
            functional.instance_norm(self.first(features)), _SLOPE, inplace=True
        )
        features = self.modulation(functional.instance_norm(self.second(features)), embeds)
        return functional.leaky_relu(features, _SLOPE, inplace=True)


class UNet(nn.Module):
    """The U-Net of fastMRI (arXiv:1811.08839), for any matrix size; its output is 0 to start with.

    Args:
        channels: in and out.
        width: of the features at full size; twice as many at each half of it.
        depth: number of halvings.
        text_width: see :class:`Modulation`.
        out_channels: of the output, where they are others.
        beside: further channels in, which have none out.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        text_width: int | None,
        out_channels: int | None = None,
        *,
        beside: int = 0,
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            ConvolutionBlock(before, after, text_width)
            for before, after in zip([channels + beside, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * after, after, 2, stride=2) for after in widths[-2::-1]
        )
        self.merge = nn.ModuleList(
            ConvolutionBlock(2 * after, after, text_width) for after in widths[-2::-1]
        )
        self.last = nn.Conv2d(width, out_channels or channels, 1)
        for value in self.last.parameters():
            nn.init.zeros_(value)
        self.multiple = 2**depth

    def forward(self, x: Tensor, embeds: Tensor | None) -> Tensor:
        """``(batch, channels, ny, nx)`` of ``(batch, channels + beside, ny, nx)``.

        Padded with zeros inside where halves are not whole.
        """
        ny, nx = x.shape[-2:]
        # One pixel alone could not be normalised.
        features = pad_to_multiple(x, self.multiple, least=2)
        skipped = []
        for level, block in enumerate(self.down):
            if level:
                features = functional.avg_pool2d(features, 2)
            features = block(features, embeds)
            skipped.append(features)
        skipped.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat([up(features), skipped.pop()], dim=1), embeds)
        return self.last(features)[..., :ny, :nx]


class ResidualUNet(nn.Module):
    """A U-Net of residual blocks without normalisation; its output is 0 to start with.

    DRUNet (Zhang et al., IEEE Trans Pattern Anal Mach Intell 44:6360, 2022) with one block a level:
    strided convolutions between the levels; what was skipped is added, here after the features have
    grown. Nothing is divided by their spread, so the intensity of an image is not lost.

    Args:
        channels: in and out.
        width: of the features at full size; twice as many at each half of it.
        depth: number of halvings.
        text_width: see :class:`Modulation`.
        out_channels: of the output, where they are others.
        widest: most features of a level; no limit by default.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        text_width: int | None,
        out_channels: int | None = None,
        *,
        widest: int | None = None,
    ) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        if widest is not None:
            widths = [min(each, widest) for each in widths]
        self.first = Convolution(channels, width)
        self.down = nn.ModuleList(ResidualBlock(each, text_width) for each in widths)
        self.shrink = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2)
            for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.up = nn.ModuleList(ResidualBlock(each, text_width) for each in widths[-2::-1])
        self.last = Convolution(width, out_channels or channels)
        for value in self.last.parameters():
            nn.init.zeros_(value)
        self.multiple = 2**depth

    def forward(self, x: Tensor, embeds: Tensor | None) -> Tensor:
        """``(batch, channels, ny, nx)``; padded with zeros inside where halves are not whole."""
        ny, nx = x.shape[-2:]
        features = channels_last(pad_to_multiple(x, self.multiple))
        features = self.down[0](self.first(features), embeds)
        skipped = []
        for shrink, block in zip(self.shrink, self.down[1:], strict=True):
            skipped.append(features)
            features = block(shrink(features), embeds)
        for grow, block in zip(self.grow, self.up, strict=True):
            features = block(grow(features) + skipped.pop(), embeds)
        return self.last(functional.relu(features))[..., :ny, :nx]


def pad_to_multiple(x: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Zeros after the last rows and columns, up to a multiple, at least ``least`` times it."""
    full_ny, full_nx = (max(math.ceil(n / multiple), least) * multiple for n in x.shape[-2:])
    return functional.pad(x, (0, full_nx - x.shape[-1], 0, full_ny - x.shape[-2]))


def channels_last(x: Tensor) -> Tensor:
    """The same with the channels of a pixel beside each other in memory, and so what comes of it.

    Convolutions are up to twice as fast so; instance normalisation is slower, and costs the gain.
    """
    return x.contiguous(memory_format=torch.channels_last)


def on_image(
    network: nn.Module, image: Tensor, embeds: Tensor | None, beside: Tensor | None = None
) -> Tensor:
    """A network of two channels on a complex image ``(batch, ny, nx)``, in its own precision.

    Args:
        network: with two channels more where there is an image ``beside``.
        image: complex.
        embeds: of prompts, see :class:`Modulation`.
        beside: another complex image that the network sees.
    """
    return with_variance(network, image, embeds, beside)[0]


def with_variance(
    network: nn.Module, image: Tensor, embeds: Tensor | None, beside: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """:func:`on_image`, and the channels after the image's, if the network gives more."""
    seen = to_network(network, image)
    if beside is not None:
        seen = torch.cat([seen, to_network(network, beside)], dim=1)
    return image_and_variance(network(seen, embeds))


def image_and_variance(channels: Tensor) -> tuple[Tensor, Tensor | None]:
    """A complex image of the first two channels, and those after them, if there are any."""
    rest = channels[:, 2:]
    return channels_to_complex(channels[:, :2]), rest if rest.shape[1] else None


def to_network(network: nn.Module, image: Tensor) -> Tensor:
    """A complex image as ``(batch, 2, ny, nx)`` in the precision of the network."""
    return complex_to_channels(image).to(next(network.parameters()).dtype)
