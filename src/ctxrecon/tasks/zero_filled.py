"""What networks of tasks see: the zero-filled image free of its scale, and segmentations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctxrecon.fourier import complex_to_channels
from ctxrecon.intensity import intensity_scale


def as_channels(network: nn.Module, zero_filled: Tensor) -> tuple[Tensor, Tensor]:
    """Channels ``(batch, 2, ny, nx)`` in a network's precision, and the scale ``(batch, 1, 1)``.

    Args:
        network: that sees them.
        zero_filled: ``Aᴴ y``, ``(batch, ny, nx)`` complex64, of any intensity; divided by the 99 %
            quantile of its magnitude.
    """
    scale = intensity_scale(zero_filled, interpolation="linear")[:, None, None]
    channels = complex_to_channels(zero_filled / scale)
    return channels.to(next(network.parameters()).dtype), scale


def one_hot(network: nn.Module, labels: Tensor, num_classes: int) -> Tensor:
    """A channel for each class but the background, ``(batch, num_classes − 1, ny, nx)``.

    Args:
        network: that sees them, in whose precision they are.
        labels: ``(batch, ny, nx)`` whole numbers.
        num_classes: the background included.
    """
    classes = torch.arange(1, num_classes, device=labels.device)
    marked = labels[:, None] == classes[:, None, None]
    return marked.to(next(network.parameters()).dtype)
