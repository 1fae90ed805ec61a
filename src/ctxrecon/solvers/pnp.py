"""Annealed plug-and-play: ADMM and half-quadratic splitting."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

from torch import Tensor

from ctxrecon.checks import check_flag, check_number
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._resolution import Stage, stages
from ctxrecon.solvers._shared import (
    CG_TOLERANCE,
    check_cg_iterations,
    check_noise_std,
    check_positive,
    part_variance,
    proximal_step,
)
from ctxrecon.solvers.base import DiffusionSolver, NoiseStd
from ctxrecon.solvers.steps import (
    Generators,
    Step,
    StepCallback,
    check_falling_noise,
    on_step_end,
    schedule,
    sigma,
)

_TURNS = 3
"""Turns of the global phase, if it turned in all steps. Chosen on people in the training set."""
_TURNING = 5 / 6
"""Part of the steps in which the phase turns. It then stays, because errors that change until the
last step remain in the image."""


class _Level(NamedTuple):
    """A noise level of the denoiser: a timestep, and its ``ᾱ_t``."""

    t: int
    alpha_bar: float

    @property
    def sigma(self) -> float:
        """``σ_t = √((1−ᾱ_t)/ᾱ_t)``."""
        return sigma(self.alpha_bar)


@dataclass(frozen=True)
class _AnnealedPnP(DiffusionSolver):
    """Options, noise levels and proximal step shared by the two splittings."""

    starts_from_data: ClassVar[bool] = True
    """Latents, and hence a starting image, have no effect."""
    deterministic: ClassVar[bool] = True
    """Deterministic: repeated samples are identical."""

    default_noise_std: ClassVar[float] = 0.01
    """Noise level if ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    largest_denoiser_std: float = 0.25
    coarse_denoiser_std: float = 0.2
    cg_iterations: int = 10
    equivariant: bool = True

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std, zero=False)
        check_positive("largest_denoiser_std", self.largest_denoiser_std)
        check_number("coarse_denoiser_std", self.coarse_denoiser_std, above=0, finite=False)
        check_cg_iterations(self.cg_iterations)
        check_flag("equivariant", self.equivariant)

    def _levels(self, denoiser: Denoiser, steps: Sequence[Step]) -> list[_Level]:
        """Return the noise level of each step, and the last one again for the final proximal step.

        Timesteps noisier than ``largest_denoiser_std`` are replaced by the noisiest allowed one.
        """
        check_falling_noise(steps, self.name)
        allowed = (denoiser.alphas_cumprod >= 1 / (1 + self.largest_denoiser_std**2)).nonzero()
        allowed = allowed[allowed <= steps[0].t]
        if len(allowed) == 0:
            raise InputError(
                f"{self.name} needs a timestep of noise level {self.largest_denoiser_std} or less, "
                "and the scheduler has none: raise largest_denoiser_std"
            )
        timesteps = [min(step.t, int(allowed[-1])) for step in steps]
        levels = [_Level(t, float(denoiser.alphas_cumprod[t])) for t in timesteps]
        return [*levels, levels[-1]]

    def _phases(self, count: int) -> list[float]:
        """Return the global phase ``φ`` of each step, in radians."""
        turn = 2 * math.pi * _TURNS if self.equivariant else 0.0
        return [turn * min(step / count, _TURNING) for step in range(count)]

    def _rho(self, level: _Level) -> float | Tensor:
        """Return ``ρ_t = σ_y²/(2 σ_t²)``."""
        return part_variance(self.noise_std, self.default_noise_std) / level.sigma**2

    def _stages(
        self, denoiser: Denoiser, operator: LinearOperator, y: Tensor, levels: Sequence[_Level]
    ) -> list[Stage]:
        """Return the pixel grid of each level; the last one is the full grid of the result."""
        proximal = partial(
            proximal_step, y=y, cg_iterations=self.cg_iterations, tolerance=CG_TOLERANCE
        )
        coarse, full = stages(denoiser, operator, proximal)
        return [
            *(coarse if level.sigma > self.coarse_denoiser_std else full for level in levels[:-1]),
            full,
        ]


