"""What solvers share: their signature, and the walk from noise to an image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeAlias

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser

Generators: TypeAlias = "torch.Generator | list[torch.Generator] | None"

StepCallback: TypeAlias = "Callable[[int, int, Tensor, Tensor], Tensor | None]"
"""``(step, t, latents, x0) -> latents or None``: called after each step with the next ``x_t``
``(batch, 2, ny, nx)`` and the current image ``(batch, ny, nx)``; what it returns replaces ``x_t``.
"""


class Solver(Protocol):
    """Draws ``x`` from the prior given ``y = A x + n``. Every solver has this signature."""

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
        """The image ``(batch, ny, nx)`` complex64.

        Args:
            denoiser: the prior.
            operator: ``A``, from images ``(batch, ny, nx)`` to measurements.
            y: measurement, of the operator's ``range_shape``, complex64.
            timesteps: training timesteps, strictly descending.
            generator: source of the noise: one, or one for each sample.
            latents: starting noise ``(batch, 2, ny, nx)`` of unit variance; drawn if not given.
            callback: called after each step.

        Raises:
            InputError: something that does not fit, before the first step.
        """


class Step(NamedTuple):
    """One step of a walk, from ``x_t`` to ``x_{t−1}``, whatever the distance between the two.

    Attributes:
        t: training timestep.
        alpha_bar: ``ᾱ_t``.
        alpha_bar_prev: ``ᾱ_{t−1}``, 1 at the last step.
    """

    t: int
    alpha_bar: float
    alpha_bar_prev: float

    @property
    def is_last(self) -> bool:
        """Whether the step ends at the image itself."""
        return self.alpha_bar_prev == 1.0

    @property
    def noise_variance(self) -> float:
        """``1 − ᾱ_t``, that of each channel of ``x_t``; kept above zero to divide by."""
        return max(1 - self.alpha_bar, 1e-12)

    def sigma(self, eta: float) -> float:
        """``σ_t = η √((1−ᾱ_{t−1})/(1−ᾱ_t)) √(1 − ᾱ_t/ᾱ_{t−1})``; 0 at the last step."""
        alpha_bar, alpha_bar_prev = self.alpha_bar, self.alpha_bar_prev
        return eta * math.sqrt(
            (1 - alpha_bar_prev) / self.noise_variance * (1 - alpha_bar / alpha_bar_prev)
        )

    def noise_weight(self, sigma: float) -> float:
        """``√(1 − ᾱ_{t−1} − σ²)``, what remains for ε beside new noise of deviation σ."""
        return math.sqrt(max(1 - self.alpha_bar_prev - sigma**2, 0.0))

    def mean(self, x0: Tensor, eps: Tensor, sigma: float) -> Tensor:
        """``√ᾱ_{t−1} x̂_0 + √(1 − ᾱ_{t−1} − σ²) ε``, ``(batch, 2, ny, nx)``.

        Args:
            x0: ``(batch, ny, nx)`` complex64.
            eps: ``(batch, 2, ny, nx)``.
            sigma: standard deviation, in each channel, of the noise to come on top.
        """
        x = math.sqrt(self.alpha_bar_prev) * complex_to_channels(x0)
        return x + self.noise_weight(sigma) * eps

    def implied_noise(self, x_t: Tensor, x0: Tensor) -> Tensor:
        """``ε̂ = (x_t − √ᾱ_t x̂_0) / √(1−ᾱ_t)``, ``(batch, 2, ny, nx)``."""
        signal = math.sqrt(self.alpha_bar) * complex_to_channels(x0)
        return (x_t - signal) / math.sqrt(self.noise_variance)


Move: TypeAlias = "Callable[[Tensor, Step, Callable[[], Tensor]], tuple[Tensor, Tensor]]"
"""``(x_t, step, draw) -> (x_{t−1}, image)``: the next ``x_t`` and the current image, complex.

