"""Score-MRI: predictor-corrector sampling with data consistency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import check_normalized, check_positive, check_whole
from ctxrecon.solvers.base import DiffusionSolver
from ctxrecon.solvers.steps import (
    Generators,
    Step,
    StepCallback,
    check_falling_noise,
    on_step_end,
    schedule,
)

# λ ‖AᴴA‖ = 2 is where the data step stops contracting; the norm is found from below.
_STABLE = 1.9


@dataclass(frozen=True)
class ScoreMRI(DiffusionSolver):
    """Predictor-corrector sampling (Chung and Ye, arXiv:2110.05243), VP form.

    At each timestep, with ``β = 1 − ᾱ_t/ᾱ_{t−1}`` and ``t − 1`` the next timestep:

    - predictor, the ancestral step of Ho et al. (arXiv:2006.11239, equations 6 and 7)
      ``x ← √ᾱ_{t−1} β/(1−ᾱ_t) x̂_0 + √(1−β) (1−ᾱ_{t−1})/(1−ᾱ_t) x + √(β (1−ᾱ_{t−1})/(1−ᾱ_t)) z``;
    - corrector, at ``t − 1``, with ``s = (√ᾱ_{t−1} x̂_0(x) − x)/(1−ᾱ_{t−1})``
      ``x ← x + ϵ s + √(2ϵ) z``,  ``ϵ = 2 (r ‖z‖/‖s‖)²``, norms of each sample alone;
    - after each of them, data consistency on the noisy image,
      ``x ← x + λ Aᴴ(√ᾱ_{t−1} y − A x)``.

    The paper has the variance-exploding form, ``x/√ᾱ_t`` here: corrector and data step are the
    same in both, and its reverse-diffusion predictor needs steps much finer than those of a few
    dozen timesteps, for which the ancestral step is right. After the last timestep ``x`` is free
    of noise, and there is no corrector.

    With ``λ = 1`` and one coil the data step puts ``√ᾱ y`` in place of what was measured, so that
    the result agrees with y; measurement noise goes into the image unchecked, and what is not
    measured is drawn from the prior given that. Each timestep but the last costs
    ``1 + corrector_steps`` network evaluations.

    Default for MRI: the paper's r, λ and one corrector step.

    Attributes:
        snr: r, the corrector's signal-to-noise ratio.
        corrector_steps: M, 0 for the predictor alone.
        data_step: λ, with ``λ ‖AᴴA‖ < 2``.
    """

    snr: float = 0.16
    corrector_steps: int = 1
    data_step: float = 1.0

    def __post_init__(self) -> None:
        check_positive("snr", self.snr)
        check_positive("data_step", self.data_step)
        check_whole("corrector_steps", self.corrector_steps, least=0)

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
        """Reconstruct; see :class:`ctxrecon.solvers.Solver` for the arguments."""
        steps, noise = schedule(denoiser, operator, y, timesteps, generator, latents)
        check_falling_noise(steps, "Score-MRI")
        remedy = "normalize the coil maps, or lower data_step"
        check_normalized(operator, y, _STABLE / self.data_step, "Score-MRI", remedy)
        adjoint_y = operator.adjoint(y)
        x = noise.initial()
        for step in steps:
            x0_hat, _ = denoiser(x, step.t)
            x = _predicted_mean(x, x0_hat, step) + noise(step.ddim_sigma(eta=1.0))
            x = self._consistent(x, operator, adjoint_y, step)
            image = channels_to_complex(x)
            if step.next_t is not None:
                signal, variance = math.sqrt(step.alpha_bar_prev), 1 - step.alpha_bar_prev
                for _ in range(self.corrector_steps):
                    x0_hat, _ = denoiser(x, step.next_t)
                    score = (signal * x0_hat - x) / variance
                    x = self._correct(x, score, noise())
                    x = self._consistent(x, operator, adjoint_y, step)
                image = channels_to_complex(x0_hat)
            x = on_step_end(callback, step, x, image)
        return image

    def _consistent(
        self, x: Tensor, operator: LinearOperator, adjoint_y: Tensor, step: Step
    ) -> Tensor:
        """``x + λ Aᴴ(√ᾱ_{t−1} y − A x)``, ``(batch, 2, ny, nx)``."""
        image = channels_to_complex(x)
        residual = math.sqrt(step.alpha_bar_prev) * adjoint_y - operator.gram(image)
        return complex_to_channels(torch.add(image, residual, alpha=self.data_step))

    def _correct(self, x: Tensor, score: Tensor, z: Tensor) -> Tensor:
        """One step of Langevin dynamics at the signal-to-noise ratio r."""
        ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1).clamp_min(1e-12)
        size = 2 * (self.snr * ratio.reshape(-1, 1, 1, 1)) ** 2
        return x + size * score + (2 * size).sqrt() * z


def _predicted_mean(x_t: Tensor, x0_hat: Tensor, step: Step) -> Tensor:
    """The mean of ``p(x_{t−1} | x_t, x_0 = x̂_0)``; its standard deviation is DDIM's at η = 1."""
    alpha = step.alpha_bar / step.alpha_bar_prev
    to_x0 = math.sqrt(step.alpha_bar_prev) * (1 - alpha) / step.noise_variance
    to_x_t = math.sqrt(alpha) * (1 - step.alpha_bar_prev) / step.noise_variance
    return to_x0 * x0_hat + to_x_t * x_t
