"""Prior as a trainable module: denoising loss, loss weights and timesteps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.training.prior.config import LOSS_WEIGHTINGS, TIMESTEP_DENSITIES


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
    """Return the mean squared error of the network's prediction, one value per sample.

    With ``x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε`` the target is ``ε`` (Ho et al., 2020) or
    ``v = √ᾱ_t ε − √(1−ᾱ_t) x_0`` (Salimans & Ho, 2022).

    Args:
        unet: ``UNet2DConditionModel``.
        alphas_cumprod: Cumulative products ᾱ, ``(T,)`` float32 on the images' device.
        images: Images ``(batch, 2, ny, nx)`` with the 99 % quantile of the magnitude at 1.
        text_states: Text states ``(batch, tokens, width)``.
        prediction_type: ``"epsilon"`` or ``"v_prediction"``, as in the scheduler's configuration.
        timesteps: Timesteps ``(batch,)``, long.
        noise: Noise with the shape of ``images`` and unit variance in each channel.
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
            f"expected `prediction_type` 'epsilon' or 'v_prediction', got {prediction_type!r}"
        )
    prediction = unet(noisy, timesteps, text_states).sample
    return torch.mean((prediction.float() - target) ** 2, dim=(1, 2, 3))


def loss_weights(
    alphas_cumprod: Tensor,
    timesteps: Tensor,
    *,
    prediction_type: str,
    weighting: str,
    snr_gamma: float = 5.0,
) -> Tensor:
    """Return the weight of each sample's :func:`denoising_loss`, ``(batch,)``.

    With ``SNR = ᾱ/(1−ᾱ)``, the squared error of ε is ``SNR`` times that of ``x̂_0``, and the
    squared error of v is ``SNR+1`` times that of ``x̂_0``.

    Args:
        alphas_cumprod: Cumulative products ᾱ, ``(T,)`` float32.
        timesteps: Timesteps ``(batch,)``, long.
        prediction_type: Prediction type of the network.
        weighting: Weighting of the noise levels. ``"plain"``: weight 1. ``"min_snr"``: the error of
            ``x̂_0`` is weighted by ``min(SNR, γ)`` (Hang et al., arXiv:2303.09556).
            ``"balanced"``: it is weighted by ``1/√(1−ᾱ)``, so that every noise level contributes
            about equally to the loss, similar to the learned weights of Karras et al.
            (arXiv:2312.02696). It is available for v-prediction only, since an error of ε contains
            no information about the image where there is no signal.
        snr_gamma: γ of ``"min_snr"``.

    Raises:
        InputError: If the weighting is unknown or does not match the prediction type.
    """
    if weighting not in LOSS_WEIGHTINGS:
        raise InputError(
            f"expected `weighting` as one of {', '.join(LOSS_WEIGHTINGS)}, got {weighting!r}"
        )
    alpha_bar = alphas_cumprod[timesteps]
    if weighting == "plain":
        return torch.ones_like(alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    if weighting == "min_snr":
        own = snr if prediction_type == "epsilon" else snr + 1
        return snr.clamp_max(snr_gamma) / own
    if prediction_type != "v_prediction":
        raise InputError("balanced weights need v_prediction: use min_snr or plain for epsilon")
    return (1 - alpha_bar).sqrt()


def spread_timestep(number: int, num_steps: int, density: str = "uniform") -> int:
    """Return the timestep of a training sample, from 0 to ``num_steps − 1``.

    Uses the multiples of the golden ratio modulo 1. Consecutive numbers are spread evenly, so that
    every batch of any size contains all noise levels, and the loss varies less than with
    independent draws (the aim of the low-discrepancy sampler of Kingma et al., arXiv:2107.00630).

    Args:
        number: Number of the sample.
        num_steps: Number of timesteps T.
        density: ``"uniform"``, or ``"quadratic"`` for ``t = T u²``, the spacing of DDIM's quadratic
            trajectories (Song et al., arXiv:2010.02502). With a cosine schedule, σ is below 0.2,
            where the details of a reconstruction are determined, for 12 % of the timesteps; a
            quadratic density draws 35 % of the samples there.

    Raises:
        InputError: If the density is unknown.
    """
    if density not in TIMESTEP_DENSITIES:
        raise InputError(
            f"expected `density` as one of {', '.join(TIMESTEP_DENSITIES)}, got {density!r}"
        )
    u = number * (math.sqrt(5) - 1) / 2 % 1
    return int((u if density == "uniform" else u * u) * num_steps)


class Prior(nn.Module):
    """U-Net and text encoder as one module that maps a batch to each sample's loss.

    Args:
        pipe: Pipeline whose U-Net is trained.
        train_text_encoder: If true, the text encoder is trained as well; otherwise it is frozen.
        weighting: Weighting of the loss, see :func:`loss_weights`.
        snr_gamma: γ of the weighting ``"min_snr"``.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        pipe: ContextMRIPipeline,
        *,
        train_text_encoder: bool,
        weighting: str = "plain",
        snr_gamma: float = 5.0,
    ) -> None:
        super().__init__()
        self.unet: Any = pipe.unet.to(memory_format=torch.channels_last)
        self.text_encoder: Any = pipe.text_encoder.requires_grad_(train_text_encoder)
        scheduler: Any = pipe.scheduler
        self.prediction_type: str = scheduler.config.prediction_type
        self.weighting, self.snr_gamma = weighting, snr_gamma
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float(), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the weighted denoising loss of each sample, ``(batch,)``."""
        states = self.text_encoder(batch["tokens"]).last_hidden_state
        losses = denoising_loss(
            self.unet,
            self.alphas_cumprod,
            batch["image"],
            states,
            prediction_type=self.prediction_type,
            timesteps=batch["timestep"],
            noise=batch["noise"],
        )
        return losses * loss_weights(
            self.alphas_cumprod,
            batch["timestep"],
            prediction_type=self.prediction_type,
            weighting=self.weighting,
            snr_gamma=self.snr_gamma,
        )
