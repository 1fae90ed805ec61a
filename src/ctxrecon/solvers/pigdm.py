"""Pseudoinverse-guided diffusion models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ctxrecon.checks import check_flag
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    check_cg,
    check_eta,
    check_noise_std,
    denoise_with_vjp,
    part_variance,
    proximal_step,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import Generators, StepCallback, on_step_end, schedule

_SMALLEST_ALPHA_BAR = 1e-4


@dataclass(frozen=True)
class PiGDM(DiffusionSolver):
    """ΠGDM (Song et al., "Pseudoinverse-guided diffusion models for inverse problems", ICLR 2023).

    With ``p(x_0 | x_t)`` taken to be ``N(x̂_0, r_t² I)``, ``r_t² = 1 − ᾱ_t`` (right for a prior of
    unit covariance), the likelihood's score is

        ``g = (∂x̂_0/∂x_t)ᵀ Aᴴ (r_t² A Aᴴ + σ_y² I)⁻¹ (y − A x̂_0)``.

    Here σ_y² is the variance of one part of a sample of ``y``, as ``r_t²`` is that of one channel.
    Because ``r_t² Aᴴ(r_t² A Aᴴ + σ_y² I)⁻¹ = (AᴴA + σ_y²/r_t² I)⁻¹ Aᴴ``, the solve is one in image
    space, by conjugate gradient, and ends at ``A†`` as σ_y goes to 0.

    The paper scales g by ``r_t²`` and does not let it fall with the length of the step ("adaptive
    weights"); the denoised image of a DDIM step becomes, with the network's ε beside it,

        ``x̂_0' = x̂_0 + √ᾱ_t r_t² g``.

    With ``adaptive_weights=False`` the score is taken at its word, in both halves of the step:

        ``x̂_0' = x̂_0 + (r_t²/√ᾱ_t) g``,  ``ε' = ε − r_t g``,

    by which samples come to be those of the posterior, with as many steps as it takes, if the
    prior is what r_t says. It divides errors of the network's derivative by ᾱ_t. The step is

        ``x_{t−1} = √ᾱ_{t−1} x̂_0' + √(1 − ᾱ_{t−1} − σ_t²) ε' + σ_t z``,

    with DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`), and ``ε' = ε`` by default. After
    the last timestep ``x̂_0'`` is the result.

    Each step costs one evaluation of the network and one pass back through it.

    Attributes:
        noise_std: standard deviation of a complex sample of ``y``, in the units of the ``y`` that
            the solver gets; 0 for none. Pipelines divide k-space so that images have a 99 %
            quantile of 1: ``None`` is 1 % of that, and has pipelines take the scan's own.
        eta: η of the DDIM step; 1, the default, is the paper's.
        adaptive_weights: the paper's, and the default for MRI: bounded at every timestep, and good
            with few of them.
        cg_iterations: conjugate-gradient steps in each step, at most.
        tolerance: relative residual at which conjugate gradient stops.
    """

    default_noise_std: ClassVar[float] = 0.01
    """Where ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    eta: float = 1.0
    adaptive_weights: bool = True
    cg_iterations: int = 50
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std)
        check_eta(self.eta)
        check_flag("adaptive_weights", self.adaptive_weights)
        check_cg(self.cg_iterations, self.tolerance)

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
        smallest = min(step.alpha_bar for step in steps)
        if not self.adaptive_weights and smallest < _SMALLEST_ALPHA_BAR:
            raise InputError(
                f"expected timesteps with alphas_cumprod of {_SMALLEST_ALPHA_BAR:g} or more, got "
                f"{smallest:.2g}: leave the first ones out, or set adaptive_weights"
            )
        solve = proximal_step(
            operator, y, cg_iterations=self.cg_iterations, tolerance=self.tolerance
        )
        x_t = noise.initial()
        for step in steps:
            x0_hat, eps, vjp = denoise_with_vjp(denoiser, x_t, step.t)
            ratio = part_variance(self.noise_std, self.default_noise_std) / step.noise_variance
            guidance = channels_to_complex(vjp(solve(x0_hat, ratio) - x0_hat))  # r_t² g
            signal = math.sqrt(step.alpha_bar)
            if self.adaptive_weights:
                x0 = x0_hat + signal * guidance
            else:
                x0 = x0_hat + guidance / signal
                eps = step.implied_noise(x_t, x0)
            ddim_sigma = step.ddim_sigma(self.eta)
            x_t = step.mean(x0, eps, ddim_sigma) + noise(ddim_sigma)
            x_t = on_step_end(callback, step, x_t, x0)
        return x0
