"""Decomposed diffusion sampling of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ctxrecon.checks import is_number
from ctxrecon.errors import InputError
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import check_cg_iterations, check_eta, check_positive, check_whole
from ctxrecon.solvers.base import Move, WalkSolver, ddim_move, image_shape


@dataclass(frozen=True)
class DDS3D(WalkSolver):
    """Decomposed diffusion sampling of volumes (Chung et al., arXiv:2303.05754, section 4).

    The prior sees slices, the batch; total variation along z ties those of one volume together
    (DiffusionMBIR, Chung et al., arXiv:2211.10655). Each DDIM step improves the denoised volume to

        ``argmin_x ξ/2 ‖A x − y‖² + ½ ‖x − x̂_0‖² + λ ‖D_z x‖₁``

    (``D_z`` differences of neighbouring slices, ``‖·‖₁`` the sum of complex magnitudes) by ADMM:

        ``(I + ξ AᴴA + ρ D_zᵀD_z) x = x̂_0 + ξ Aᴴ y + ρ D_zᵀ(z − w)``,  CG from ``x̂_0``,
        ``z = S_{λ/ρ}(D_z x + w)``,  ``w ← w + D_z x − z``,  ``S`` soft thresholding.

    z and w go on from one diffusion step to the next (they start at 0), so that one ADMM iteration
    in each is enough, as in the paper. With λ = 0 each slice is alone and this is
    :class:`ctxrecon.solvers.DDS`.

    A batch is one volume, or volumes of ``num_slices`` slices one after the other; slices of a
    volume must come in one batch, in their order, so draw posterior samples one at a time.

    Default for MRI: DDS's η and ξ; ρ = 1, for which ``ρ D_zᵀD_z`` (at most 4) leaves the condition
    of the system as DDS has it and five CG steps still do; λ a few hundredths of the image's 99 %
    quantile, below the edges between slices that should stay.

    Attributes:
        eta: η of the DDIM step, 0 (deterministic) to 1.
        data_weight: ξ, positive; larger trusts the measurement more.
        tv_weight: λ, 0 or more; larger makes neighbouring slices more alike.
        penalty: ρ, positive; it changes the way, not the goal.
        num_slices: slices of a volume; the whole batch by default.
        cg_iterations: conjugate-gradient steps of each ADMM iteration.
        admm_iterations: ADMM iterations in each DDIM step.
    """

    couples_batch: ClassVar[bool] = True
    """The images of a batch are not alone, so it may not be split or hold several samples."""

    eta: float = 0.8
    data_weight: float = 5.0
    tv_weight: float = 0.02
    penalty: float = 1.0
    num_slices: int | None = None
    cg_iterations: int = 5
    admm_iterations: int = 1

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check_positive("data_weight", self.data_weight)
        if not is_number(self.tv_weight) or self.tv_weight != 0:
            check_positive("tv_weight", self.tv_weight)
        check_positive("penalty", self.penalty)
        if self.num_slices is not None:
            check_whole("num_slices", self.num_slices)
        check_cg_iterations(self.cg_iterations)
        check_whole("admm_iterations", self.admm_iterations)

    def _mover(
        self, denoiser: Denoiser, operator: LinearOperator, y: Tensor, timesteps: Sequence[int]
    ) -> Move:
        batch, ny, nx = image_shape(operator, y)
        num_slices = self.num_slices or batch
        if batch % num_slices:
            raise InputError(
                f"expected volumes of {num_slices} slices, got a batch of {batch}: "
                "give whole volumes, or set num_slices"
            )
        # Untied slices are systems of their own, each with its own CG steps, as in DDS.
        num_slices = num_slices if self.tv_weight > 0 else 1
        xi, rho = self.data_weight, self.penalty

        def volumes(images: Tensor) -> Tensor:
            return images.reshape(-1, num_slices, ny, nx)

        def slices(x: Tensor) -> Tensor:
            return x.reshape(batch, ny, nx)

        def normal(x: Tensor) -> Tensor:
            data = torch.add(x, volumes(operator.normal(slices(x))), alpha=xi)
            return torch.add(data, _difference_adjoint(_difference(x)), alpha=rho)

        weighted_adjoint = xi * volumes(operator.adjoint(y))
        z = w = torch.zeros_like(_difference(weighted_adjoint))

        def data_consistent(images: Tensor) -> Tensor:
            nonlocal z, w
            x = x0_hat = volumes(images)
            for _ in range(self.admm_iterations):
                x = conjugate_gradient(
                    normal,
                    x0_hat + weighted_adjoint + rho * _difference_adjoint(z - w),
                    x0=x,
                    num_iterations=self.cg_iterations,
                )
                target = _difference(x) + w
                z = _soft_threshold(target, self.tv_weight / rho)
                w = target - z
            return slices(x)

        return ddim_move(denoiser, self.eta, data_consistent)


def _difference(x: Tensor) -> Tensor:
    """``D_z x``: ``(volumes, slices, ny, nx)`` to ``(volumes, slices − 1, ny, nx)``."""
    return x[:, 1:] - x[:, :-1]


def _difference_adjoint(differences: Tensor) -> Tensor:
    """``D_zᵀ``, back to ``(volumes, slices, ny, nx)``."""
    return -_difference(pad(differences, (0, 0, 0, 0, 1, 1)))


def _soft_threshold(x: Tensor, threshold: float) -> Tensor:
    """``x`` with its magnitude lowered by ``threshold``, to 0 at least."""
    magnitude = x.abs()
    return x * ((magnitude - threshold).clamp_min(0) / magnitude.clamp_min(1e-12))
