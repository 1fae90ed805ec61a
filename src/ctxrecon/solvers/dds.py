"""Decomposed diffusion sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrecon.linalg import conjugate_gradient, squared_norm
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import check_cg, check_eta, check_positive
from ctxrecon.solvers.base import Move, WalkSolver, ddim_move


@dataclass(frozen=True)
class DDS(WalkSolver):
    """Decomposed diffusion sampling (Chung et al., arXiv:2303.05754), as ContextMRI uses it.

    Each DDIM step improves the denoised image by a few conjugate-gradient steps on

        ``(I + ξ AᴴA) x = x̂_0 + ξ Aᴴ y``,  started at ``x̂_0``,

    the minimiser of ``½‖x − x̂_0‖² + ξ/2 ‖A x − y‖²``.

    Attributes:
        eta: η of the DDIM step, 0 (deterministic) to 1.
        data_weight: ξ, positive; larger trusts the measurement more.
        cg_iterations: conjugate-gradient steps in each DDIM step, at most.
        tolerance: relative residual at which conjugate gradient stops early; 0, the default, takes
            all steps, and never makes a GPU wait for the answer.
    """

    eta: float = 0.8
    data_weight: float = 5.0
    cg_iterations: int = 5
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check_positive("data_weight", self.data_weight)
        check_cg(self.cg_iterations, self.tolerance)

    def _mover(
        self, denoiser: Denoiser, operator: LinearOperator, y: Tensor, timesteps: Sequence[int]
    ) -> Move:
        xi = self.data_weight
        weighted_adjoint = xi * operator.adjoint(y)

        def regularized_normal(x: Tensor) -> Tensor:
            return torch.add(x, operator.normal(x), alpha=xi)

        def quadratic(x: Tensor) -> Tensor:
            return squared_norm(x) + xi * operator.squared_norm(x)

        def data_consistent(x0_hat: Tensor) -> Tensor:
            return conjugate_gradient(
                regularized_normal,
                x0_hat + weighted_adjoint,
                x0=x0_hat,
                num_iterations=self.cg_iterations,
                tolerance=self.tolerance or None,
                quadratic=quadratic,
            )

        return ddim_move(denoiser, self.eta, data_consistent)
