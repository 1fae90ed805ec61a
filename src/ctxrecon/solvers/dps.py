"""Diffusion posterior sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrecon.fourier import channels_to_complex
from ctxrecon.linalg import squared_norm
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import check_eta, check_positive, denoise_with_vjp
from ctxrecon.solvers.base import DiffusionSolver
from ctxrecon.solvers.steps import Generators, StepCallback, on_step_end, schedule


@dataclass(frozen=True)
class DPS(DiffusionSolver):
    """Diffusion posterior sampling (Chung et al., arXiv:2209.14687), Algorithm 1.

    The likelihood ``p(y | x_t)`` is taken to be ``p(y | x̂_0(x_t))``, and its gradient goes through
    the denoiser. At each timestep, ``t − 1`` standing for the next one,

        ``x̂_0, ε = D(x_t; t)``,
        ``x'_{t−1} = √ᾱ_{t−1} x̂_0 + √(1 − ᾱ_{t−1} − σ_t²) ε + σ_t z``,
        ``x_{t−1} = x'_{t−1} − ζ ∇_{x_t} ‖y − A x̂_0(x_t)‖``,

    with DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`). After the last timestep ``x_{t−1}``
    is the result.

    The paper descends on the squared norm with the step ``ζ_i = ζ'/‖y − A x̂_0‖``, which is the
    above with ζ = 2ζ'; its authors' code descends on the norm, and ζ is that code's "scale". The
    norm is each sample's own. Neither the noise of the measurement nor the length of the step
    enters, so that ζ has to be tuned, and the spread of samples is no measure of uncertainty.

    Each step costs one evaluation of the network and one pass back through it, with the memory
    that takes.

    Attributes:
        zeta: ζ, positive. A step moves ``x_t`` by ζ at most where the denoiser contracts, so what
            is needed grows with ``√(ny · nx)`` and falls with the number of steps. The default is
            for some tens of steps at 128 × 128; the paper has it about 1 for a thousand steps.
        eta: η of the DDIM step; 1, the default, is the paper's ancestral step.
    """

    zeta: float = 10.0
    eta: float = 1.0

    def __post_init__(self) -> None:
        check_positive("zeta", self.zeta)
        check_eta(self.eta)

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
        x_t = noise.initial()
        for step in steps:
            x0_hat, eps, vjp = denoise_with_vjp(denoiser, x_t, step.t)
            residual = y - operator(x0_hat)
            norm = squared_norm(residual).sqrt()[:, None, None]
            # −∇‖y − A x̂_0‖ = (∂x̂_0/∂x_t)ᵀ Aᴴ(y − A x̂_0) / ‖y − A x̂_0‖, and 0 where y is met.
            descent = vjp(operator.adjoint(residual) / torch.where(norm > 0, norm, 1.0))
            ddim_sigma = step.ddim_sigma(self.eta)
            unconditional = step.mean(x0_hat, eps, ddim_sigma) + noise(ddim_sigma)
            x_t = unconditional + self.zeta * descent
            image = channels_to_complex(x_t) if step.is_last else x0_hat
            x_t = on_step_end(callback, step, x_t, image)
        return image
