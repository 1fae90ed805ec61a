"""RED-diff: regularization by denoising diffusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import check_cg_iterations, check_positive
from ctxrecon.solvers.base import DiffusionSolver
from ctxrecon.solvers.steps import (
    Generators,
    StepCallback,
    check_falling_noise,
    on_step_end,
    schedule,
)

# Of the paper: a second moment that forgets faster than Adam's own 0.999.
_ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class REDDiff(DiffusionSolver):
    """RED-diff (Mardani et al., arXiv:2305.04391, algorithm 1): optimisation in place of sampling.

    The posterior is approximated by a narrow Gaussian around μ. One Adam step a timestep, from
    the noisiest to the cleanest, on

        ``½‖y − A μ‖² + λ_t ⟨sg[ε_θ(x_t; t) − ε], μ⟩``,  ``x_t = √ᾱ_t μ + √(1−ᾱ_t) ε``,

    with ``λ_t = λ σ_t``, ``σ_t = √((1−ᾱ_t)/ᾱ_t)`` the inverse signal-to-noise ratio. As
    ``ε_θ − ε = (μ − x̂_0(x_t))/σ_t``, the second gradient is ``λ (μ − x̂_0(x_t))``, which is what is
    computed: it stays bounded where ``σ_t`` does not. So at each timestep, ``t − 1`` standing for
    the next one,

        ``g = Aᴴ(A μ − y) + λ (μ − x̂_0(x_t; t))``,
        ``μ ← μ − Adam(g)``,
        ``x_{t−1} = √ᾱ_{t−1} μ + √(1−ᾱ_{t−1}) ε``,  ε drawn anew.

    The data term is in the measurement's units: a sum over the samples, not their mean. One network
    evaluation a timestep; the last μ is the result.

    μ starts at ``A† y``, by a few conjugate-gradient steps. For ``x ~ N(m, C)`` (C of each part)
    the gradient at timestep t vanishes on average at the posterior mean under ``N(m, C + σ_t² I)``
    for measurement noise of the variance ``λ σ_t²`` in each part. The result is an estimate, not a
    draw: samples of it do not spread as the posterior does.

    Default for MRI: the paper's λ, Adam and learning rate, for images whose 99 % quantile is 1 and
    ``Σ_c |S_c|² = 1``, where the data term's curvature is at most 1 and λ/(1 + λ) of what is
    measured is left to the prior. ``latents`` is the ε of the first step.

    Attributes:
        prior_weight: λ, positive; larger trusts the prior more.
        learning_rate: of Adam, in units of the image.
        cg_iterations: conjugate-gradient steps to the start ``A† y``.
    """

    starts_from_data: ClassVar[bool] = True
    """It starts from ``A† y``; latents are noise to it, which no image to start from is."""

    prior_weight: float = 0.25
    learning_rate: float = 0.1
    cg_iterations: int = 10

    def __post_init__(self) -> None:
        check_positive("prior_weight", self.prior_weight)
        check_positive("learning_rate", self.learning_rate)
        check_cg_iterations(self.cg_iterations)

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
        check_falling_noise(steps, "RED-diff")
        adjoint_y = operator.adjoint(y)
        start = conjugate_gradient(operator.gram, adjoint_y, num_iterations=self.cg_iterations)
        mu = complex_to_channels(start)
        adam = torch.optim.Adam([mu], lr=self.learning_rate, betas=_ADAM_BETAS)
        signal, eps_weight = math.sqrt(steps[0].alpha_bar), math.sqrt(1 - steps[0].alpha_bar)
        x_t = signal * mu + eps_weight * noise.initial()
        for step in steps:
            x0_hat, _ = denoiser(x_t, step.t)
            data_term = complex_to_channels(operator.gram(channels_to_complex(mu)) - adjoint_y)
            mu.grad = data_term + self.prior_weight * (mu - x0_hat.detach())
            adam.step()
            image = channels_to_complex(mu.clone())  # Adam changes mu in place
            x_t = math.sqrt(step.alpha_bar_prev) * mu + noise(math.sqrt(1 - step.alpha_bar_prev))
            x_t = on_step_end(callback, step, x_t, image)
        return image
