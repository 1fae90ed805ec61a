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

# Power iteration and coil maps in complex64 may find a little more than the norm of 1.
_LARGEST_EIGENVALUE = 1.05


@dataclass(frozen=True)
class DAPS(DiffusionSolver):
    """Decoupled annealing posterior sampling (Zhang et al., arXiv:2407.01521, algorithm 1).

    At each timestep, with ``σ_t = √((1−ᾱ_t)/ᾱ_t)`` the noise of ``x_t/√ᾱ_t``:

    1. ``x̂_0(x_t)`` by ``ode_steps`` steps of DDIM with η = 0 from t to 0;
    2. ``x_0`` drawn from ``p(x_0|x_t, y) ∝ N(x_0; x̂_0, r_t² I) exp(−‖A x_0 − y‖²/σ_y²)``, where
       ``1/r_t² = 1/σ_t² + 1/σ_d²``;
    3. ``x_{t−1} = √ᾱ_{t−1} x_0 + √(1−ᾱ_{t−1}) ε``, without memory of ``x_t``.

    ``σ_y²`` is the variance of a complex sample of ``y``, ``σ_y²/2`` in each part, while ``r_t``
    and ``σ_d`` are those of each part. After the last timestep ``x_0`` is the result.

    Step 2 is the exact Gaussian conditional by perturbation and optimisation (Papandreou and
    Yuille, NeurIPS 2010): with ``x̃ = x̂_0 + r_t z`` and ``ỹ = y + σ_y n/√2``, z and n of unit
    variance in each part,

        ``(AᴴA + ρ I) x_0 = Aᴴ ỹ + ρ x̃``,  ``ρ = σ_y²/(2 r_t²)``,  by conjugate gradients from x̃.

    That is the default for MRI, whose operator is linear and whose noise is Gaussian: it has no
    step size and no burn-in, and needs about ``√κ`` products with ``AᴴA`` where Langevin dynamics
    needs many times κ, the condition number ``1 + 1/ρ``. With ``langevin_steps`` it is the
    paper's ``x ← x − h ∇U + √(2h) z`` from ``x̂_0``, ``h = langevin_step_size/(1/r_t² + 2/σ_y²)``.

    The paper sets ``r_t = σ_t`` (``prior_std = inf``). An exact draw spreads that far at once, and
    at high noise leaves the range of images; ``σ_d`` bounds it. For ``x ~ N(m, σ_d² I)`` and
    ``ode_steps = 1``, when ``x̂_0`` is the posterior mean, every ``x_0`` is an exact posterior
    sample, however few the timesteps. More ODE steps (the paper takes 5) move ``x̂_0`` from the
    mean towards a sample, to which step 2 adds its spread again, and each costs an evaluation: a
    timestep has ``ode_steps`` of them. Hence 1 by default. The result holds noise of ``r_t`` of
    the last timestep where nothing was measured, so let the timesteps end near 0.

    Attributes:
        noise_std: ``σ_y`` of a complex sample of the measurement, in its units; ``None`` is 2 % of
            the image's 99 % quantile in pipelines' units, and has pipelines take the scan's own.
        prior_std: ``σ_d``, of each part of what a noisy image leaves open; may be infinite.
        ode_steps: DDIM steps to ``x̂_0``; fewer where t is smaller than that.
        cg_iterations: conjugate-gradient steps of the exact draw.
        langevin_steps: steps of Langevin dynamics in place of the exact draw.
        langevin_step_size: relative to the largest curvature for ``‖A‖ ≤ 1``; the draw's variance
            is too large by about half of it where the curvature is largest.
    """

    default_noise_std: ClassVar[float] = 0.02
    """Where ``noise_std`` is ``None``."""

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
        """A draw from ``p(x_0|x_t, y)`` by perturbation and conjugate gradients."""
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
        """The same, nearly, by ``langevin_steps`` steps of Langevin dynamics."""
        precision = per_sample(1 / part_variance(self.noise_std, self.default_noise_std), x0_hat)
        h = self.langevin_step_size / (1 / r_squared + precision)
        adjoint_y = operator.adjoint(y)
        x = x0_hat
        for _ in range(self.langevin_steps or 0):
            gradient = (x - x0_hat) / r_squared + precision * (operator.gram(x) - adjoint_y)
            x = x - h * gradient + (2 * h) ** 0.5 * channels_to_complex(noise())
        return x


def _ode_timesteps(t: int, steps: int) -> list[int]:
    """At most ``steps`` timesteps from ``t`` down, evenly spaced, the step to 0 to follow."""
    return sorted({round(t * (steps - k) / steps) for k in range(steps)}, reverse=True)
