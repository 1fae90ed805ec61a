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

# The paper's values; the second moment adapts faster than with Adam's default of 0.999.
_ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class REDDiff(DiffusionSolver):
    r"""RED-diff, optimization instead of sampling (Mardani et al., arXiv:2305.04391, algorithm 1).

    The posterior is approximated by a narrow Gaussian around μ. Each timestep, from the noisiest to
    the cleanest, performs one Adam step on

        ``½‖y − A μ‖² + λ_t ⟨sg[ε_θ(x_t; t) − ε], μ⟩``,  ``x_t = √ᾱ_t μ + √(1−ᾱ_t) ε``,

    with ``λ_t = λ σ_t`` and ``σ_t = √((1−ᾱ_t)/ᾱ_t)``, the inverse signal-to-noise ratio. Because
    ``ε_θ − ε = (μ − x̂_0(x_t))/σ_t``, the second gradient is ``λ (μ − x̂_0(x_t))``; this form is used
    because it stays bounded as ``σ_t`` grows. At each timestep, where ``t − 1`` denotes the next
    one, with a new ε,

    .. math::

        g &= A^H (A \mu - y) + \lambda\, (\mu - \hat{x}_0(x_t;\, t)), \\
        \mu &\leftarrow \mu - \mathrm{Adam}(g), \\
        x_{t-1} &= \sqrt{\bar\alpha_{t-1}}\, \mu + \sqrt{1 - \bar\alpha_{t-1}}\, \varepsilon.

    The data term is a sum over the samples, in the measurement's units, not their mean. Each
    timestep costs one network evaluation, and the result is the last μ.

    μ starts at ``A† y``, computed by a few conjugate-gradient iterations. For ``x ~ N(m, C)`` (C of
    each part) the expected gradient at timestep t vanishes at the posterior mean under
    ``N(m, C + σ_t² I)`` for measurement noise of variance ``λ σ_t²`` in each part. The result is an
    estimate, not a sample: the spread of repeated runs does not match the posterior.

    Default for MRI: the paper's λ, Adam settings and learning rate, for images with a 99 % quantile
    of 1 and ``Σ_c |S_c|² = 1``. The curvature of the data term is then at most 1, and the prior's
    share in measured samples is λ/(1 + λ). ``latents`` is the ε of the first step.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import REDDiff
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=REDDiff(prior_weight=0.5), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        prior_weight: λ, positive; larger values trust the prior more.
        learning_rate: Learning rate of Adam, in image units.
        cg_iterations: Conjugate-gradient iterations for the initial ``A† y``.
    """

    starts_from_data: ClassVar[bool] = True
    """It starts from ``A† y``; latents only serve as noise, so a starting image has no effect."""

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