@dataclass(frozen=True)
class PnPHQS(_AnnealedPnP):
    r"""Plug-and-play half-quadratic splitting (Zhang et al., DPIR, arXiv:2008.13751).

    Solves ``min_x ‖A x − y‖²/σ_y² + R(x)``. At each timestep, where ``t − 1`` denotes the next one,

    .. math::

        v &= \hat{x}_0(\sqrt{\bar\alpha_t}\, x;\, t), \\
        x &= \operatorname*{argmin}_x\; \tfrac{1}{2} \|A x - y\|^2
            + \tfrac{\rho_{t-1}}{2} \|x - v\|^2,
            \qquad \rho_t = \sigma_y^2 / (2 \sigma_t^2),

    with ``σ_t = √((1−ᾱ_t)/ᾱ_t)``; both variances are those of one part. The prior's denoiser at
    noise level ``σ_t`` acts as the proximal map of ``σ_t² R``. The initial x is the second line for
    v = 0 and the small ρ of the first timestep: approximately ``A† y`` after a few
    conjugate-gradient iterations. The paper's trade-off λ multiplies ``σ_y²``, so there is no
    further parameter.

    For ``x ~ N(m, C)`` and constant ``σ_t`` the fixed point of x is the posterior mean under
    ``N(m, C + σ_t² I)``, which tends to the MAP estimate as ``σ_t`` falls (with ``equivariant`` for
    m = 0, since the phase of x is then arbitrary). Each timestep costs one
    network evaluation. The result is the last x; its ρ is that of the last timestep, so it fits the
    data even if the last ``σ_t`` is not small. The method is deterministic: ``generator`` and
    ``latents`` are validated but have no effect. A callback receives x in place of ``x_t``.

    Default for MRI: the denoiser's input contains no added noise, so its noise level never exceeds
    the errors of an undersampled image (DPIR starts at 49/255; images here have a 99 % quantile of
    1). Timesteps with more noise use the noisiest allowed level.

    At high noise levels the denoiser cannot see fine details, and resolving large aliased
    structures takes many steps. These steps estimate an image with half the pixels along each axis,
    with ``A U`` in place of ``A`` and ``U`` the interpolation to the full grid, at a quarter of the
    network's cost. Images that would get fewer than 96 pixels along an axis keep the full grid.

    The global phase of an MR image is arbitrary, but a trained network depends on it. With
    ``equivariant`` the denoiser is therefore evaluated as ``e^{−iφ} x̂_0(√ᾱ_t e^{iφ} x; t)``, with
    ``φ = 6π k/K`` in step k of K and constant in the last sixth of the steps. The solver averages
    the errors over these phases without further evaluations, as over the random rotations and
    reflections of Terris et al. (Equivariant plug-and-play, arXiv:2312.01831).

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import PnPHQS
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=PnPHQS(cg_iterations=5), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        noise_std: ``σ_y``, the standard deviation of a complex sample of the measurement. ``None``
            is 1 % of the image's 99 % quantile; pipelines use the scan's estimated level.
        largest_denoiser_std: Upper bound of ``σ_t`` in image units.
        coarse_denoiser_std: Noise level ``σ_t`` above which x has half the pixels along each axis;
            ``inf`` disables the coarse grid.
        cg_iterations: Conjugate-gradient iterations per proximal step. The small default is
            deliberate: early stopping suppresses the noise amplified by parallel imaging.
        equivariant: If true, the denoiser is evaluated under a global phase φ that changes with
            the timesteps. Use ``False`` for a prior of images whose global phase has a meaning,
            such as real and positive ones.
    """

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
        steps, _ = schedule(denoiser, operator, y, timesteps, generator, latents)
        levels = self._levels(denoiser, steps)
        stage, *later = self._stages(denoiser, operator, y, levels)
        x = stage.solve(stage.zero(y), self._rho(levels[0]))
        for step, phase, level, next_level, next_stage in zip(
            steps, self._phases(len(steps)), levels[:-1], levels[1:], later, strict=True
        ):
            v = stage.onto(next_stage, _denoised(denoiser, x, level, phase))
            stage = next_stage
            x = image = stage.solve(v, self._rho(next_level))
            x = _on_step_end(callback, step, stage, x)
        return image


