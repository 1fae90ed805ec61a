"""Decomposed diffusion sampling whose data term follows from the noise and the timestep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctxrecon.fourier import complex_to_channels
from ctxrecon.linalg import conjugate_gradient, per_sample
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    CG_TOLERANCE,
    check_cg,
    check_eta,
    check_noise_std,
    part_variance,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import Generators, Step, StepCallback, denoise, on_step_end, schedule


@dataclass(frozen=True)
class PosteriorDDS(DiffusionSolver):
    """DDS without a weight to choose: draws from the posterior, with enough steps.

    DDS (:class:`~ctxrecon.solvers.DDS`) corrects ``x̂_0`` by the data with a constant weight and
    with no regard to what the prior correlates. The reverse diffusion given y is that of the prior
    with ``E[x_0 | x_t, y]`` in place of ``x̂_0`` (Tweedie's formula for the conditional score).
    With ``C_t = Cov[x_0 | x_t] = (1−ᾱ_t)/√ᾱ_t ∂x̂_0/∂x_t`` and σ_y²/2 the variance of one part of
    a sample of y, to first order, and exactly for Gaussian priors,

        ``E[x_0 | x_t, y] = x̂_0 + C_t Aᴴ v = D(x_t + √ᾱ_t q)``,  ``q = σ_t² Aᴴ v``,
        ``A D(x_t + √ᾱ_t q) + σ_y²/2 v = y``,

    with ``σ_t² = (1−ᾱ_t)/ᾱ_t`` and D the denoiser: the multiplier v moves what the denoiser sees
    until its image agrees with y up to noise. One iteration for v at each timestep, continued from
    the timestep before, costs no evaluation of the network beyond the one of DDS:

        ``x̂_0 = D(x_t + √ᾱ_t q)``,
        ``(AᴴA + σ_y²/(2 r_t²) I) δ = Aᴴ(y − A x̂_0) − σ_y²/(2 σ_t²) q``,  by conjugate gradient,
        ``x_0 = x̂_0 + δ``,  ``q ← (q + δ) σ_{t−1}/σ_t``,
        ``x_{t−1} = √ᾱ_{t−1} x_0 + √(1 − ᾱ_{t−1} − s²) (x_t − √ᾱ_t x_0)/√(1 − ᾱ_t) + s z``,

    s DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`). The second line is DDS's, of weight
    ``ξ_t = 2 r_t²/σ_y²`` with ``r_t² = σ_t²/(1 + σ_t²)``, the variance that ``x_0`` still has in
    each channel under a prior of unit variance. For that prior every ``x_0`` is the conditional
    mean. For others the fixed point, ``δ = 0``, is the equation of v whatever ``r_t``, and the
    iteration is stable for ``C_t ≤ σ_t² I``. The factor of q is the growth of v, which goes as
    ``1/σ_t``. After the last timestep ``x_0`` is the result.

    Without the multiplier (``q = 0`` throughout) a step would take ``C_t`` to be ``r_t² I``, as if
    pixels were independent under the prior. Images are not, and with many steps such samples are
    wider than the posterior.

    Default for MRI: ten conjugate-gradient steps, as in :class:`~ctxrecon.solvers.PnPADMM`.

    Attributes:
        noise_std: ``σ_y`` of a complex sample of the measurement, in its units; ``None`` is 1 % of
            the image's 99 % quantile in pipelines' units, and has pipelines take the scan's own.
        eta: η of the DDIM step, 0 (deterministic) to 1 (ancestral sampling, the default).
        cg_iterations: conjugate-gradient steps in each DDIM step, at most.
        tolerance: relative residual at which conjugate gradient stops early.
    """

    default_noise_std: ClassVar[float] = 0.01
    """Where ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    eta: float = 1.0
    cg_iterations: int = 10
    tolerance: float = CG_TOLERANCE

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std, zero=False)
        check_eta(self.eta)
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
        noise_variance = part_variance(self.noise_std, self.default_noise_std)
        x_t = noise.initial()
        q = torch.zeros_like(operator.adjoint(y))
        for step in steps:
            variance, signal = step.sigma**2, math.sqrt(step.alpha_bar)
            seen = x_t + signal * complex_to_channels(q)
            x0_hat, _ = denoise(denoiser, seen, step.t)
            residual = y - operator(x0_hat)
            # 1/r_t² = 1 + 1/σ_t²; σ_t² may be infinite.
            system = operator.gram + noise_variance * (1 + 1 / variance)
            correction = conjugate_gradient(
                system,
                operator.adjoint(residual) - per_sample(noise_variance / variance, q) * q,
                num_iterations=self.cg_iterations,
                tolerance=self.tolerance,
                quadratic=system.quadratic,
            )
            x0 = x0_hat + correction
            q = (q + correction) * _growth(step, steps)
            ddim_sigma = step.ddim_sigma(self.eta)
            x_t = step.mean(x0, step.implied_noise(x_t, x0), ddim_sigma) + noise(ddim_sigma)
            x_t = on_step_end(callback, step, x_t, x0)
        return x0


def _growth(step: Step, steps: Sequence[Step]) -> float:
    """``σ_{t−1}/σ_t``; 1 after the last step."""
    return 1.0 if step.is_last else steps[step.index + 1].sigma / step.sigma
