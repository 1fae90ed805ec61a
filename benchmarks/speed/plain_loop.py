"""ContextMRI's reconstruction loop as published, without optimization for speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctxrecon.pipelines import ContextMRIPipeline

_AXES = (-2, -1)


def fft2_shifted(x: Tensor) -> Tensor:
    """Return the centered orthonormal FFT, computed by shifting before and after."""
    shifted = torch.fft.ifftshift(x, dim=_AXES)
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=_AXES)


def ifft2_shifted(y: Tensor) -> Tensor:
    """Return the inverse of :func:`fft2_shifted`."""
    shifted = torch.fft.ifftshift(y, dim=_AXES)
    return torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=_AXES)


@torch.no_grad()
def plain_dds(
    pipe: ContextMRIPipeline,
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    prompt: str,
    *,
    timesteps: Sequence[int],
    guidance_scale: float,
    eta: float,
    data_weight: float,
    cg_iterations: int,
    latents: Tensor,
    draw: Callable[[], Tensor],
) -> Tensor:
    """Reconstruct by DDS with conjugate gradients on ``(I + ξ AᴴA) x = x̂_0 + ξ Aᴴ y``.

    ``A`` and ``Aᴴ`` shift at each transform, ``Aᴴ y`` is recomputed at each step, guidance runs the
    network twice in sequence, and everything is float32.

    Args:
        pipe: Pipeline whose networks are used.
        kspace: k-space of shape ``(1, coils, ny, nx)`` at the training scale.
        mask: Sampling mask of shape ``(1, 1, ny, nx)``, bool.
        maps: Coil maps of shape ``(1, coils, ny, nx)``.
        prompt: Prompt of the slice.
        timesteps: Descending timesteps.
        guidance_scale: Guidance scale γ.
        eta: Stochasticity η.
        data_weight: Data weight ξ.
        cg_iterations: Conjugate-gradient iterations of each step.
        latents: Initial noise of shape ``(1, 2, ny, nx)``.
        draw: Function that draws unit noise of the same shape.

    Returns:
        Image of shape ``(1, ny, nx)``, complex64.
    """
    alphas_bar = pipe.scheduler.alphas_cumprod
    conditional, unconditional = pipe.encode_prompt([prompt]), pipe.encode_prompt([""])

    def forward(image: Tensor) -> Tensor:
        return mask * fft2_shifted(maps * image[:, None])

    def adjoint(y: Tensor) -> Tensor:
        return (maps.conj() * ifft2_shifted(mask * y)).sum(dim=1)

    def network(x: Tensor, t: int, embeds: Tensor) -> Tensor:
        return pipe.unet(x, torch.tensor(t), encoder_hidden_states=embeds).sample

    x_t = latents
    for index, t in enumerate(timesteps):
        last = index + 1 == len(timesteps)
        alpha = float(alphas_bar[t])
        alpha_prev = 1.0 if last else float(alphas_bar[timesteps[index + 1]])
        output = network(x_t, t, unconditional)
        output = output + guidance_scale * (network(x_t, t, conditional) - output)
        if pipe.scheduler.config.prediction_type == "v_prediction":
            x0 = math.sqrt(alpha) * x_t - math.sqrt(1 - alpha) * output
            eps = math.sqrt(alpha) * output + math.sqrt(1 - alpha) * x_t
        else:
            x0, eps = (x_t - math.sqrt(1 - alpha) * output) / math.sqrt(alpha), output
        image = torch.view_as_complex(x0.movedim(1, -1).contiguous())

        target = image + data_weight * adjoint(kspace)
        residual = target - image - data_weight * adjoint(forward(image))
        direction, energy = residual, residual.abs().square().sum()
        for _ in range(cg_iterations):
            product = direction + data_weight * adjoint(forward(direction))
            step = energy / (direction.conj() * product).real.sum()
            image = image + step * direction
            residual = residual - step * product
            previous, energy = energy, residual.abs().square().sum()
            direction = residual + energy / previous * direction

        sigma = eta * math.sqrt((1 - alpha_prev) / (1 - alpha) * (1 - alpha / alpha_prev))
        x0 = torch.view_as_real(image).movedim(-1, 1)
        x_t = math.sqrt(alpha_prev) * x0 + math.sqrt(max(1 - alpha_prev - sigma**2, 0.0)) * eps
        if sigma > 0:
            x_t = x_t + sigma * draw()
    return image
