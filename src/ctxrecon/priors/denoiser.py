"""Diffusion prior as a denoiser: from a noisy image and a timestep to a clean image and noise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DConditionModel

# Below this ᾱ the division by √ᾱ amplifies a 1 % error of the ε network to the size of the image
# (cosine schedules end at ᾱ ≈ 2e-9), so the magnitude of the estimate is bounded there.
_SMALL_ALPHA_BAR = 1e-4
_LARGEST_MAGNITUDE = 4.0


class Denoiser(Protocol):
    """Interface of the diffusion priors that solvers use.

    Noisy images are ``x_t = √ᾱ_t x_0 + √(1 − ᾱ_t) ε``, with ε of unit variance in each of the two
    channels.
    """

    @property
    def alphas_cumprod(self) -> Tensor:
        """``ᾱ_t`` of every training timestep, ``(T,)`` float32 on the CPU."""

    @property
    def size_multiple(self) -> int:
        """Number of which ``ny`` and ``nx`` must be multiples."""

    def __call__(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Estimate ``x_0`` and ``ε``, each ``(batch, 2, ny, nx)`` float32."""


class TextDenoiser:
    r"""Text-conditioned U-Net with classifier-free guidance (Ho and Salimans, arXiv:2207.12598).

    .. math::

        \varepsilon = \varepsilon_\emptyset + \gamma\, (\varepsilon_c - \varepsilon_\emptyset)

    ``γ = 0`` evaluates the network without the prompt, ``γ = 1`` with it, and any other γ both in
    one batch. The network runs in its own precision; everything else is float32.

    For ε-prediction, ``|x̂_0|`` is bounded by 4 at timesteps with ``ᾱ_t < 1e-4``, where errors
    dominate ``(x_t − √(1−ᾱ_t) ε) / √ᾱ_t`` (images have a 99 % quantile of 1). Elsewhere, and for
    the other parameterizations, nothing is clipped.

    Example:
        >>> import torch
        >>> from ctxrecon.priors import TextDenoiser, build_scheduler, build_unet
        >>> unet = build_unet(block_out_channels=(8, 16), cross_attention_dim=8).eval()
        >>> states = torch.zeros(1, 77, 8)
        >>> denoiser = TextDenoiser(unet, build_scheduler(), states, states, guidance_scale=2.0)
        >>> x0, eps = denoiser(torch.zeros(1, 2, 16, 16), t=500)
        >>> x0.shape, eps.shape
        (torch.Size([1, 2, 16, 16]), torch.Size([1, 2, 16, 16]))

    Args:
        unet: ``UNet2DConditionModel`` with two input and two output channels.
        scheduler: Diffusers scheduler with ``alphas_cumprod`` and the ``prediction_type``
            "epsilon", "v_prediction" or "sample".
        prompt_embeds: Text states of shape ``(batch or 1, tokens, width)``; may be ``None`` if
            ``guidance_scale`` is 0.
        uncond_embeds: States of the empty prompt of shape ``(batch or 1, tokens, width)``; may be
            ``None`` if ``guidance_scale`` is 1.
        guidance_scale: Guidance scale γ, 0 or more.
        at_once: Largest number of images that the network evaluates at once; ``None`` for all.

    Raises:
        InputError: If the network, scheduler, guidance scale or embeddings are not valid.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        prompt_embeds: Tensor | None,
        uncond_embeds: Tensor | None,
        guidance_scale: float,
        at_once: int | None = None,
    ) -> None:
        config: Any = unet.config
        if config.in_channels != 2 or config.out_channels != 2:
            raise InputError(
                "expected a U-Net with 2 input and 2 output channels (real, imaginary), got "
                f"{config.in_channels} and {config.out_channels}"
            )
        alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
        if alphas_cumprod is None:
            raise InputError(
                f"{type(scheduler).__name__} has no alphas_cumprod: use a DDIMScheduler"
            )
        prediction_type = scheduler.config.prediction_type
        if prediction_type not in ("epsilon", "v_prediction", "sample"):
            raise InputError(
                "expected prediction_type 'epsilon', 'v_prediction' or 'sample' in the scheduler, "
                f"got {prediction_type!r}"
            )
        if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
            raise InputError(f"expected a guidance_scale of 0 or more, got {guidance_scale}")
        if prompt_embeds is None and guidance_scale != 0:
            raise InputError(
                f"guidance_scale {guidance_scale} needs prompt_embeds: pass them, or use 0"
            )
        if uncond_embeds is None and guidance_scale != 1:
            raise InputError(
                f"guidance_scale {guidance_scale} needs uncond_embeds: pass them, or use 1"
            )
        self.guidance_scale = float(guidance_scale)
        self._unet = unet
        self._at_once = at_once
        self._prediction_type = prediction_type
        self._alphas_cumprod = alphas_cumprod.detach().to("cpu", torch.float32)
        self._branches = _guidance_branches(prompt_embeds, uncond_embeds, self.guidance_scale)

    @property
    def alphas_cumprod(self) -> Tensor:
        """``ᾱ_t``, ``(T,)`` float32 on the CPU."""
        return self._alphas_cumprod

    @property
    def size_multiple(self) -> int:
        """2 to the power of the number of downsamplings."""
        return size_multiple(self._unet)

    def __call__(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Estimate the clean image and the noise.

        Args:
            x_t: Noisy image of shape ``(batch, 2, ny, nx)``, float32.
            t: Training timestep, ``0 <= t < T``.

        Returns:
            ``x̂_0`` and ``ε`` of shape ``(batch, 2, ny, nx)``, float32.
        """
        output = self._guided(x_t, t)
        alpha_bar = float(self._alphas_cumprod[t])
        signal, noise = math.sqrt(alpha_bar), math.sqrt(1.0 - alpha_bar)
        if self._prediction_type == "v_prediction":
            return signal * x_t - noise * output, signal * output + noise * x_t
        if self._prediction_type == "sample":
            return output, (x_t - signal * output) / max(noise, 1e-6)
        x0 = (x_t - noise * output) / max(signal, 1e-6)
        if alpha_bar < _SMALL_ALPHA_BAR:
            x0 = _bound_magnitude(x0)
        return x0, output

    def _guided(self, x_t: Tensor, t: int) -> Tensor:
        """Return the network's output with guidance.

        Guiding the output is guiding ε: for one ``x_t`` every parameterization is affine in ε.
        """
        size = self._at_once or len(x_t)
        branches = [embeds.expand(len(x_t), -1, -1).split(size) for embeds in self._branches]
        parts = zip(x_t.split(size), *branches, strict=True)
        return torch.cat([self._guided_at_once(part, t, embeds) for part, *embeds in parts])

    def _guided_at_once(self, x_t: Tensor, t: int, branches: list[Tensor]) -> Tensor:
        """Return the network's output for images and their text states, without splitting them."""
        dtype = self._unet.dtype
        output = self._unet(
            torch.cat([x_t.to(dtype)] * len(branches)),
            torch.tensor(t, device=x_t.device),
            encoder_hidden_states=torch.cat(branches).to(x_t.device, dtype),
            return_dict=False,
        )[0].float()
        if len(branches) == 1:
            return output
        unconditional, conditional = output.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)


