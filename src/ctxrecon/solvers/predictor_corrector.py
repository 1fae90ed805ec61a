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

# The data step contracts up to λ ‖AᴴA‖ = 2; power iteration underestimates the norm.
_STABLE = 1.9


@dataclass(frozen=True)
class ScoreMRI(DiffusionSolver):
    r"""Score-MRI, predictor-corrector sampling (Chung and Ye, arXiv:2110.05243), in VP form.

    At each timestep, with ``β = 1 − ᾱ_t/ᾱ_{t−1}``, where ``t − 1`` denotes the next timestep, the
    predictor is the ancestral step of Ho et al. (arXiv:2006.11239, equations 6 and 7). It is
    followed by a corrector at ``t − 1`` with the score
    ``s = (√ᾱ_{t−1} x̂_0(x) − x)/(1−ᾱ_{t−1})`` and norms computed per sample. A data-consistency step
    on the noisy image follows each of them:

    .. math::

        x &\leftarrow \frac{\sqrt{\bar\alpha_{t-1}}\, \beta}{1 - \bar\alpha_t}\, \hat{x}_0
            + \frac{\sqrt{1 - \beta}\, (1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t}\, x
            + \sqrt{\frac{\beta\, (1 - \bar\alpha_{t-1})}{1 - \bar\alpha_t}}\; z
            \quad \text{(predictor)}, \\
        x &\leftarrow x + \epsilon s + \sqrt{2 \epsilon}\, z,
            \qquad \epsilon = 2 (r \|z\| / \|s\|)^2
            \quad \text{(corrector)}, \\
        x &\leftarrow x + \lambda A^H (\sqrt{\bar\alpha_{t-1}}\, y - A x)
            \quad \text{(data consistency)}.

    The paper uses the variance-exploding form, ``x/√ᾱ_t`` here. Corrector and data step are equal
    in both forms; its reverse-diffusion predictor needs much finer steps than a few dozen
    timesteps, for which the ancestral step is accurate. After the last timestep ``x`` is free of
    noise, and no corrector follows.

    With ``λ = 1`` and one coil, the data step replaces the measured samples by ``√ᾱ y``, so that
    the result agrees with y. Measurement noise enters the image unfiltered, and the remaining
    samples are drawn from the prior given y. Each timestep but the last costs
    ``1 + corrector_steps`` network evaluations.

    Default for MRI: the paper's r and λ, and one corrector step.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import ScoreMRI
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=ScoreMRI(corrector_steps=0), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        snr: r, the corrector's signal-to-noise ratio.
        corrector_steps: Number of corrector steps M; 0 uses the predictor alone.
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
        """Return ``x + λ Aᴴ(√ᾱ_{t−1} y − A x)``, ``(batch, 2, ny, nx)``."""
        image = channels_to_complex(x)
        residual = math.sqrt(step.alpha_bar_prev) * adjoint_y - operator.gram(image)
        return complex_to_channels(torch.add(image, residual, alpha=self.data_step))

    def _correct(self, x: Tensor, score: Tensor, z: Tensor) -> Tensor:
        """Return x after one step of Langevin dynamics with signal-to-noise ratio r."""
        ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1).clamp_min(1e-12)
        size = 2 * (self.snr * ratio.reshape(-1, 1, 1, 1)) ** 2
        return x + size * score + (2 * size).sqrt() * z


def _predicted_mean(x_t: Tensor, x0_hat: Tensor, step: Step) -> Tensor:
    """Return the mean of ``p(x_{t−1} | x_t, x_0 = x̂_0)``; its deviation is DDIM's for η = 1."""
    alpha = step.alpha_bar / step.alpha_bar_prev
    to_x0 = math.sqrt(step.alpha_bar_prev) * (1 - alpha) / step.noise_variance
    to_x_t = math.sqrt(alpha) * (1 - step.alpha_bar_prev) / step.noise_variance
    return to_x0 * x0_hat + to_x_t * x_t
