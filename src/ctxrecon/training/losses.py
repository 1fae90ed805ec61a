"""The denoising loss."""

from __future__ import annotations

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
