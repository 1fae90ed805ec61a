"""Annealed plug-and-play: ADMM and half-quadratic splitting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

from torch import Tensor

from ctxrecon.checks import check_number
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
    """What the two splittings have in common: options, noise levels and proximal step."""

    starts_from_data: ClassVar[bool] = True
    """Latents, and so an image to start from, change nothing."""
    deterministic: ClassVar[bool] = True
    """It draws nothing, so that several samples would be one."""

    default_noise_std: ClassVar[float] = 0.01
    """Where ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    largest_denoiser_std: float = 0.25
    coarse_denoiser_std: float = 0.2
    cg_iterations: int = 10

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std, zero=False)
        check_positive("largest_denoiser_std", self.largest_denoiser_std)
        check_number("coarse_denoiser_std", self.coarse_denoiser_std, above=0, finite=False)
        check_cg_iterations(self.cg_iterations)

    def _levels(self, denoiser: Denoiser, steps: Sequence[Step]) -> list[_Level]:
        """The noise level of each step, and once more the last, for the proximal step at the end.

        Timesteps of more noise than ``largest_denoiser_std`` are taken at the noisiest allowed.
        """
        check_falling_noise(steps, self.name)
        allowed = (denoiser.alphas_cumprod >= 1 / (1 + self.largest_denoiser_std**2)).nonzero()
        allowed = allowed[allowed <= steps[0].t]
        if len(allowed) == 0:
            raise InputError(
                f"{self.name} needs a timestep of noise {self.largest_denoiser_std} or less, and "
                "the scheduler has none: raise largest_denoiser_std"
            )
        timesteps = [min(step.t, int(allowed[-1])) for step in steps]
        levels = [_Level(t, float(denoiser.alphas_cumprod[t])) for t in timesteps]
        return [*levels, levels[-1]]

    def _rho(self, level: _Level) -> float | Tensor:
        """``ρ_t = σ_y²/(2 σ_t²)``."""
        return part_variance(self.noise_std, self.default_noise_std) / level.sigma**2

    def _stages(
        self, denoiser: Denoiser, operator: LinearOperator, y: Tensor, levels: Sequence[_Level]
    ) -> list[Stage]:
        """The pixels of the image at each level; all of them at the last, that of the result."""
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
    """Plug-and-play half-quadratic splitting (Zhang et al., DPIR, arXiv:2008.13751).

    For ``min_x ‖A x − y‖²/σ_y² + R(x)``, at each timestep, ``t − 1`` standing for the next one,

        ``v = x̂_0(√ᾱ_t x; t)``,
        ``x = argmin_x ½‖A x − y‖² + ρ_{t−1}/2 ‖x − v‖²``,

    ``ρ_t = σ_y²/(2 σ_t²)`` with ``σ_t = √((1−ᾱ_t)/ᾱ_t)``, both variances those of one part. The
    denoiser of the prior, given the noise level ``σ_t``, stands for the proximal map of ``σ_t² R``.
    x starts at the second line for v = 0 and the ρ of the first timestep, which is small: about
    ``A† y`` of a few conjugate-gradient steps. The paper's trade-off λ multiplies ``σ_y²``, so that
    there is nothing else to set.

    For ``x ~ N(m, C)`` and constant ``σ_t`` the fixed point of x is the posterior mean under
    ``N(m, C + σ_t² I)``: the MAP estimate as ``σ_t`` falls. One network evaluation a timestep.
    The last x is the result; its ρ is that of the last timestep, so that it agrees with the data
    even where the last ``σ_t`` is not small. Nothing is random: ``generator`` and ``latents`` are
    checked, and change nothing; a callback sees x in place of ``x_t``.

    Default for MRI: no noise is added to what the denoiser sees, so it is never given a higher
    noise level than an undersampled image has errors (DPIR starts at 49/255; the 99 % quantile is 1
    here). Timesteps of more noise are taken at the noisiest that is allowed.

    Where the denoiser is told of much noise, it cannot see fine details, and the large structures
    that undersampling has folded need many steps: there an image ``x_c`` with half the pixels along
    each axis is sought, with ``A U`` in place of ``A``, ``U`` its interpolation to all pixels, at a
    quarter of the network's cost. Images that would get fewer than 96 pixels keep all of theirs.

    Attributes:
        noise_std: ``σ_y`` of a complex sample of the measurement, in its units; ``None`` is 1 % of
            the image's 99 % quantile in pipelines' units, and has pipelines take the scan's own.
        largest_denoiser_std: bound on ``σ_t``, in units of the image.
        coarse_denoiser_std: ``σ_t`` above which x has half the pixels along each axis; with ``inf``
            it never has.
        cg_iterations: conjugate-gradient steps of each proximal step; few on purpose, since
            stopping early keeps out what parallel imaging amplifies.
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
        for step, level, next_level, next_stage in zip(
            steps, levels[:-1], levels[1:], later, strict=True
        ):
            v = stage.onto(next_stage, _denoised(denoiser, x, level))
            stage = next_stage
            x = image = stage.solve(v, self._rho(next_level))
            x = _on_step_end(callback, step, stage, x)
        return image


@dataclass(frozen=True)
class PnPADMM(_AnnealedPnP):
    """Plug-and-play ADMM (Chan et al., arXiv:1605.01710, with a growing ρ).

    For ``min_x ‖A x − y‖²/σ_y² + R(x)``, at each timestep, ``t − 1`` standing for the next one,

        ``v = x̂_0(√ᾱ_t (x + u); t)``,
        ``u ← (u + x − v) σ_{t−1}²/σ_t²``,
        ``x = argmin_x ½‖A x − y‖² + ρ_{t−1}/2 ‖x − (v − u)‖²``,

    ``ρ_t = σ_y²/(2 σ_t²)`` with ``σ_t = √((1−ᾱ_t)/ᾱ_t)``, both variances those of one part; the
    growth of ρ is that of the timesteps. The factor of u keeps the multiplier ``ρ_t u`` when ρ
    grows (Boyd et al., Found. Trends Mach. Learn. 3, 1 (2011), section 3.4.1), which leaves the
    fixed point where it is. u starts at 0, and x as in :class:`PnPHQS`.

    For ``x ~ N(m, C)`` that fixed point is ``x = v`` = the posterior mean, which is the MAP
    estimate, whatever ``σ_t``. Evaluations, result, randomness and callback as in
    :class:`PnPHQS`.

    Default for MRI: as :class:`PnPHQS`.

    Attributes:
        noise_std: ``σ_y`` of a complex sample of the measurement, in its units; ``None`` is 1 % of
            the image's 99 % quantile in pipelines' units, and has pipelines take the scan's own.
        largest_denoiser_std: bound on ``σ_t``, in units of the image.
        coarse_denoiser_std: ``σ_t`` above which x has half the pixels along each axis; with ``inf``
            it never has.
        cg_iterations: conjugate-gradient steps of each proximal step; few on purpose, since
            stopping early keeps out what parallel imaging amplifies.
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
        for step, level, next_level, next_stage in zip(
            steps, levels[:-1], levels[1:], later, strict=True
        ):
            v = _denoised(denoiser, x + u, level)
            u = (u + x - v) * (next_level.sigma**2 / level.sigma**2)
            target, u = stage.onto(next_stage, v - u), stage.onto(next_stage, u)
            stage = next_stage
            x = image = stage.solve(target, self._rho(next_level))
            x = _on_step_end(callback, step, stage, x)
        return image


def _denoised(denoiser: Denoiser, x: Tensor, level: _Level) -> Tensor:
    """``x̂_0(√ᾱ_t x; t)``, ``(batch, ny, nx)``: no noise is added."""
    x_t = math.sqrt(level.alpha_bar) * complex_to_channels(x)
    return channels_to_complex(denoiser(x_t, level.t)[0])


def _on_step_end(callback: StepCallback | None, step: Step, stage: Stage, x: Tensor) -> Tensor:
    """Show a callback x in place of ``x_t``, with all pixels, and return what to go on from."""
    if callback is None:
        return x
    shown = stage.refined(x)
    changed = on_step_end(callback, step, complex_to_channels(shown), shown)
    return stage.restricted(channels_to_complex(changed))
