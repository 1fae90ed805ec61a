"""Convolutional building blocks with text modulation: ResNet, U-Net and residual U-Net."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctxrecon.fourier import channels_to_complex, complex_to_channels

_SLOPE = 0.2


class Convolution(nn.Conv2d):
    """3×3 convolution that preserves the image size."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias)


class Modulation(nn.Module):
    """Feature-wise linear modulation ``h (1 + a(e)) + b(e)`` by a prompt embedding e.

    a and b are linear and initially 0 (Perez et al., AAAI 2018).

    Args:
        text_width: Width of e; ``None`` for a block without text conditioning, the identity.
        channels: Number of features h.
    """

    def __init__(self, text_width: int | None, channels: int) -> None:
        super().__init__()
        self.linear = None if text_width is None else nn.Linear(text_width, 2 * channels)
        for value in self.parameters():
            nn.init.zeros_(value)

    def forward(self, features: Tensor, embeds: Tensor | None) -> Tensor:
        """Return modulated features ``(batch, channels, ny, nx)``."""
        if self.linear is None or embeds is None:
            return features
        embeds = embeds.to(self.linear.weight.dtype)
        factor, shift = self.linear(embeds)[:, :, None, None].chunk(2, dim=1)
        return features * (1 + factor) + shift


class ResidualBlock(nn.Module):
    """Residual block of two convolutions, initially the identity."""

    def __init__(self, channels: int, text_width: int | None) -> None:
        super().__init__()
        self.first, self.second = Convolution(channels, channels), Convolution(channels, channels)
        self.modulation = Modulation(text_width, channels)
        for value in self.second.parameters():
            nn.init.zeros_(value)

    def forward(self, features: Tensor, embeds: Tensor | None) -> Tensor:
        """Return features of the input's shape."""
        inner = self.modulation(self.first(functional.relu(features)), embeds)
        return features + self.second(functional.relu(inner, inplace=True))


class ResNet(nn.Module):
    """A convolution, residual blocks, and convolutions back to the image channels.

    The output is initially 0, so that an image to which it is added starts from the physics alone.

    Args:
        channels: Number of input channels, and of output channels by default.
        width: Number of features.
        blocks: Number of residual blocks.
        last: Number of convolutions after the blocks.
        text_width: Width of the prompt embeddings, see :class:`Modulation`.
        out_channels: Number of output channels (default: ``channels``).
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
        """Return ``(batch, out_channels, ny, nx)``."""
        features = self.first(channels_last(x))
        for block in self.blocks:
            features = block(features, embeds)
        for convolution in self.middle:
            features = convolution(functional.relu(features))
        return self.last(functional.relu(features))


class ConvolutionBlock(nn.Module):
    """Two convolutions, each followed by instance normalization and a leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, text_width: int | None) -> None:
        super().__init__()
        self.first = Convolution(in_channels, out_channels, bias=False)
        self.second = Convolution(out_channels, out_channels, bias=False)
        self.modulation = Modulation(text_width, out_channels)

    def forward(self, features: Tensor, embeds: Tensor | None) -> Tensor:
        """Return ``(batch, out_channels, ny, nx)``."""
        features = functional.leaky_relu(
            functional.instance_norm(self.first(features)), _SLOPE, inplace=True
        )
        features = self.modulation(functional.instance_norm(self.second(features)), embeds)
        return functional.leaky_relu(features, _SLOPE, inplace=True)


class UNet(nn.Module):
    """U-Net of fastMRI (arXiv:1811.08839) for any matrix size; its output is initially 0.

    Args:
        channels: Number of input channels, and of output channels by default.
        width: Number of features at full resolution, doubled at each downsampling step.
        depth: Number of downsampling steps.
        text_width: Width of the prompt embeddings, see :class:`Modulation`.
        out_channels: Number of output channels (default: ``channels``).
        beside: Number of additional input channels.
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
        """Map ``(batch, channels + beside, ny, nx)`` to ``(batch, out_channels, ny, nx)``.

        The input is zero-padded internally to a multiple of ``2^depth``.
        """
        ny, nx = x.shape[-2:]
        # Instance normalization needs more than one pixel.
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
    """U-Net of residual blocks without normalization; its output is initially 0.

    DRUNet (Zhang et al., IEEE Trans Pattern Anal Mach Intell 44:6360, 2022) with one block per
    level. Levels are connected by strided convolutions, and skip connections are added after
    upsampling. Without normalization the intensity of the image is preserved.

    Args:
        channels: Number of input channels, and of output channels by default.
        width: Number of features at full resolution, doubled at each downsampling step.
        depth: Number of downsampling steps.
        text_width: Width of the prompt embeddings, see :class:`Modulation`.
        out_channels: Number of output channels (default: ``channels``).
        widest: Maximum number of features of a level (default: unlimited).
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
        """Return ``(batch, out_channels, ny, nx)``; the input is zero-padded internally."""
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
    """Pad the end of both axes with zeros to a multiple, at least ``least`` times ``multiple``."""
    full_ny, full_nx = (max(math.ceil(n / multiple), least) * multiple for n in x.shape[-2:])
    return functional.pad(x, (0, full_nx - x.shape[-1], 0, full_ny - x.shape[-2]))


def channels_last(x: Tensor) -> Tensor:
    """Convert to channels-last memory format, which propagates to the output.

    Convolutions are up to twice as fast in this format. Instance normalization is slower and
    offsets the gain.
    """
    return x.contiguous(memory_format=torch.channels_last)


def on_image(
    network: nn.Module, image: Tensor, embeds: Tensor | None, beside: Tensor | None = None
) -> Tensor:
    """Apply a network to a complex image ``(batch, ny, nx)``, in the precision of the network.

    Args:
        network: Network of two image channels, with two more input channels if ``beside`` is given.
        image: Complex image.
        embeds: Prompt embeddings, see :class:`Modulation`.
        beside: Second complex image as an additional input.
    """
    return with_variance(network, image, embeds, beside)[0]


def with_variance(
    network: nn.Module, image: Tensor, embeds: Tensor | None, beside: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Apply a network as :func:`on_image`; also return the channels after the image, if any."""
    seen = to_network(network, image)
    if beside is not None:
        seen = torch.cat([seen, to_network(network, beside)], dim=1)
    return image_and_variance(network(seen, embeds))


def image_and_variance(channels: Tensor) -> tuple[Tensor, Tensor | None]:
    """Split channels into a complex image of the first two and the remaining ones, if any."""
    rest = channels[:, 2:]
    return channels_to_complex(channels[:, :2]), rest if rest.shape[1] else None


def to_network(network: nn.Module, image: Tensor) -> Tensor:
    """Convert a complex image to ``(batch, 2, ny, nx)`` in the precision of the network."""
    return complex_to_channels(image).to(next(network.parameters()).dtype)
