"""Network inputs for tasks: normalized zero-filled images and one-hot segmentations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctxrecon.fourier import complex_to_channels
from ctxrecon.intensity import intensity_scale


def as_channels(network: nn.Module, zero_filled: Tensor) -> tuple[Tensor, Tensor]:
    """Convert zero-filled images to network channels and an intensity scale.

    Args:
        network: Network that receives them and determines their dtype.
        zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64, of arbitrary
            intensity; divided by the 99 % quantile of their magnitude.

    Returns:
        Channels ``(batch, 2, ny, nx)`` and the scale ``(batch, 1, 1)``.
    """
    scale = intensity_scale(zero_filled, interpolation="linear")[:, None, None]
    channels = complex_to_channels(zero_filled / scale)
    return channels.to(next(network.parameters()).dtype), scale


def one_hot(network: nn.Module, labels: Tensor, num_classes: int) -> Tensor:
    """Convert labels to one channel per class except the background.

    Args:
        network: Network that receives them and determines their dtype.
        labels: Integer labels ``(batch, ny, nx)``.
        num_classes: Number of classes, background included.

    Returns:
        Channels ``(batch, num_classes − 1, ny, nx)``.
    """
    classes = torch.arange(1, num_classes, device=labels.device)
    marked = labels[:, None] == classes[:, None, None]
    return marked.to(next(network.parameters()).dtype)
