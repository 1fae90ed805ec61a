"""Encoder and decoder of Stable Diffusion's autoencoder, from which segmenters are built."""

from __future__ import annotations

import math
from typing import Any

from diffusers.models.autoencoders.vae import Decoder, Encoder
from torch import Tensor

from ctxrecon.errors import InputError, check_counts

PRESETS: dict[str, dict[str, int]] = {
    "small": {"width": 16, "depth": 3},
    "paper": {"width": 128, "depth": 4},
}
"""Network sizes: "small" for CPUs, and "paper" as published."""

_WIDEST = 4


def encoder_half(
    channels: int,
    latent_channels: int,
    width: int,
    depth: int,
    layers: int,
    *,
    gaussian: bool = True,
) -> Encoder:
    """Build an encoder from images to latents that are smaller by ``2^(depth − 1)``.

    Args:
        channels: Number of image channels.
        latent_channels: Number of latent channels.
        width: Number of channels of the first level; the next two have twice and four times as
            many.
        depth: Number of levels.
        layers: Number of residual blocks per level.
        gaussian: If true, the output is the mean and log-variance of each latent; otherwise a
            single value.

    Raises:
        InputError: If a size is not a positive whole number, the width is odd, or there is only
            one level.
    """
    return Encoder(
        in_channels=channels,
        out_channels=latent_channels,
        down_block_types=("DownEncoderBlock2D",) * depth,
        double_z=gaussian,
        **_levels(width, depth, layers),
    )


def decoder_half(channels: int, out_channels: int, width: int, depth: int, layers: int) -> Decoder:
    """Build a decoder from latents to images, with the sizes of :func:`encoder_half`."""
    return Decoder(
        in_channels=channels,
        out_channels=out_channels,
        up_block_types=("UpDecoderBlock2D",) * depth,
        **_levels(width, depth, layers),
    )


def check_size(images: Tensor, depth: int) -> None:
    """Validate that images ``(…, ny, nx)`` can be downsampled by all levels.

    Raises:
        InputError: If the matrix size is not a multiple of ``2^(depth − 1)``.
    """
    factor = 2 ** (depth - 1)
    ny, nx = images.shape[-2:]
    if ny % factor or nx % factor:
        raise InputError(
            f"this network needs matrix sizes that are multiples of {factor}, got {ny}×{nx}: "
            "crop or pad the images"
        )


def check_classes(num_classes: int) -> None:
    """Validate that there are at least two classes.

    Raises:
        InputError: If ``num_classes`` is not a whole number of at least two.
    """
    check_counts(classes=num_classes)
    if num_classes < 2:
        raise InputError("expected at least two classes, the background and a segmented structure")


def _levels(width: int, depth: int, layers: int) -> dict[str, Any]:
    check_counts(width=width, depth=depth, layers=layers)
    if width % 2 or depth < 2:
        raise InputError(
            f"expected an even `width` and `depth` of at least 2, got {width} and {depth}"
        )
    return {
        "block_out_channels": tuple(width * min(2**level, _WIDEST) for level in range(depth)),
        "layers_per_block": layers,
        "norm_num_groups": math.gcd(32, width // 2),
    }
