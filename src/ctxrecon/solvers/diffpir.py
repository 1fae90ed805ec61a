"""Denoising diffusion models for plug-and-play image restoration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ctxrecon.checks import check_number
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    check_cg,
    check_noise_std,
    check_positive,
    part_variance,
    proximal_step,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import Generators, StepCallback, denoise, on_step_end, schedule


@dataclass(frozen=True)
class DiffPIR(DiffusionSolver):
    """DiffPIR (Zhu et al., arXiv:2305.08995), Algorithm 1: plug-and-play diffusion.

    Each step balances the denoised image against the measurement (half-quadratic splitting), takes
    the noise that this implies, and mixes it with new noise:

        ``x̂_0' = argmin_x ‖y − A x‖² + ρ_t ‖x − x̂_0‖²``,  ``ρ_t = λ σ_n² / σ_t²``,
        ``ε̂ = (x_t − √ᾱ_t x̂_0') / √(1−ᾱ_t)``,
        ``x_{t−1} = √ᾱ_{t−1} x̂_0' + √(1−ᾱ_{t−1}) (√(1−ζ) ε̂ + √ζ z)``.

    ``σ_t² = (1−ᾱ_t)/ᾱ_t`` is the diffusion noise of one channel, and ``σ_n²`` the variance of one
    part of a sample of ``y``. The first line is exact: conjugate gradient on ``AᴴA + ρ_t I``. It
    stays so for ``noise_std`` = 0, where ``x̂_0'`` is the least-squares solution nearest to ``x̂_0``;
    with several coils that amplifies the noise of a scan, unless ``cg_iterations`` is small.

    Attributes:
        noise_std: standard deviation of a complex sample of ``y``, in the units of the ``y`` that
            the solver gets; 0 for none. Pipelines divide k-space so that images have a 99 %
            quantile of 1: ``None`` is 1 % of that, and has pipelines take the scan's own.
        lambda_: λ, positive; larger trusts the prior more. The default lies in the range of 3 to 25
            that served the paper's tasks.
        zeta: ζ, the share of new noise, 0 (deterministic) to 1. The default is little, for
            faithful images from few steps.
        cg_iterations: conjugate-gradient steps in each step, at most.
        tolerance: relative residual at which conjugate gradient stops; by default far below the
            noise of a scan.
    """

    default_noise_std: ClassVar[float] = 0.01
    """Where ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    lambda_: float = 7.0
    zeta: float = 0.3
    cg_iterations: int = 50
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std)
        check_positive("lambda_", self.lambda_)
        check_number("zeta", self.zeta, least=0, most=1)
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
        solve = proximal_step(
            operator, y, cg_iterations=self.cg_iterations, tolerance=self.tolerance
        )
        x_t = noise.initial()
        for step in steps:
            x0_hat, _ = denoise(denoiser, x_t, step.t)
            variance = part_variance(self.noise_std, self.default_noise_std)
            rho = self.lambda_ * variance * step.sigma**-2
            x0 = solve(x0_hat, rho)
            eps = step.implied_noise(x_t, x0)
            new_std = math.sqrt(self.zeta * (1 - step.alpha_bar_prev))
            x_t = step.mean(x0, eps, new_std) + noise(new_std)
            x_t = on_step_end(callback, step, x_t, x0)
        return x0
