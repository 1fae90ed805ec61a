"""Decomposed diffusion sampling with a data term derived from noise level and timestep."""

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
    r"""DDS without a free weight, which samples from the posterior given enough steps.

    DDS (:class:`~ctxrecon.solvers.DDS`, arXiv:2303.05754) corrects ``x̂_0`` with a constant data
    weight and ignores the prior's correlations. The reverse diffusion given y is that of the prior
    with ``E[x_0 | x_t, y]`` in place of ``x̂_0`` (Tweedie's formula for the conditional score). Let
    ``C_t = Cov[x_0 | x_t] = (1−ᾱ_t)/√ᾱ_t ∂x̂_0/∂x_t``, D the denoiser, ``σ_t² = (1−ᾱ_t)/ᾱ_t`` and
    σ_y²/2 the variance of one part of a sample of y. To first order, and exactly for Gaussian
    priors,

        ``E[x_0 | x_t, y] = x̂_0 + C_t Aᴴ v = D(x_t + √ᾱ_t q)``,  ``q = σ_t² Aᴴ v``,
        ``A D(x_t + √ᾱ_t q) + σ_y²/2 v = y``.

    The multiplier v shifts the denoiser's input until its output agrees with y up to noise. One
    iteration for v per timestep, continued from the previous timestep, needs no network evaluation
    beyond that of DDS:

    .. math::

        \hat{x}_0 &= D(x_t + \sqrt{\bar\alpha_t}\, q), \\
        \Bigl(A^H A + \frac{\sigma_y^2}{2 r_t^2} I\Bigr) \delta
            &= A^H (y - A \hat{x}_0) - \frac{\sigma_y^2}{2 \sigma_t^2}\, q, \\
        x_0 &= \hat{x}_0 + \delta, \qquad q \leftarrow (q + \delta)\, \sigma_{t-1} / \sigma_t, \\
        x_{t-1} &= \sqrt{\bar\alpha_{t-1}}\, x_0 + \sqrt{1 - \bar\alpha_{t-1} - s^2}\;
            \frac{x_t - \sqrt{\bar\alpha_t}\, x_0}{\sqrt{1 - \bar\alpha_t}} + s z,

    where s is DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`). The second line, solved by
    conjugate gradient, is that of DDS with weight ``ξ_t = 2 r_t²/σ_y²``, where
    ``r_t² = σ_t²/(1 + σ_t²)`` is the remaining variance of ``x_0`` in each channel under a prior of
    unit variance. For that prior every ``x_0`` is the conditional mean. For other priors the fixed
    point ``δ = 0`` solves the equation of v for any ``r_t``, and the iteration is stable for
    ``C_t ≤ σ_t² I``. The factor of q accounts for the growth of v with ``1/σ_t``. The result is
    ``x_0`` of the last timestep.

    Without the multiplier (``q = 0``) a step would replace ``C_t`` by ``r_t² I``, as if the prior's
    pixels were independent; with many steps such samples spread more widely than the posterior.

    Default for MRI: ten conjugate-gradient iterations, as in :class:`~ctxrecon.solvers.PnPADMM`.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import PosteriorDDS
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=PosteriorDDS(eta=0.5), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        noise_std: ``σ_y``, the standard deviation of a complex sample of the measurement. ``None``
            is 1 % of the image's 99 % quantile; pipelines use the scan's estimated level.
        eta: η of the DDIM step, from 0 (deterministic) to 1 (ancestral, the default).
        cg_iterations: Maximum number of conjugate-gradient iterations per DDIM step.
        tolerance: Relative residual at which conjugate gradient stops early.
    """

    default_noise_std: ClassVar[float] = 0.01
    """Noise level if ``noise_std`` is ``None``."""

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
    """Return ``σ_{t−1}/σ_t``, or 1 after the last step."""
    return 1.0 if step.is_last else steps[step.index + 1].sigma / step.sigma
