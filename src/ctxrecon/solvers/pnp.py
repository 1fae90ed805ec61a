"""Annealed plug-and-play: ADMM and half-quadratic splitting."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers._shared import (
    CG_TOLERANCE,
    NoiseStd,
    check_cg_iterations,
    check_falling_noise,
    check_noise_std,
    check_positive,
    part_variance,
    proximal_step,
    relative_noise_std,
)
from ctxrecon.solvers.base import Move, Step, WalkSolver, image_shape


@dataclass(frozen=True)
class _AnnealedPnP(WalkSolver):
    """What the two splittings have in common; HQS is ADMM without u."""

    starts_from_data: ClassVar[bool] = True
    """Latents, and so an image to start from, change nothing."""
    deterministic: ClassVar[bool] = True
    """It draws nothing, so that several samples would be one."""

    default_noise_std: ClassVar[float] = 0.01
    """Where ``noise_std`` is ``None``."""

    noise_std: NoiseStd | None = None
    largest_denoiser_std: float = 0.25
    cg_iterations: int = 10

    def __post_init__(self) -> None:
        check_noise_std(self.noise_std, zero=False)
        check_positive("largest_denoiser_std", self.largest_denoiser_std)
        check_cg_iterations(self.cg_iterations)

    def _mover(
        self, denoiser: Denoiser, operator: LinearOperator, y: Tensor, timesteps: Sequence[int]
    ) -> Move:
        name = type(self).__name__
        check_falling_noise(denoiser, timesteps, name)
        noisiest = _noisiest_timestep(denoiser, timesteps, self.largest_denoiser_std, name)
        solve = proximal_step(operator, y, cg_iterations=self.cg_iterations, tolerance=CG_TOLERANCE)
        batch, ny, nx = image_shape(operator, y)
        nothing = torch.zeros((batch, ny, nx), dtype=y.dtype, device=y.device)
        levels = [min(t, noisiest) for t in timesteps]
        following = dict(zip(timesteps, [*levels[1:], levels[-1]], strict=True))
        u = nothing

        def signal_power(level: int) -> float:
            return float(denoiser.alphas_cumprod[level])

        def variance(level: int) -> float:
            return relative_noise_std(signal_power(level)) ** 2

        def rho(level: int) -> float | Tensor:
            return part_variance(self.noise_std, self.default_noise_std) / variance(level)

        def move(x_t: Tensor, step: Step, draw: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
            nonlocal u
            level, next_level = min(step.t, noisiest), following[step.t]
            first = step.t == timesteps[0]
            x = solve(nothing, rho(level)) if first else channels_to_complex(x_t)
            noisy = math.sqrt(signal_power(level)) * complex_to_channels(x + u)
            v = channels_to_complex(denoiser(noisy, level)[0])
            # u is the multiplier over ρ: a new ρ leaves the multiplier as it is.
            u = self._multiplier(u, x, v) * (variance(next_level) / variance(level))
            x = solve(v - u, rho(next_level))
            return complex_to_channels(x), x

        return move

    @abstractmethod
    def _multiplier(self, u: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """What the next u is."""


@dataclass(frozen=True)
class PnPHQS(_AnnealedPnP):
    """Plug-and-play half-quadratic splitting (Zhang et al., DPIR, arXiv:2008.13751).

    For ``min_x ‖A x − y‖²/σ_y² + R(x)``, at each timestep with ``σ_t = √((1−ᾱ_t)/ᾱ_t)``,

        ``x = argmin_x ½‖A x − y‖² + ρ_t/2 ‖x − v‖²``,  ``v = x̂_0(√ᾱ_t x; t)``,

    ``ρ_t = σ_y²/(2 σ_t²)``, both variances those of one part. The denoiser of the prior, told that
    the noise is ``σ_t``, stands for the proximal map of ``σ_t² R``. ``A† y`` of a few
    conjugate-gradient steps is where it starts: v is 0 and ``ρ_t`` small. The paper's trade-off λ
    multiplies ``σ_y²``, so that there is nothing else to set.

    For ``x ~ N(m, C)`` and constant ``σ_t`` the fixed point of x is the posterior mean under
    ``N(m, C + σ_t² I)``: the MAP estimate as ``σ_t`` falls. One network evaluation a timestep.
    The result is x of one more proximal step at the last ρ, so that it agrees with the data even
    where the last ``σ_t`` is not small. Nothing is random: ``generator`` and ``latents`` are
    checked, and change nothing; a callback sees x in place of ``x_t``.

    Default for MRI: no noise is added to what the denoiser sees, so it is never told of more noise
    than an undersampled image has errors (DPIR starts at 49/255; the 99 % quantile is 1 here).
    Timesteps of more noise are taken at the noisiest that is allowed.

    Attributes:
        noise_std: ``σ_y`` of a complex sample of the measurement, in its units; ``None`` is 1 % of
            the image's 99 % quantile in pipelines' units, and has pipelines take the scan's own.
        largest_denoiser_std: bound on ``σ_t``, in units of the image.
        cg_iterations: conjugate-gradient steps of each proximal step; few on purpose, since
            stopping early keeps out what parallel imaging amplifies.
    """

    def _multiplier(self, u: Tensor, x: Tensor, v: Tensor) -> Tensor:
        return u


@dataclass(frozen=True)
class PnPADMM(_AnnealedPnP):
    """Plug-and-play ADMM (Chan et al., arXiv:1605.01710, with a growing ρ).

    For ``min_x ‖A x − y‖²/σ_y² + R(x)``, at each timestep with ``σ_t = √((1−ᾱ_t)/ᾱ_t)``,

        ``x = argmin_x ½‖A x − y‖² + ρ_t/2 ‖x − (v − u)‖²``,
        ``v = x̂_0(√ᾱ_t (x + u); t)``,  ``u ← u + x − v``,

    ``ρ_t = σ_y²/(2 σ_t²)``, both variances those of one part; the growth of ρ is that of the
    timesteps. The multiplier ``ρ_t u`` is kept when ρ grows (Boyd et al., Found. Trends Mach.
    Learn. 3, 1 (2011), section 3.4.1), which leaves the fixed point where it is.

    For ``x ~ N(m, C)`` that fixed point is ``x = v`` = the posterior mean, which is the MAP
    estimate, whatever ``σ_t``. Evaluations, result, randomness and callback as in
    :class:`PnPHQS`.

    Default for MRI: as :class:`PnPHQS`.

    Attributes:
        noise_std: ``σ_y`` of a complex sample of the measurement, in its units; ``None`` is 1 % of
            the image's 99 % quantile in pipelines' units, and has pipelines take the scan's own.
        largest_denoiser_std: bound on ``σ_t``, in units of the image.
        cg_iterations: conjugate-gradient steps of each proximal step; few on purpose, since
            stopping early keeps out what parallel imaging amplifies.
    """

    def _multiplier(self, u: Tensor, x: Tensor, v: Tensor) -> Tensor:
        return u + x - v


def _noisiest_timestep(
    denoiser: Denoiser, timesteps: Sequence[int], largest_std: float, solver: str
) -> int:
    """The largest timestep, not above the first, whose ``σ_t`` is at most ``largest_std``."""
    allowed = (denoiser.alphas_cumprod >= 1 / (1 + largest_std**2)).nonzero().flatten()
    allowed = allowed[allowed <= timesteps[0]]
    if len(allowed) == 0:
        raise InputError(
            f"{solver} needs a timestep of noise {largest_std} or less, and the scheduler has "
            "none: raise largest_denoiser_std"
        )
    return int(allowed[-1])
