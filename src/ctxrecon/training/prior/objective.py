"""The prior as one trainable module: the denoising loss, its weights and its timesteps."""

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


def loss_weights(
    alphas_cumprod: Tensor,
    timesteps: Tensor,
    *,
    prediction_type: str,
    weighting: str,
    snr_gamma: float = 5.0,
) -> Tensor:
    """Weight of each sample's :func:`denoising_loss`, ``(batch,)``.

    With ``SNR = ᾱ/(1−ᾱ)`` an error of ``x̂_0`` counts ``SNR``-fold as one of ε and
    ``(SNR+1)``-fold as one of v.

    Args:
        alphas_cumprod: ``(T,)`` float32.
        timesteps: ``(batch,)`` long.
        prediction_type: of the network.
        weighting: ``"plain"``: 1. ``"min_snr"``: the error of ``x̂_0`` counts ``min(SNR, γ)``-fold
            (Hang et al., arXiv:2303.09556). ``"balanced"``: it counts ``1/√(1−ᾱ)``-fold, with
            which every level of noise adds about as much to the loss, as the learned weights of
            Karras et al. (arXiv:2312.02696) would have it; for v-prediction only, as an error of
            ε says nothing about the image where there is no signal.
        snr_gamma: γ of ``"min_snr"``.

    Raises:
        InputError: another weighting, or one that does not suit the prediction type.
    """
    if weighting not in LOSS_WEIGHTINGS:
        raise InputError(
            f"expected a loss weighting of {', '.join(LOSS_WEIGHTINGS)}, got {weighting!r}"
        )
    alpha_bar = alphas_cumprod[timesteps]
    if weighting == "plain":
        return torch.ones_like(alpha_bar)
    snr = alpha_bar / (1 - alpha_bar)
    if weighting == "min_snr":
        own = snr if prediction_type == "epsilon" else snr + 1
        return snr.clamp_max(snr_gamma) / own
    if prediction_type != "v_prediction":
        raise InputError("balanced weights are for v_prediction: take min_snr or plain for epsilon")
    return (1 - alpha_bar).sqrt()


def spread_timestep(number: int, num_steps: int, density: str = "uniform") -> int:
    """Timestep of the training sample of this number, from 0 to ``num_steps − 1``.

    The multiples of the golden ratio modulo 1: consecutive numbers spread evenly, so that every
    batch, of any size, holds all levels of noise, and the loss varies less than with independent
    draws (the aim of the low-discrepancy sampler of Kingma et al., arXiv:2107.00630).

    Args:
        number: of the sample.
        num_steps: T.
        density: ``"uniform"``, or ``"quadratic"``: ``t = T u²``, spaced as DDIM's quadratic
            trajectories (Song et al., arXiv:2010.02502). With a cosine schedule σ is below 0.2,
            where a reconstruction's details are decided, for 12 % of the timesteps; a quadratic
            density takes 35 % of the samples there.

    Raises:
        InputError: another density.
    """
    if density not in TIMESTEP_DENSITIES:
        raise InputError(
            f"expected a timestep density of {', '.join(TIMESTEP_DENSITIES)}, got {density!r}"
        )
    u = number * (math.sqrt(5) - 1) / 2 % 1
    return int((u if density == "uniform" else u * u) * num_steps)


class Prior(nn.Module):
    """U-Net and text encoder as one module; called on a batch it gives each sample's loss.

    Args:
        pipe: its U-Net is trained.
        train_text_encoder: whether its text encoder is trained as well; otherwise it is frozen.
        weighting: of the loss, see :func:`loss_weights`.
        snr_gamma: likewise.
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
        """The weighted denoising loss of each sample, ``(batch,)``."""
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
