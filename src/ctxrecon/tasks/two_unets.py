"""A reconstruction network followed by a segmentation network."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from ctxrecon.errors import check_counts
from ctxrecon.reconstructors.blocks import UNet
from ctxrecon.tasks.halves import check_classes
from ctxrecon.tasks.segmenter import DeterministicSegmenter
from ctxrecon.tasks.zero_filled import as_channels

UNET_PRESETS: dict[str, dict[str, int]] = {
    "small": {"width": 16, "depth": 3},
    "paper": {"width": 64, "depth": 4},
}
"""Sizes of both networks: "small" for CPUs, and "paper" as published."""


class TwoUNets(DeterministicSegmenter):
    """A U-Net from the zero-filled image to a magnitude image, and one from there to classes.

    The networks of SemuNet, Tackle, LOUPE-UNet-RS and TradPat-UNet-RS in InfoMRI's comparison,
    which differ in their training: both losses jointly, the task only, or one after the other.

    Args:
        num_classes: Number of classes, background included.
        width: Number of features at full resolution.
        depth: Number of downsampling steps.

    Raises:
        InputError: If a size is not a positive whole number, or there are fewer than two classes.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import TwoUNets
        >>> segmenter = TwoUNets(num_classes=3, width=4, depth=2)
        >>> zero_filled = torch.ones(1, 32, 32, dtype=torch.complex64)
        >>> noise = torch.zeros(1, 1, 0)  # the network is deterministic
        >>> segmenter(zero_filled, noise).shape
        torch.Size([1, 1, 3, 32, 32])
    """

    @register_to_config
    def __init__(self, num_classes: int = 2, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        check_counts(width=width, depth=depth)
        check_classes(num_classes)
        self.reconstruction = UNet(2, width, depth, None, 1)
        self.segmentation = UNet(1, width, depth, None, num_classes)

    def encode(self, zero_filled: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scaled image ``(batch, 1, ny, nx)``, float32, and its intensity scale."""
        channels, scale = as_channels(self, zero_filled)
        correction = self.reconstruction(channels, None).float()
        return (zero_filled / scale).abs()[:, None] + correction, scale

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits, see :class:`~ctxrecon.tasks.segmenter.DeterministicSegmenter`."""
        dtype = next(self.parameters()).dtype
        return self.segmentation(features.to(dtype), None).float()

    def images(self, features: Tensor, scale: Tensor) -> Tensor:
        """Return the magnitude images as ``(batch, ny, nx)`` complex64."""
        return (features[:, 0].clamp_min(0) * scale).to(torch.complex64)
