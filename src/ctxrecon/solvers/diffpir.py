"""Denoising diffusion models for plug-and-play image restoration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ctxrecon.checks import check_number
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    check_cg,
    check_noise_std,
    check_positive,
    part_variance,
    proximal_step,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import Generators, StepCallback, denoise, on_step_end, schedule


@dataclass(frozen=True)
class DiffPIR(DiffusionSolver):
    r"""DiffPIR, plug-and-play diffusion (Zhu et al., arXiv:2305.08995, Algorithm 1).

    Each step balances the denoised image against the measurement (half-quadratic splitting),
    computes the noise implied by the result and mixes it with new noise:

    .. math::

        \hat{x}_0' &= \operatorname*{argmin}_x\; \|y - A x\|^2 + \rho_t \|x - \hat{x}_0\|^2,
            \qquad \rho_t = \lambda \sigma_n^2 / \sigma_t^2, \\
        \hat\varepsilon &= (x_t - \sqrt{\bar\alpha_t}\, \hat{x}_0') / \sqrt{1 - \bar\alpha_t}, \\
        x_{t-1} &= \sqrt{\bar\alpha_{t-1}}\, \hat{x}_0' + \sqrt{1 - \bar\alpha_{t-1}}\,
            (\sqrt{1 - \zeta}\, \hat\varepsilon + \sqrt{\zeta}\, z).

    ``σ_t² = (1−ᾱ_t)/ᾱ_t`` is the diffusion noise of one channel and ``σ_n²`` the variance of one
    part of a sample of ``y``. The first line is solved exactly, by conjugate gradient on
    ``AᴴA + ρ_t I``. For ``noise_std`` = 0, ``x̂_0'`` is the least-squares solution nearest to
    ``x̂_0``; with several coils that amplifies noise unless ``cg_iterations`` is small.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import DiffPIR
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=DiffPIR(zeta=0.5), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        noise_std: Standard deviation of a complex sample of ``y``, in the units of ``y`` as passed
            to the solver; 0 for noise-free data. ``None`` is 1 % of the image's 99 % quantile
            (pipelines scale images to a quantile of 1); pipelines use the scan's estimated level.
        lambda_: λ, positive; larger values trust the prior more. The default lies within the
            paper's range of 3 to 25.
        zeta: ζ, the fraction of new noise, from 0 (deterministic) to 1. The small default favors
            faithful images from few steps.
        cg_iterations: Maximum number of conjugate-gradient iterations per step.
        tolerance: Relative residual at which conjugate gradient stops; the default is far below
            the noise of a scan.
    """

    default_noise_std: ClassVar[float] = 0.01
    """Noise level if ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    lambda_: float = 7.0
    zeta: float = 0.3
    cg_iterations: int = 50
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std)
        check_positive("lambda_", self.lambda_)
        check_number("zeta", self.zeta, least=0, most=1)
        check_cg(self.cg_iterations, self.tolerance)

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
        solve = proximal_step(
            operator, y, cg_iterations=self.cg_iterations, tolerance=self.tolerance
        )
        x_t = noise.initial()
        for step in steps:
            x0_hat, _ = denoise(denoiser, x_t, step.t)
            variance = part_variance(self.noise_std, self.default_noise_std)
            rho = self.lambda_ * variance * step.sigma**-2
            x0 = solve(x0_hat, rho)
            eps = step.implied_noise(x_t, x0)
            new_std = math.sqrt(self.zeta * (1 - step.alpha_bar_prev))
            x_t = step.mean(x0, eps, new_std) + noise(new_std)
            x_t = on_step_end(callback, step, x_t, x0)
        return x0
