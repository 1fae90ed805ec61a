"""The denoising loss, and at which timesteps it is taken."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError


def denoising_loss(
    unet: Any,
    alphas_cumprod: Tensor,
    images: Tensor,
    text_states: Tensor,
    *,
    prediction_type: str,
    timesteps: Tensor,
    noise: Tensor,
) -> Tensor:
    """Mean squared error of the network's prediction, one value for each sample.

    With ``x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε`` the target is ``ε`` (Ho et al., 2020) or
    ``v = √ᾱ_t ε − √(1−ᾱ_t) x_0`` (Salimans & Ho, 2022).

    Args:
        unet: ``UNet2DConditionModel``.
        alphas_cumprod: ``(T,)`` float32 on the images' device.
        images: ``(batch, 2, ny, nx)``, 99 % quantile of the magnitude at 1.
        text_states: ``(batch, tokens, width)``.
        prediction_type: ``"epsilon"`` or ``"v_prediction"``, as in the scheduler's configuration.
        timesteps: ``(batch,)`` long.
        noise: as ``images``, unit variance in each channel.
    """
    alpha_bar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    signal, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    noisy = signal * images + sigma * noise
    if prediction_type == "epsilon":
        target = noise
    elif prediction_type == "v_prediction":
        target = signal * noise - sigma * images
    else:
        raise InputError(
            f"expected prediction type 'epsilon' or 'v_prediction', got {prediction_type!r}"
        )
    prediction = unet(noisy, timesteps, text_states).sample
    return torch.mean((prediction.float() - target) ** 2, dim=(1, 2, 3))


def spread_timestep(number: int, num_steps: int) -> int:
    """Timestep of the training sample of this number, from 0 to ``num_steps − 1``.

    The multiples of the golden ratio modulo 1: consecutive numbers spread evenly, so that every
    batch, of any size, holds all levels of noise, and the loss varies less than with independent
    draws (the aim of the low-discrepancy sampler of Kingma et al., arXiv:2107.00630).
    """
    return int(number * (math.sqrt(5) - 1) / 2 % 1 * num_steps)
