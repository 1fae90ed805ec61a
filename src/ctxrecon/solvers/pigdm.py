"""Pseudoinverse-guided diffusion models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ctxrecon.checks import check_flag
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    check_cg,
    check_eta,
    check_noise_std,
    denoise_with_vjp,
    part_variance,
    proximal_step,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import Generators, StepCallback, on_step_end, schedule

_SMALLEST_ALPHA_BAR = 1e-4


@dataclass(frozen=True)
class PiGDM(DiffusionSolver):
    r"""Pseudoinverse-guided diffusion, ΠGDM (Song et al., ICLR 2023).

    J. Song, A. Vahdat, M. Mardani and J. Kautz, "Pseudoinverse-guided diffusion models for inverse
    problems" (published at ICLR 2023, without an arXiv number). With the approximation
    ``p(x_0 | x_t) = N(x̂_0, r_t² I)``, ``r_t² = 1 − ᾱ_t`` (exact for a prior of unit covariance),
    the score of the likelihood is

    .. math::

        g = \Bigl(\frac{\partial \hat{x}_0}{\partial x_t}\Bigr)^{\!\mathsf T}
            A^H (r_t^2 A A^H + \sigma_y^2 I)^{-1} (y - A \hat{x}_0).

    Here σ_y² is the variance of one part of a sample of ``y``, as ``r_t²`` is that of one channel.
    Because ``r_t² Aᴴ(r_t² A Aᴴ + σ_y² I)⁻¹ = (AᴴA + σ_y²/r_t² I)⁻¹ Aᴴ``, the system is solved in
    image space by conjugate gradient, and tends to ``A†`` as σ_y tends to 0.

    The paper scales g by ``r_t²``, independent of the step length ("adaptive weights"), and keeps
    the network's ε. The denoised image of a DDIM step becomes

        ``x̂_0' = x̂_0 + √ᾱ_t r_t² g``.

    With ``adaptive_weights=False`` the exact score enters both terms of the step,

        ``x̂_0' = x̂_0 + (r_t²/√ᾱ_t) g``,  ``ε' = ε − r_t g``,

    and samples converge to the posterior with enough steps if r_t describes the prior. Errors of
    the network's derivative are divided by ᾱ_t. The step is

        ``x_{t−1} = √ᾱ_{t−1} x̂_0' + √(1 − ᾱ_{t−1} − σ_t²) ε' + σ_t z``,

    with DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`), and ``ε' = ε`` by default. The
    result is ``x̂_0'`` of the last timestep.

    Each step costs one network evaluation and one backward pass.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import PiGDM
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=PiGDM(eta=0.5), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        noise_std: Standard deviation of a complex sample of ``y``, in the units of ``y`` as passed
            to the solver; 0 for noise-free data. ``None`` is 1 % of the image's 99 % quantile
            (pipelines scale images to a quantile of 1); pipelines use the scan's estimated level.
        eta: η of the DDIM step; the default of 1 is the paper's.
        adaptive_weights: Whether to use the paper's weights, the default for MRI: they are bounded
            at every timestep and work well with few timesteps.
        cg_iterations: Maximum number of conjugate-gradient iterations per step.
        tolerance: Relative residual at which conjugate gradient stops.
    """

    default_noise_std: ClassVar[float] = 0.01
    """Noise level if ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    eta: float = 1.0
    adaptive_weights: bool = True
    cg_iterations: int = 50
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std)
        check_eta(self.eta)
        check_flag("adaptive_weights", self.adaptive_weights)
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
        smallest = min(step.alpha_bar for step in steps)
        if not self.adaptive_weights and smallest < _SMALLEST_ALPHA_BAR:
            raise InputError(
                f"expected timesteps with alphas_cumprod of {_SMALLEST_ALPHA_BAR:g} or more, got "
                f"{smallest:.2g}: leave the first ones out, or set adaptive_weights"
            )
        solve = proximal_step(
            operator, y, cg_iterations=self.cg_iterations, tolerance=self.tolerance
        )
        x_t = noise.initial()
        for step in steps:
            x0_hat, eps, vjp = denoise_with_vjp(denoiser, x_t, step.t)
            ratio = part_variance(self.noise_std, self.default_noise_std) / step.noise_variance
            guidance = channels_to_complex(vjp(solve(x0_hat, ratio) - x0_hat))  # r_t² g
            signal = math.sqrt(step.alpha_bar)
            if self.adaptive_weights:
                x0 = x0_hat + signal * guidance
            else:
                x0 = x0_hat + guidance / signal
                eps = step.implied_noise(x_t, x0)
            ddim_sigma = step.ddim_sigma(self.eta)
            x_t = step.mean(x0, eps, ddim_sigma) + noise(ddim_sigma)
            x_t = on_step_end(callback, step, x_t, x0)
        return x0
