"""Denoising diffusion null-space model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.linalg import per_sample
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    check_cg,
    check_eta,
    check_noise_std,
    part_variance,
    proximal_step,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import Generators, Step, StepCallback, denoise, on_step_end, schedule


@dataclass(frozen=True)
class DDNM(DiffusionSolver):
    """Denoising diffusion null-space model (Wang et al., arXiv:2212.00490), DDNM and DDNM+.

    Each step keeps the denoised image where the measurement says nothing, and takes the
    measurement where it does (equation 13):

        ``x̂_0' = x̂_0 + λ_t A†(y − A x̂_0)``,
        ``ε̂ = (x_t − √ᾱ_t x̂_0') / √(1−ᾱ_t)``,
        ``x_{t−1} = √ᾱ_{t−1} x̂_0' + √(1 − ᾱ_{t−1} − σ_t²) ε̂ + √γ_t z``,

    with DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`). Without noise ``λ_t = 1`` and
    ``γ_t = σ_t²``, which at η = 1 is the paper's draw from ``q(x_{t−1} | x_t, x̂_0')``
    (Algorithm 1). ``x̂_0'`` is then of all images with ``A x = y`` (of all least-squares solutions,
    where there is none) the one nearest to ``x̂_0``. ``A†`` is the true pseudo-inverse, by
    conjugate gradient on ``AᴴA`` from ``x̂_0``: for several coils ``AᴴA`` is no projection and
    ``Aᴴ`` alone would not do.

    With ``noise_std`` > 0 this is DDNM+ in its scalar form (equations 17 to 19 of the paper):
    the measurement's noise and the new noise add up to what the step should add,

        ``λ_t = min(1, σ_t / (a_t σ_y))``,  ``γ_t = σ_t² − (a_t λ_t σ_y)²``,

    ``a_t`` being the weight of ``x̂_0'`` in ``x_{t−1}`` and σ_y the deviation of one part of a
    sample of ``y``. The balance is exact where ``A†`` leaves the noise as it is, as for one coil
    fully sampled. What is not sampled gets no more than γ_t either, and the amplification of noise
    by parallel imaging is not seen: the form of the paper that does both needs an SVD of ``A``. At
    the last step σ_t = 0, so λ_t = 0: the result is a denoised image, not one that reproduces the
    noise in ``y``. The paper's time travel is left out: it multiplies the evaluations.

    Attributes:
        noise_std: standard deviation of a complex sample of ``y``, in the units of the ``y`` that
            the solver gets; 0, or none, is DDNM.
        eta: η of the DDIM step, 0 (deterministic) to 1, the paper's ancestral step and the
            default; above 0 if there is noise, which only new noise can make room for.
        cg_iterations: conjugate-gradient steps in each step, at most. For one coil one is exact.
            For several, ``A†`` itself takes 50 or more and amplifies the noise of a scan where
            parallel imaging is ill-posed; the default stops before those directions.
        tolerance: relative residual at which conjugate gradient stops; by default far below the
            noise of a scan.
    """

    default_noise_std: ClassVar[float] = 0.0
    """Where ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    eta: float = 1.0
    cg_iterations: int = 10
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std)
        check_eta(self.eta)
        check_cg(self.cg_iterations, self.tolerance)
        noisy = self.noise_std is not None and bool(torch.as_tensor(self.noise_std).any())
        if self.eta == 0 and noisy:
            raise InputError(
                "expected eta above 0 with noise_std above 0, got 0: DDNM+ makes room for the "
                "measurement's noise in the noise that the step adds"
            )

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
        nearest_solution = proximal_step(
            operator, y, cg_iterations=self.cg_iterations, tolerance=self.tolerance
        )
        x_t = noise.initial()
        for step in steps:
            x0_hat, _ = denoise(denoiser, x_t, step.t)
            ddim_sigma = step.ddim_sigma(self.eta)
            carried = self._carried(step, ddim_sigma, y.device)
            # 0/0 where there is no noise at all.
            lambda_t = (ddim_sigma / carried).nan_to_num(nan=1.0).clamp(max=1)
            gamma_t = (ddim_sigma**2 - carried**2).clamp(min=0)
            correction = nearest_solution(x0_hat, 0.0) - x0_hat
            x0 = x0_hat + per_sample(lambda_t, x0_hat) * correction
            eps = step.implied_noise(x_t, x0)
            x_t = step.mean(x0, eps, ddim_sigma) + noise(gamma_t.sqrt())
            x_t = on_step_end(callback, step, x_t, x0)
        return x0

    def _carried(self, step: Step, ddim_sigma: float, device: torch.device) -> Tensor:
        """``a_t σ_y``: the measurement's noise in ``x_{t−1}``, ``(batch or 1,)``."""
        signal = math.sqrt(step.alpha_bar / step.noise_variance)
        weight = math.sqrt(step.alpha_bar_prev) - step.eps_weight(ddim_sigma) * signal
        variance = part_variance(self.noise_std, self.default_noise_std)
        return weight * torch.as_tensor(variance, device=device).sqrt().reshape(-1)
