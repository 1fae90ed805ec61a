"""Denoising diffusion null-space model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.linalg import per_sample
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    check_cg,
    check_eta,
    check_noise_std,
    part_variance,
    proximal_step,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import Generators, Step, StepCallback, denoise, on_step_end, schedule


@dataclass(frozen=True)
class DDNM(DiffusionSolver):
    r"""Denoising diffusion null-space model (Wang et al., arXiv:2212.00490), DDNM and DDNM+.

    Each step combines the null-space component of the denoised image with the range-space component
    of the measurement (equation 13):

    .. math::

        \hat{x}_0' &= \hat{x}_0 + \lambda_t A^\dagger (y - A \hat{x}_0), \\
        \hat\varepsilon &= (x_t - \sqrt{\bar\alpha_t}\, \hat{x}_0') / \sqrt{1 - \bar\alpha_t}, \\
        x_{t-1} &= \sqrt{\bar\alpha_{t-1}}\, \hat{x}_0'
            + \sqrt{1 - \bar\alpha_{t-1} - \sigma_t^2}\; \hat\varepsilon + \sqrt{\gamma_t}\, z,

    with DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`). Without noise, ``λ_t = 1`` and
    ``γ_t = σ_t²``, which for η = 1 is the paper's sample from ``q(x_{t−1} | x_t, x̂_0')``
    (Algorithm 1). ``x̂_0'`` is then the solution of ``A x = y`` (or the least-squares solution)
    nearest to ``x̂_0``. ``A†`` is the true pseudo-inverse, computed by conjugate gradient on ``AᴴA``
    from ``x̂_0``: for several coils ``AᴴA`` is not a projection, and ``Aᴴ`` cannot replace ``A†``.

    With ``noise_std`` > 0 this is DDNM+ in its scalar form (equations 17 to 19), in which the noise
    of the measurement and the added noise sum to the noise of the step:

        ``λ_t = min(1, σ_t / (a_t σ_y))``,  ``γ_t = σ_t² − (a_t λ_t σ_y)²``,

    where ``a_t`` is the weight of ``x̂_0'`` in ``x_{t−1}`` and σ_y the standard deviation of one
    part of a sample of ``y``. The balance is exact if ``A†`` preserves the noise level, as for one
    fully sampled coil. Samples that were not measured also get noise of variance γ_t only, and the
    noise amplification of parallel imaging is neglected; the paper's form that includes both
    requires an SVD of ``A``. At the last step σ_t = 0 and hence λ_t = 0: the result is a denoised
    image, which does not reproduce the noise in ``y``. The paper's time travel, which multiplies
    the number of network evaluations, is not implemented.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import DDNM
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=DDNM(eta=0.5), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        noise_std: Standard deviation of a complex sample of ``y``, in the units of ``y`` as passed
            to the solver; 0 or ``None`` is DDNM.
        eta: η of the DDIM step, from 0 (deterministic) to 1 (ancestral, the paper's and the
            default). It must be above 0 if ``noise_std`` is.
        cg_iterations: Maximum number of conjugate-gradient iterations per step. One is exact for a
            single coil. For several coils, ``A†`` needs 50 or more and amplifies noise where
            parallel imaging is ill-conditioned; the default stops before that.
        tolerance: Relative residual at which conjugate gradient stops; the default is far below
            the noise of a scan.
    """

    default_noise_std: ClassVar[float] = 0.0
    """Noise level if ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    eta: float = 1.0
    cg_iterations: int = 10
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std)
        check_eta(self.eta)
        check_cg(self.cg_iterations, self.tolerance)
        noisy = self.noise_std is not None and bool(torch.as_tensor(self.noise_std).any())
        if self.eta == 0 and noisy:
            raise InputError(
                "expected eta above 0 with noise_std above 0, got 0: DDNM+ compensates the noise "
                "of the measurement by adding less noise in each step"
            )

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
        nearest_solution = proximal_step(
            operator, y, cg_iterations=self.cg_iterations, tolerance=self.tolerance
        )
        x_t = noise.initial()
        for step in steps:
            x0_hat, _ = denoise(denoiser, x_t, step.t)
            ddim_sigma = step.ddim_sigma(self.eta)
            carried = self._carried(step, ddim_sigma, y.device)
            # 0/0 if both the step and the measurement are free of noise.
            lambda_t = (ddim_sigma / carried).nan_to_num(nan=1.0).clamp(max=1)
            gamma_t = (ddim_sigma**2 - carried**2).clamp(min=0)
            correction = nearest_solution(x0_hat, 0.0) - x0_hat
            x0 = x0_hat + per_sample(lambda_t, x0_hat) * correction
            eps = step.implied_noise(x_t, x0)
            x_t = step.mean(x0, eps, ddim_sigma) + noise(gamma_t.sqrt())
            x_t = on_step_end(callback, step, x_t, x0)
        return x0

    def _carried(self, step: Step, ddim_sigma: float, device: torch.device) -> Tensor:
        """Return ``a_t σ_y``, the measurement noise in ``x_{t−1}``, ``(batch or 1,)``."""
        signal = math.sqrt(step.alpha_bar / step.noise_variance)
        weight = math.sqrt(step.alpha_bar_prev) - step.eps_weight(ddim_sigma) * signal
        variance = part_variance(self.noise_std, self.default_noise_std)
        return weight * torch.as_tensor(variance, device=device).sqrt().reshape(-1)
