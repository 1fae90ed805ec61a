"""Decoupled annealing posterior sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ctxrecon.checks import check_number
from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.linalg import per_sample
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    CG_TOLERANCE,
    check_cg_iterations,
    check_noise_std,
    check_normalized,
    check_whole,
    measurement_noise,
    part_variance,
    proximal_step,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.ddim import ddim_sample
from ctxrecon.solvers.steps import (
    Generators,
    Noise,
    StepCallback,
    check_falling_noise,
    image_shape,
    on_step_end,
    schedule,
)

# In complex64, power iteration and coil maps may exceed the norm of 1 slightly.
_LARGEST_EIGENVALUE = 1.05


@dataclass(frozen=True)
class DAPS(DiffusionSolver):
    r"""Decoupled annealing posterior sampling (Zhang et al., arXiv:2407.01521, algorithm 1).

    Each timestep estimates the clean image, samples from an approximate posterior around it, and
    adds noise again, independent of :math:`x_t`:

    .. math::

        \hat{x}_0 &= \mathrm{DDIM}(x_t;\, t \to 0), \\
        x_0 &\sim \mathcal{N}(x_0;\, \hat{x}_0,\, r_t^2 I)\,
            \exp(-\|A x_0 - y\|^2 / \sigma_y^2),
            \qquad 1/r_t^2 = 1/\sigma_t^2 + 1/\sigma_d^2, \\
        x_{t-1} &= \sqrt{\bar\alpha_{t-1}}\, x_0 + \sqrt{1 - \bar\alpha_{t-1}}\, \varepsilon.

    DDIM uses ``ode_steps`` steps with η = 0. ``σ_t = √((1−ᾱ_t)/ᾱ_t)`` is the noise level of
    ``x_t/√ᾱ_t``. ``σ_y²`` is the variance of a complex sample of ``y`` (``σ_y²/2`` in each part),
    while ``r_t`` and ``σ_d`` refer to each part. The result is ``x_0`` of the last timestep.

    The second step draws exactly from the Gaussian conditional by perturbation and optimization
    (Papandreou and Yuille, NeurIPS 2010): with ``x̃ = x̂_0 + r_t z`` and ``ỹ = y + σ_y n/√2``, where
    z and n have unit variance in each part, conjugate gradient solves from ``x̃``

        ``(AᴴA + ρ I) x_0 = Aᴴ ỹ + ρ x̃``,  ``ρ = σ_y²/(2 r_t²)``.

    This is the default for MRI, where the operator is linear and the noise Gaussian. It has no step
    size and no burn-in, and needs about ``√κ`` products with ``AᴴA``, where Langevin dynamics need
    many times the condition number ``κ = 1 + 1/ρ``. If ``langevin_steps`` is set, the paper's
    ``x ← x − h ∇U + √(2h) z`` runs from ``x̂_0``, with ``h = langevin_step_size/(1/r_t² + 2/σ_y²)``.

    The paper sets ``r_t = σ_t`` (``prior_std = inf``). Exact samples then leave the range of images
    at high noise; ``σ_d`` bounds their spread. For ``x ~ N(m, σ_d² I)`` and ``ode_steps = 1``,
    where ``x̂_0`` is the posterior mean, every ``x_0`` is an exact posterior sample, however few the
    timesteps. More ODE steps (the paper uses 5) move ``x̂_0`` from the mean towards a sample, to
    which the second step adds its spread again, and cost one network evaluation each; hence the
    default of 1. Where nothing was measured, the result contains noise of standard deviation
    ``r_t`` of the last timestep, so timesteps should end near 0.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import DAPS
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=DAPS(prior_std=0.2), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        noise_std: ``σ_y``, the standard deviation of a complex sample of the measurement. ``None``
            is 2 % of the image's 99 % quantile; pipelines use the scan's estimated level.
        prior_std: ``σ_d``, the prior's standard deviation in each part given a noisy image; may be
            infinite.
        ode_steps: DDIM steps to ``x̂_0``; fewer if t is smaller than that.
        cg_iterations: Conjugate-gradient iterations of the exact sample.
        langevin_steps: Number of Langevin steps; ``None`` samples exactly instead.
        langevin_step_size: Step size relative to the inverse of the largest curvature for
            ``‖A‖ ≤ 1``. The sample variance is too large by about half this fraction where the
            curvature is largest.
    """

    default_noise_std: ClassVar[float] = 0.02
    """Noise level if ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    prior_std: float = 0.1
    ode_steps: int = 1
    cg_iterations: int = 10
    langevin_steps: int | None = None
    langevin_step_size: float = 0.1

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std, zero=False)
        check_number("prior_std", self.prior_std, above=0, finite=False)
        check_whole("ode_steps", self.ode_steps)
        check_cg_iterations(self.cg_iterations)
        if self.langevin_steps is not None:
            check_whole("langevin_steps", self.langevin_steps)
        check_number("langevin_step_size", self.langevin_step_size, above=0, below=1)

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
        check_falling_noise(steps, "DAPS")
        if self.langevin_steps is not None:
            remedy = "normalize the coil maps, or draw exactly with langevin_steps=None"
            check_normalized(operator, y, _LARGEST_EIGENVALUE, "DAPS with Langevin steps", remedy)
        shape = image_shape(operator, y)
        conditional = self._exact if self.langevin_steps is None else self._langevin
        x_t = noise.initial()
        for step in steps:
            x0_hat = ddim_sample(
                denoiser,
                shape,
                timesteps=_ode_timesteps(step.t, self.ode_steps),
                eta=0.0,
                latents=x_t,
            )
            r_squared = 1 / (step.sigma**-2 + self.prior_std**-2)
            x0 = conditional(operator, y, x0_hat, r_squared, noise)
            x_t = math.sqrt(step.alpha_bar_prev) * complex_to_channels(x0)
            x_t = x_t + noise(math.sqrt(1 - step.alpha_bar_prev))
            x_t = on_step_end(callback, step, x_t, x0)
        return x0

    def _exact(
        self,
        operator: LinearOperator,
        y: Tensor,
        x0_hat: Tensor,
        r_squared: float,
        noise: Noise,
    ) -> Tensor:
        """Sample from ``p(x_0|x_t, y)`` by perturbation and conjugate gradient."""
        variance = part_variance(self.noise_std, self.default_noise_std)
        perturbed = x0_hat + math.sqrt(r_squared) * channels_to_complex(noise())
        noisy = y + per_sample(variance**0.5, y) * measurement_noise(y, noise)
        solve = proximal_step(
            operator, noisy, cg_iterations=self.cg_iterations, tolerance=CG_TOLERANCE
        )
        return solve(perturbed, variance / r_squared)

    def _langevin(
        self,
        operator: LinearOperator,
        y: Tensor,
        x0_hat: Tensor,
        r_squared: float,
        noise: Noise,
    ) -> Tensor:
        """Sample from ``p(x_0|x_t, y)`` approximately, by Langevin dynamics."""
        precision = per_sample(1 / part_variance(self.noise_std, self.default_noise_std), x0_hat)
        h = self.langevin_step_size / (1 / r_squared + precision)
        adjoint_y = operator.adjoint(y)
        x = x0_hat
        for _ in range(self.langevin_steps or 0):
            gradient = (x - x0_hat) / r_squared + precision * (operator.gram(x) - adjoint_y)
            x = x - h * gradient + (2 * h) ** 0.5 * channels_to_complex(noise())
        return x


def _ode_timesteps(t: int, steps: int) -> list[int]:
    """Return at most ``steps`` evenly spaced timesteps from ``t`` down, without the final 0."""
    return sorted({round(t * (steps - k) / steps) for k in range(steps)}, reverse=True)
