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
    r"""Diffusion posterior sampling (Chung et al., arXiv:2209.14687), Algorithm 1.

    The likelihood ``p(y | x_t)`` is approximated by ``p(y | x̂_0(x_t))``, and its gradient is
    computed through the denoiser. At each timestep, where ``t − 1`` denotes the next one,

    .. math::

        \hat{x}_0, \varepsilon &= D(x_t;\, t), \\
        x'_{t-1} &= \sqrt{\bar\alpha_{t-1}}\, \hat{x}_0
            + \sqrt{1 - \bar\alpha_{t-1} - \sigma_t^2}\; \varepsilon + \sigma_t z, \\
        x_{t-1} &= x'_{t-1} - \zeta\, \nabla_{x_t} \|y - A \hat{x}_0(x_t)\|,

    with DDIM's ``σ_t`` (:func:`~ctxrecon.solvers.ddim_sample`). The result is ``x_{t−1}`` of the
    last timestep.

    The paper descends along the squared norm with step size ``ζ_i = ζ'/‖y − A x̂_0‖``, which equals
    the above with ζ = 2ζ'; the authors' code descends along the norm, and ζ is its "scale". The
    norm is computed per sample. As neither the noise level nor the step length enters, ζ has to be
    tuned, and the spread of the samples does not measure uncertainty.

    Each step costs one network evaluation and one backward pass, with the memory of the latter.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import DPS
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=DPS(zeta=1.0), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        zeta: ζ, positive. A step moves ``x_t`` by at most ζ where the denoiser contracts, so the
            best value grows with ``√(ny · nx)`` and falls with the number of steps. The default
            suits some tens of steps at 128 × 128; the paper uses about 1 for a thousand steps.
        eta: η of the DDIM step; the default of 1 is the paper's ancestral step.
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
            # −∇‖y − A x̂_0‖ = (∂x̂_0/∂x_t)ᵀ Aᴴ(y − A x̂_0) / ‖y − A x̂_0‖, 0 for a zero residual.
            descent = vjp(operator.adjoint(residual) / torch.where(norm > 0, norm, 1.0))
            ddim_sigma = step.ddim_sigma(self.eta)
            unconditional = step.mean(x0_hat, eps, ddim_sigma) + noise(ddim_sigma)
            x_t = unconditional + self.zeta * descent
            image = channels_to_complex(x_t) if step.is_last else x0_hat
            x_t = on_step_end(callback, step, x_t, image)
        return image
