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
    r"""Decomposed diffusion sampling (Chung et al., arXiv:2303.05754), as used by ContextMRI.

    At each timestep, where ``t − 1`` denotes the next one,

    .. math::

        \hat{x}_0, \varepsilon &= D(x_t;\, t), \\
        (I + \xi A^H A)\, x_0 &= \hat{x}_0 + \xi A^H y, \\
        x_{t-1} &= \sqrt{\bar\alpha_{t-1}}\, x_0
            + \sqrt{1 - \bar\alpha_{t-1} - \sigma_t^2}\; \varepsilon + \sigma_t z,

    with DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`). The second line minimizes
    ``½‖x − x̂_0‖² + ξ/2 ‖A x − y‖²`` by a few conjugate-gradient iterations from ``x̂_0``. The result
    is ``x_0`` of the last timestep.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import DDS
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=DDS(data_weight=10.0), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        eta: η of the DDIM step, from 0 (deterministic) to 1 (ancestral).
        data_weight: ξ, positive, a number or a tensor ``(batch,)``; larger values trust the
            measurement more. ``None`` is the paper's 5; pipelines may choose it from the data.
        cg_iterations: Maximum number of conjugate-gradient iterations per DDIM step.
        tolerance: Relative residual at which conjugate gradient stops early. The default of 0 runs
            all iterations, which avoids synchronizing with a GPU.
    """

    default_data_weight: ClassVar[float] = 5.0
    """Data weight if ``data_weight`` is ``None``."""

    eta: float = 0.8
    data_weight: float | Tensor | None = None
    cg_iterations: int = 5
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check_data_weight(self.data_weight)
        check_cg(self.cg_iterations, self.tolerance)

    @property
    def weight_is_unset(self) -> bool:
        """Whether ξ is unset, so that pipelines may choose it from the data."""
        return self.data_weight is None

    def reweighted(self, factor: NoiseStd) -> DDS:
        """Return a copy with ξ for a noise level ``factor`` times larger, ``ξ/factor²``."""
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
