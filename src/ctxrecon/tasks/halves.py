"""The halves of Stable Diffusion's autoencoder, of which networks of segmentations are made."""

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
"""Sizes of all halves: for CPUs, and as published."""

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
    """From images to latents, smaller by ``2^(depth − 1)``.

    Args:
        channels: of the images.
        latent_channels: of the latents.
        width: channels of the first level; the next two have twice and four times as many.
        depth: levels.
        layers: residual blocks of a level.
        gaussian: whether mean and log-variance of each latent are given, or one value.

    Raises:
        InputError: sizes that are no positive whole numbers, an odd width, or a single level.
    """
    return Encoder(
        in_channels=channels,
        out_channels=latent_channels,
        down_block_types=("DownEncoderBlock2D",) * depth,
        double_z=gaussian,
        **_levels(width, depth, layers),
    )


def decoder_half(channels: int, out_channels: int, width: int, depth: int, layers: int) -> Decoder:
    """From latents of these channels to images; see :func:`encoder_half`."""
    return Decoder(
        in_channels=channels,
        out_channels=out_channels,
        up_block_types=("UpDecoderBlock2D",) * depth,
        **_levels(width, depth, layers),
    )


def check_size(images: Tensor, depth: int) -> None:
    """Refuse images ``(…, ny, nx)`` that cannot be halved as often as these levels do.

    Raises:
        InputError: a matrix size that is no multiple of ``2^(depth − 1)``.
    """
    factor = 2 ** (depth - 1)
    ny, nx = images.shape[-2:]
    if ny % factor or nx % factor:
        raise InputError(
            f"this network takes matrix sizes that are multiples of {factor}, got {ny}×{nx}: "
            "crop or pad the images"
        )


def check_classes(num_classes: int) -> None:
    """Refuse fewer than two classes.

    Raises:
        InputError: also for what is no whole number.
    """
    check_counts(classes=num_classes)
    if num_classes < 2:
        raise InputError("expected two classes or more, the background and what is segmented")


def _levels(width: int, depth: int, layers: int) -> dict[str, Any]:
    check_counts(width=width, depth=depth, layers=layers)
    if width % 2 or depth < 2:
        raise InputError(
            f"expected an even width and two levels or more, got {width} and {depth} levels"
        )
    return {
        "block_out_channels": tuple(width * min(2**level, _WIDEST) for level in range(depth)),
        "layers_per_block": layers,
        "norm_num_groups": math.gcd(32, width // 2),
    }