``draw()`` gives unit noise ``(batch, 2, ny, nx)``. At the last step the image is the result.
"""


def noised(x: Tensor, std: float, draw: Callable[[], Tensor]) -> Tensor:
    """``x + std · z``; nothing is drawn where there is nothing to add."""
    return x + std * draw() if std > 0 else x


class WalkSolver(ABC):
    """A solver that takes the timesteps one after the other; it only says how to take one."""

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
        """Reconstruct; see :class:`ctxrecon.solvers.Solver` for the arguments.

        Returns:
            ``(batch, ny, nx)`` complex64.

        Raises:
            InputError: an operator, measurement, timesteps or latents that do not fit.
        """
        shape = image_shape(operator, y)
        check_walk(denoiser, shape, timesteps, generator, latents)
        return walk(
            shape,
            self._mover(denoiser, operator, y, timesteps),
            plan(denoiser, timesteps),
            generator=generator,
            latents=latents,
            callback=callback,
            device=y.device,
        )

    @abstractmethod
    def _mover(
        self, denoiser: Denoiser, operator: LinearOperator, y: Tensor, timesteps: Sequence[int]
    ) -> Move:
        """How to take one step; what does not fit the method is refused here, before the first."""


def plan(denoiser: Denoiser, timesteps: Sequence[int]) -> list[Step]:
    """The steps of a walk over ``timesteps``; ᾱ is 1 after the last."""
    alphas_bar = [float(denoiser.alphas_cumprod[t]) for t in timesteps] + [1.0]
    return [Step(t, *pair) for t, pair in zip(timesteps, pairwise(alphas_bar), strict=True)]


def walk(
    shape: tuple[int, int, int],
    move: Move,
    steps: Sequence[Step],
    *,
    generator: Generators = None,
    latents: Tensor | None = None,
    callback: StepCallback | None = None,
    device: torch.device,
) -> Tensor:
    """From noise to an image, step by step; the arguments have been checked.

    Args:
        shape: ``(batch, ny, nx)`` of the image.
        move: takes one step.
        steps: see :func:`plan`.
        generator: source of the noise: one, or one for each sample.
        latents: starting noise ``(batch, 2, ny, nx)``; drawn if not given.
        callback: called after each step; see :data:`StepCallback`.
        device: where to compute.

    Returns:
        ``(batch, ny, nx)`` complex64.
    """
    batch, ny, nx = shape

    def draw() -> Tensor:
        return randn_tensor(
            (batch, 2, ny, nx), generator=generator, device=device, dtype=torch.float32
        )

    x_t = draw() if latents is None else latents.to(device, torch.float32)
    for index, step in enumerate(steps):
        x_t, image = move(x_t, step, draw)
        if callback is not None:
            replaced = callback(index, step.t, x_t, image)
            x_t = x_t if replaced is None else replaced
    return image


def ddim_move(
    denoiser: Denoiser, eta: float, correct: Callable[[Tensor], Tensor] | None = None
) -> Move:
    """The step of :func:`ddim_sample`."""

    def move(x_t: Tensor, step: Step, draw: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        x0_hat, eps = denoiser(x_t, step.t)
        x0 = channels_to_complex(x0_hat)
        if correct is not None:
            x0 = correct(x0)
        sigma = step.sigma(eta)
        return noised(step.mean(x0, eps, sigma), sigma, draw), x0

    return move


def ddim_sample(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    *,
    timesteps: Sequence[int],
    eta: float,
    generator: Generators = None,
    latents: Tensor | None = None,
    callback: StepCallback | None = None,
    correct: Callable[[Tensor], Tensor] | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """DDIM sampling (Song et al., arXiv:2010.02502, equations 12 and 16).

    ``x_{t−1} = √ᾱ_{t−1} x̂_0' + √(1 − ᾱ_{t−1} − σ_t²) ε + σ_t z`` with
    ``σ_t = η √((1−ᾱ_{t−1})/(1−ᾱ_t)) √(1 − ᾱ_t/ᾱ_{t−1})``, where ``x̂_0'`` is the denoised image
    after ``correct``, and ε the network's own, not recomputed from ``x̂_0'``. ``t − 1`` stands for
    the next of ``timesteps``; after the last one ᾱ is 1 and ``x̂_0'`` is the result.

    Args:
        denoiser: the prior.
        shape: ``(batch, ny, nx)`` of the image.
        timesteps: training timesteps, strictly descending.
        eta: η, 0 (deterministic) to 1 (ancestral).
        generator: source of the noise: one, or one for each sample.
        latents: starting noise ``(batch, 2, ny, nx)``; drawn if not given.
        callback: called after each step; see :data:`StepCallback`.
        correct: maps the denoised image ``(batch, ny, nx)`` complex64 to a better one.
        device: where to compute; the latents' device by default, else the CPU.

    Returns:
        ``(batch, ny, nx)`` complex64.

    Raises:
        InputError: timesteps, latents, generators or a shape that do not fit.
    """
    check_walk(denoiser, shape, timesteps, generator, latents)
    if device is None:
        device = torch.device("cpu") if latents is None else latents.device

    return walk(
        shape,
        ddim_move(denoiser, eta, correct),
        plan(denoiser, timesteps),
        generator=generator,
        latents=latents,
        callback=callback,
        device=device,
    )


def check_timesteps(timesteps: Sequence[int], total: int) -> None:
    """Refuse timesteps that are none, not descending, or not those of a scheduler of ``total``."""
    steps = [int(t) for t in timesteps]
    if not steps:
        raise InputError("expected at least one timestep, got none")
    if any(later >= earlier for earlier, later in pairwise(steps)):
        raise InputError(f"expected strictly descending timesteps, got {steps}")
    if steps[0] >= total or steps[-1] < 0:
        raise InputError(f"expected timesteps from 0 to {total - 1}, got {steps}")


def check_walk(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    timesteps: Sequence[int],
    generator: Generators,
    latents: Tensor | None,
) -> None:
    """Refuse a walk that cannot be taken, before its first step."""
    batch, ny, nx = shape
    check_timesteps(timesteps, len(denoiser.alphas_cumprod))
    multiple = denoiser.size_multiple
    if ny % multiple or nx % multiple:
        raise InputError(
            f"the network takes sizes that are multiples of {multiple}, got {ny}x{nx}: "
            "pad the image and compose the operator with Crop"
        )
    if isinstance(generator, list) and len(generator) != batch:
        raise InputError(
            f"expected one generator or one for each of the {batch} samples, got {len(generator)}"
        )
    if latents is not None and tuple(latents.shape) != (batch, 2, ny, nx):
        raise InputError(
            f"expected latents of shape {(batch, 2, ny, nx)}, got {tuple(latents.shape)}"
        )


def image_shape(operator: LinearOperator, y: Tensor) -> tuple[int, int, int]:
    """``(batch, ny, nx)`` of the image, after checking that ``y`` and ``A`` fit."""
    if y.dtype != torch.complex64:
        raise InputError(f"expected a complex64 measurement, got {y.dtype}")
    expected = operator.range_shape
    if y.ndim != len(expected) or tuple(y.shape[1:]) != tuple(expected[1:]):
        raise InputError(
            f"the measurement of shape {tuple(y.shape)} does not fit the operator's range "
            f"{tuple(expected)}"
        )
    if expected[0] not in (1, y.shape[0]):
        raise InputError(
            f"the measurement has batch {y.shape[0]} and the operator {expected[0]}: "
            "make them equal, or the operator's 1"
        )
    if len(operator.domain_shape) != 3:
        raise InputError(
            "expected an operator on images (batch, ny, nx), got one on the domain "
            f"{tuple(operator.domain_shape)}"
        )
    _, ny, nx = operator.domain_shape
    return y.shape[0], ny, nx