def size_multiple(unet: UNet2DConditionModel) -> int:
    """Return the number of which ``ny`` and ``nx`` must be multiples, 2 ** downsamplings."""
    config: Any = unet.config
    return int(2 ** (len(config.block_out_channels) - 1))


class SetDenoiser:
    """Denoiser of the images of several sets of coil maps, stacked along the rows.

    The prior treats them as separate images; see :class:`ctxrecon.operators.SoftSense`.

    Args:
        denoiser: Denoiser of single images, with one prompt per image.
        sets: Number of sets.

    Attributes:
        sets: Number of sets.
    """

    def __init__(self, denoiser: Denoiser, sets: int) -> None:
        self._denoiser = denoiser
        self.sets = sets

    @property
    def alphas_cumprod(self) -> Tensor:
        """``ᾱ_t``, ``(T,)`` float32 on the CPU."""
        return self._denoiser.alphas_cumprod

    @property
    def size_multiple(self) -> int:
        """Number of which the size of each image must be a multiple."""
        return self._denoiser.size_multiple

    def __call__(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Estimate ``x_0`` and ``ε``, each ``(batch, 2, sets · ny, nx)`` float32."""
        images = x_t.unflatten(2, (self.sets, -1)).transpose(1, 2).flatten(0, 1)
        x_0, noise = (
            each.unflatten(0, (-1, self.sets)).transpose(1, 2).flatten(2, 3)
            for each in self._denoiser(images, t)
        )
        return x_0, noise


def _guidance_branches(
    prompt_embeds: Tensor | None, uncond_embeds: Tensor | None, guidance_scale: float
) -> list[Tensor]:
    if guidance_scale == 0:
        wanted = [uncond_embeds]
    elif guidance_scale == 1:
        wanted = [prompt_embeds]
    else:
        wanted = [uncond_embeds, prompt_embeds]
    branches = [embeds for embeds in wanted if embeds is not None]
    for embeds in branches:
        if embeds.ndim != 3:
            raise InputError(
                f"expected text embeddings (batch, tokens, width), got shape {tuple(embeds.shape)}"
            )
    return branches


def _bound_magnitude(image: Tensor) -> Tensor:
    magnitude = torch.linalg.vector_norm(image, dim=1, keepdim=True)
    return image * (_LARGEST_MAGNITUDE / magnitude.clamp_min(_LARGEST_MAGNITUDE))
