"""DDIM sampling from the prior, with an optional correction of each denoised image."""

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
    r"""Sample with DDIM (Song et al., arXiv:2010.02502, equations 12 and 16).

    At each timestep, where ``t − 1`` denotes the next one,

    .. math::

        \hat{x}_0, \varepsilon &= D(x_t;\, t), \qquad \hat{x}_0' = \mathrm{correct}(\hat{x}_0), \\
        x_{t-1} &= \sqrt{\bar\alpha_{t-1}}\, \hat{x}_0'
            + \sqrt{1 - \bar\alpha_{t-1} - \sigma_t^2}\; \varepsilon + \sigma_t z, \\
        \sigma_t &= \eta \sqrt{\frac{1 - \bar\alpha_{t-1}}{1 - \bar\alpha_t}}
            \sqrt{1 - \frac{\bar\alpha_t}{\bar\alpha_{t-1}}}.

    ε is the network's output and not recomputed from ``x̂_0'``. After the last timestep ᾱ is 1, and
    ``x̂_0'`` is the result.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.priors import TextDenoiser
        >>> from ctxrecon.solvers import ddim_sample
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> with torch.no_grad():
        ...     states = pipe.encode_prompt([""])
        ...     denoiser = TextDenoiser(pipe.unet, pipe.scheduler, None, states, 0.0)
        ...     image = ddim_sample(denoiser, (1, 8, 8), timesteps=[600, 300], eta=0.0)
        >>> image.shape
        torch.Size([1, 8, 8])

    Args:
        denoiser: Diffusion prior D.
        shape: Shape ``(batch, ny, nx)`` of the image.
        timesteps: Training timesteps, strictly descending.
        eta: η, from 0 (deterministic) to 1 (ancestral).
        generator: Random generator, or one per sample.
        latents: Initial noise ``(batch, 2, ny, nx)``; ``None`` draws it.
        callback: Function called after each step; see
            :data:`~ctxrecon.solvers.steps.StepCallback`.
        correct: Function applied to each denoised image, complex64 ``(batch, ny, nx)``.
        device: Device of the computation; defaults to the latents' device, or else the CPU.

    Returns:
        Image of shape ``(batch, ny, nx)``, complex64.

    Raises:
        InputError: If timesteps, latents, generators and shape do not fit together.
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
