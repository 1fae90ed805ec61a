"""What solvers share: their signature, and the DDIM walk from noise to an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol, TypeAlias

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser

Generators: TypeAlias = "torch.Generator | list[torch.Generator] | None"

StepCallback: TypeAlias = "Callable[[int, int, Tensor, Tensor], Tensor | None]"
"""``(step, t, latents, x0) -> latents or None``: called after each step with the next ``x_t``
``(batch, 2, ny, nx)`` and the current image ``(batch, ny, nx)``; what it returns replaces ``x_t``.
"""


class Solver(Protocol):
    """Draws ``x`` from the prior given ``y = A x + n``. Every solver has this signature."""

    def __call__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Tensor,
        *,
        timesteps: Sequence[int],
        generator: Generators = None,
        latents: Tensor | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """The image ``(batch, ny, nx)`` complex64.

        Args:
            denoiser: the prior.
            operator: ``A``, from images ``(batch, ny, nx)`` to measurements.
            y: measurement, of the operator's ``range_shape``, complex64.
            timesteps: training timesteps, strictly descending.
            generator: source of the noise: one, or one for each sample.
            latents: starting noise ``(batch, 2, ny, nx)`` of unit variance; drawn if not given.
            callback: called after each step.

        Raises:
            InputError: something that does not fit, before the first step.
        """


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

    ``x_{t−1} = √ᾱ_{t−1} x̂_0' + √(1 − ᾱ_{t−1} − σ_t²) ε + σ_t z`` with
    ``σ_t = η √((1−ᾱ_{t−1})/(1−ᾱ_t)) √(1 − ᾱ_t/ᾱ_{t−1})``, where ``x̂_0'`` is the denoised image
    after ``correct``, and ε the network's own, not recomputed from ``x̂_0'``. ``t − 1`` stands for
    the next of ``timesteps``; after the last one ᾱ is 1 and ``x̂_0'`` is the result.

    Args:
        denoiser: the prior.
        shape: ``(batch, ny, nx)`` of the image.
        timesteps: training timesteps, strictly descending.
        eta: η, 0 (deterministic) to 1 (ancestral).
        generator: source of the noise: one, or one for each sample.
        latents: starting noise ``(batch, 2, ny, nx)``; drawn if not given.
        callback: called after each step; see :data:`StepCallback`.
        correct: maps the denoised image ``(batch, ny, nx)`` complex64 to a better one.
        device: where to compute; the latents' device by default, else the CPU.

    Returns:
        ``(batch, ny, nx)`` complex64.

    Raises:
        InputError: timesteps, latents, generators or a shape that do not fit.
    """
    check_walk(denoiser, shape, timesteps, generator, latents)
    batch, ny, nx = shape
    noise_shape = (batch, 2, ny, nx)
    if device is None:
        device = torch.device("cpu") if latents is None else latents.device

    def draw() -> Tensor:
        return randn_tensor(noise_shape, generator=generator, device=device, dtype=torch.float32)

    x_t = draw() if latents is None else latents.to(device, torch.float32)
    alphas_bar = [float(denoiser.alphas_cumprod[t]) for t in timesteps] + [1.0]
    for step, t in enumerate(timesteps):
        alpha_bar, alpha_bar_prev = alphas_bar[step], alphas_bar[step + 1]
        x0_hat, eps = denoiser(x_t, t)
        x0 = channels_to_complex(x0_hat)
        if correct is not None:
            x0 = correct(x0)
        # ᾱ = 1 at the last step: σ and the coefficient of ε vanish and x_t becomes x0.
        sigma = eta * math.sqrt(
            (1 - alpha_bar_prev) / max(1 - alpha_bar, 1e-12) * (1 - alpha_bar / alpha_bar_prev)
        )
        x_t = math.sqrt(alpha_bar_prev) * complex_to_channels(x0)
        x_t = x_t + math.sqrt(max(1 - alpha_bar_prev - sigma**2, 0.0)) * eps
        if sigma > 0:
            x_t = x_t + sigma * draw()
        if callback is not None:
            replaced = callback(step, t, x_t, x0)
            x_t = x_t if replaced is None else replaced
    return x0


def check_walk(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    timesteps: Sequence[int],
    generator: Generators,
    latents: Tensor | None,
) -> None:
    """Refuse a walk that cannot be taken, before its first step."""
    batch, ny, nx = shape
    steps = [int(t) for t in timesteps]
    total = len(denoiser.alphas_cumprod)
    if not steps:
        raise InputError("expected at least one timestep, got none")
    if any(later >= earlier for earlier, later in pairwise(steps)):
        raise InputError(f"expected strictly descending timesteps, got {steps}")
    if steps[0] >= total or steps[-1] < 0:
        raise InputError(f"expected timesteps from 0 to {total - 1}, got {steps}")
    multiple = denoiser.size_multiple
    if ny % multiple or nx % multiple:
        raise InputError(
            f"the network takes sizes that are multiples of {multiple}, got {ny}x{nx}: "
            "pad the image and compose the operator with Crop"
        )
    if isinstance(generator, list) and len(generator) != batch:
        raise InputError(
            f"expected one generator or one for each of the {batch} samples, got {len(generator)}"
        )
    if latents is not None and tuple(latents.shape) != (batch, 2, ny, nx):
        raise InputError(
            f"expected latents of shape {(batch, 2, ny, nx)}, got {tuple(latents.shape)}"
        )
