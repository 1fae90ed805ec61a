"""Decomposed diffusion sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from ctxrecon.linalg import conjugate_gradient, per_sample
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import check_cg, check_data_weight, check_eta
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import Generators, StepCallback, denoise, on_step_end, schedule


@dataclass(frozen=True)
class DDS(DiffusionSolver):
    """Decomposed diffusion sampling (Chung et al., arXiv:2303.05754), as ContextMRI uses it.

    At each timestep, ``t − 1`` standing for the next one,

        ``x̂_0, ε = D(x_t; t)``,
        ``(I + ξ AᴴA) x_0 = x̂_0 + ξ Aᴴ y``,  by a few conjugate-gradient steps from ``x̂_0``,
        ``x_{t−1} = √ᾱ_{t−1} x_0 + √(1 − ᾱ_{t−1} − σ_t²) ε + σ_t z``,

    with DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`). The second line minimises
    ``½‖x − x̂_0‖² + ξ/2 ‖A x − y‖²``. After the last timestep ``x_0`` is the result.

    Attributes:
        eta: η of the DDIM step, 0 (deterministic) to 1.
        data_weight: ξ, positive, one number or ``(batch,)`` of them; larger trusts the measurement
            more. ``None`` is the paper's 5, or in pipelines what the data choose around it.
        cg_iterations: conjugate-gradient steps in each DDIM step, at most.
        tolerance: relative residual at which conjugate gradient stops early; 0, the default, takes
            all steps, and never makes a GPU wait for the answer.
    """

    default_data_weight: ClassVar[float] = 5.0
    """Where ``data_weight`` is ``None``."""

    eta: float = 0.8
    data_weight: float | Tensor | None = None
    cg_iterations: int = 5
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check_data_weight(self.data_weight)
        check_cg(self.cg_iterations, self.tolerance)

    @property
    def weight_is_open(self) -> bool:
        """Whether ξ was left to the data."""
        return self.data_weight is None

    def reweighted(self, factor: NoiseStd) -> DDS:
        """Return a copy with ξ as for noise of ``factor`` times its level: ``ξ/factor²``."""
        return replace(self, data_weight=self._xi / factor**2)

    @property
    def _xi(self) -> float | Tensor:
        return self.default_data_weight if self.data_weight is None else self.data_weight

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
        xi, adjoint_y = self._xi, operator.adjoint(y)
        weighted_adjoint = per_sample(xi, adjoint_y) * adjoint_y
        system = 1 + xi * operator.gram
        x_t = noise.initial()
        for step in steps:
            x0_hat, eps = denoise(denoiser, x_t, step.t)
            x0 = conjugate_gradient(
                system,
                x0_hat + weighted_adjoint,
                x0=x0_hat,
                num_iterations=self.cg_iterations,
                tolerance=self.tolerance or None,
                quadratic=system.quadratic,
            )
            ddim_sigma = step.ddim_sigma(self.eta)
            x_t = step.mean(x0, eps, ddim_sigma) + noise(ddim_sigma)
            x_t = on_step_end(callback, step, x_t, x0)
        return x0