@dataclass(frozen=True)
class PnPADMM(_AnnealedPnP):
    r"""Plug-and-play ADMM (Chan et al., arXiv:1605.01710, with increasing ρ).

    Solves ``min_x ‖A x − y‖²/σ_y² + R(x)``. At each timestep, where ``t − 1`` denotes the next one,

    .. math::

        v &= \hat{x}_0(\sqrt{\bar\alpha_t}\, (x + u);\, t), \\
        u &\leftarrow (u + x - v)\, \sigma_{t-1}^2 / \sigma_t^2, \\
        x &= \operatorname*{argmin}_x\; \tfrac{1}{2} \|A x - y\|^2
            + \tfrac{\rho_{t-1}}{2} \|x - (v - u)\|^2,
            \qquad \rho_t = \sigma_y^2 / (2 \sigma_t^2),

    with ``σ_t = √((1−ᾱ_t)/ᾱ_t)``; both variances are those of one part, and ρ increases with the
    timesteps. The factor of u preserves the multiplier ``ρ_t u`` as ρ increases (Boyd et al.,
    Found. Trends Mach. Learn. 3, 1 (2011), section 3.4.1), and with it the fixed point. u starts
    at 0, and x as in :class:`PnPHQS`.

    For ``x ~ N(m, C)`` the fixed point ``x = v`` is the posterior mean, which is also the MAP
    estimate, for any ``σ_t`` (with ``equivariant`` for m = 0). Cost, result, determinism, callback
    and defaults are those of :class:`PnPHQS`.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> from ctxrecon.solvers import PnPADMM
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> kspace = torch.ones(8, 8, dtype=torch.complex64)
        >>> pipe(kspace, solver=PnPADMM(cg_iterations=5), num_inference_steps=2).images.shape
        torch.Size([1, 8, 8])

    Attributes:
        noise_std: ``σ_y``, the standard deviation of a complex sample of the measurement. ``None``
            is 1 % of the image's 99 % quantile; pipelines use the scan's estimated level.
        largest_denoiser_std: Upper bound of ``σ_t`` in image units.
        coarse_denoiser_std: Noise level ``σ_t`` above which x has half the pixels along each axis;
            ``inf`` disables the coarse grid.
        cg_iterations: Conjugate-gradient iterations per proximal step. The small default is
            deliberate: early stopping suppresses the noise amplified by parallel imaging.
        equivariant: If true, the denoiser is evaluated under a global phase φ that changes with
            the timesteps. Use ``False`` for a prior of images whose global phase has a meaning,
            such as real and positive ones.
    """

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
        steps, _ = schedule(denoiser, operator, y, timesteps, generator, latents)
        levels = self._levels(denoiser, steps)
        stage, *later = self._stages(denoiser, operator, y, levels)
        u = stage.zero(y)
        x = stage.solve(u, self._rho(levels[0]))
        for step, phase, level, next_level, next_stage in zip(
            steps, self._phases(len(steps)), levels[:-1], levels[1:], later, strict=True
        ):
            v = _denoised(denoiser, x + u, level, phase)
            u = (u + x - v) * (next_level.sigma**2 / level.sigma**2)
            target, u = stage.onto(next_stage, v - u), stage.onto(next_stage, u)
            stage = next_stage
            x = image = stage.solve(target, self._rho(next_level))
            x = _on_step_end(callback, step, stage, x)
        return image


def _denoised(denoiser: Denoiser, x: Tensor, level: _Level, phase: float) -> Tensor:
    """Return ``e^{−iφ} x̂_0(√ᾱ_t e^{iφ} x; t)``, ``(batch, ny, nx)``, without adding noise."""
    x_t = complex_to_channels(math.sqrt(level.alpha_bar) * cmath.exp(1j * phase) * x)
    return cmath.exp(-1j * phase) * channels_to_complex(denoiser(x_t, level.t)[0])


def _on_step_end(callback: StepCallback | None, step: Step, stage: Stage, x: Tensor) -> Tensor:
    """Call the callback with x on the full grid in place of ``x_t``, and return the x to use."""
    if callback is None:
        return x
    shown = stage.refined(x)
    changed = on_step_end(callback, step, complex_to_channels(shown), shown)
    return stage.restricted(channels_to_complex(changed))
