"""DDIM sampling, from the prior alone or with a correction of each denoised image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers.steps import Generators, StepCallback, denoise, image_schedule, on_step_end


def ddim_sample(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    *,
    timesteps: Sequence[int],
    eta: float,
    generator: Generators = None,
    latents: Tensor | None = None,
    callback: StepCallback | None = None,
    correct: Callable[[Tensor], Tensor] | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """DDIM sampling (Song et al., arXiv:2010.02502, equations 12 and 16).

    At each timestep, ``t − 1`` standing for the next one,

        ``x̂_0, ε = D(x_t; t)``,
        ``x̂_0' = correct(x̂_0)``,
        ``x_{t−1} = √ᾱ_{t−1} x̂_0' + √(1 − ᾱ_{t−1} − σ_t²) ε + σ_t z``,

    with ``σ_t = η √((1−ᾱ_{t−1})/(1−ᾱ_t)) √(1 − ᾱ_t/ᾱ_{t−1})``. ε is the network's own, not
    recomputed from ``x̂_0'``. After the last timestep ᾱ is 1 and ``x̂_0'`` is the result.

    Args:
        denoiser: the prior, D.
        shape: ``(batch, ny, nx)`` of the image.
        timesteps: training timesteps, strictly descending.
        eta: η, 0 (deterministic) to 1 (ancestral).
        generator: source of the noise: one, or one for each sample.
        latents: starting noise ``(batch, 2, ny, nx)``; drawn if not given.
        callback: called after each step; see :data:`~ctxrecon.solvers.steps.StepCallback`.
        correct: maps the denoised image ``(batch, ny, nx)`` complex64 to a better one.
        device: where to compute; the latents' device by default, else the CPU.

    Returns:
        ``(batch, ny, nx)`` complex64.

    Raises:
        InputError: timesteps, latents, generators or a shape that do not fit.
    """
    if device is None:
        device = torch.device("cpu") if latents is None else latents.device
    steps, noise = image_schedule(denoiser, shape, timesteps, generator, latents, device)
    x_t = noise.initial()
    for step in steps:
        x0, eps = denoise(denoiser, x_t, step.t)
        if correct is not None:
            x0 = correct(x0)
        ddim_sigma = step.ddim_sigma(eta)
        x_t = step.mean(x0, eps, ddim_sigma) + noise(ddim_sigma)
        x_t = on_step_end(callback, step, x_t, x0)
    return x0
