"""Steps of a diffusion from noise to an image, and the noise added in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.linalg import per_sample
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser

Generators: TypeAlias = "torch.Generator | list[torch.Generator] | None"
"""Random generator for all samples, a list with one per sample, or torch's default."""

StepCallback: TypeAlias = "Callable[[int, int, Tensor, Tensor], Tensor | None]"
"""``(step, t, latents, x0) -> latents or None``: called after each step with the next ``x_t``,
``(batch, 2, ny, nx)``, and the current image ``(batch, ny, nx)``. A returned tensor replaces
``x_t``.
"""

_SMALLEST_VARIANCE = 1e-12


def sigma(alpha_bar: float) -> float:
    """Return ``σ = √((1 − ᾱ)/ᾱ)``, the noise level of ``x_t/√ᾱ_t`` in each of its two channels.

    It is bounded away from zero so that it can be a divisor, and infinite for ``ᾱ = 0``.
    """
    if alpha_bar == 0:
        return math.inf
    return math.sqrt(max(1 - alpha_bar, _SMALLEST_VARIANCE) / alpha_bar)


@dataclass(frozen=True)
class Step:
    """One step from ``x_t`` to ``x_{t−1}``, for any distance between the two timesteps.

    Attributes:
        index: Index of the step, from 0.
        t: Training timestep.
        next_t: Training timestep of the next step, ``t − 1`` in equations; ``None`` at the last.
        alpha_bar: ``ᾱ_t``.
        alpha_bar_prev: ``ᾱ_{t−1}``, 1 at the last step.
    """

    index: int
    t: int
    next_t: int | None
    alpha_bar: float
    alpha_bar_prev: float

    @property
    def is_first(self) -> bool:
        """Whether the step starts from the noisiest timestep."""
        return self.index == 0

    @property
    def is_last(self) -> bool:
        """Whether the step ends at the image itself."""
        return self.next_t is None

    @property
    def sigma(self) -> float:
        """``σ_t = √((1 − ᾱ_t)/ᾱ_t)``; see :func:`sigma`."""
        return sigma(self.alpha_bar)

    @property
    def noise_variance(self) -> float:
        """Variance ``1 − ᾱ_t`` of each channel of ``x_t``, bounded away from zero."""
        return max(1 - self.alpha_bar, _SMALLEST_VARIANCE)

    def ddim_sigma(self, eta: float) -> float:
        """Return ``σ_t(η) = η √((1−ᾱ_{t−1})/(1−ᾱ_t)) √(1 − ᾱ_t/ᾱ_{t−1})``; 0 at the last step.

        It is the standard deviation of the noise added by DDIM (arXiv:2010.02502, equation 16).
        """
        alpha_bar, alpha_bar_prev = self.alpha_bar, self.alpha_bar_prev
        return eta * math.sqrt(
            (1 - alpha_bar_prev) / self.noise_variance * (1 - alpha_bar / alpha_bar_prev)
        )

    def eps_weight(self, noise_std: float) -> float:
        """Return ``√(1 − ᾱ_{t−1} − s²)``, the weight of ε given new noise of deviation s."""
        return math.sqrt(max(1 - self.alpha_bar_prev - noise_std**2, 0.0))

    def mean(self, x0: Tensor, eps: Tensor, noise_std: float) -> Tensor:
        """Return ``√ᾱ_{t−1} x̂_0 + √(1 − ᾱ_{t−1} − s²) ε``, ``(batch, 2, ny, nx)``.

        Args:
            x0: x̂_0, ``(batch, ny, nx)`` complex64.
            eps: ε, ``(batch, 2, ny, nx)``.
            noise_std: s, the standard deviation in each channel of the noise added afterwards.
        """
        x = math.sqrt(self.alpha_bar_prev) * complex_to_channels(x0)
        return x + self.eps_weight(noise_std) * eps

    def implied_noise(self, x_t: Tensor, x0: Tensor) -> Tensor:
        """Return ``ε̂ = (x_t − √ᾱ_t x̂_0) / √(1−ᾱ_t)``, ``(batch, 2, ny, nx)``."""
        signal = math.sqrt(self.alpha_bar) * complex_to_channels(x0)
        return (x_t - signal) / math.sqrt(self.noise_variance)


@dataclass(frozen=True)
class Noise:
    """Source of noise for a batch, drawn for each sample from its own generator.

    Attributes:
        shape: Shape ``(batch, 2, ny, nx)`` of the noise.
        device: Device on which the noise is drawn and returned.
        generator: Random generator, or one per sample.
        latents: Initial noise to use instead of drawing it, of the same shape.
    """

    shape: tuple[int, int, int, int]
    device: torch.device
    generator: Generators = None
    latents: Tensor | None = None

    def initial(self) -> Tensor:
        """Return ``x_T`` of unit variance: the given latents, or new noise."""
        return self() if self.latents is None else self.latents.to(self.device, torch.float32)

    def __call__(self, std: float | Tensor = 1.0) -> Tensor:
        """Return ``std · z`` with z of unit variance in each channel.

        Args:
            std: Standard deviation, a number or a tensor ``(batch or 1,)``. Nothing is drawn if all
                are 0.

        Returns:
            Noise ``(batch, 2, ny, nx)``, float32, or a scalar zero if all deviations are 0.
        """
        if not (bool(std.any()) if isinstance(std, Tensor) else std > 0):
            return torch.zeros((), device=self.device)
        z = randn_tensor(
            self.shape, generator=self.generator, device=self.device, dtype=torch.float32
        )
        return z if not isinstance(std, Tensor) and std == 1 else per_sample(std, z) * z


def schedule(
    denoiser: Denoiser,
    operator: LinearOperator,
    y: Tensor,
    timesteps: Sequence[int],
    generator: Generators = None,
    latents: Tensor | None = None,
) -> tuple[list[Step], Noise]:
    """Validate a solver's arguments and return its steps and its source of noise.

    Args:
        denoiser: Diffusion prior.
        operator: Forward operator ``A`` from images ``(batch, ny, nx)`` to measurements.
        y: Measurement of the operator's ``range_shape``, complex64.
        timesteps: Training timesteps, strictly descending.
        generator: Random generator, or one per sample.
        latents: Initial noise ``(batch, 2, ny, nx)`` of unit variance; ``None`` draws it.

    Returns:
        The steps in order, and the noise.

    Raises:
        InputError: If arguments do not fit together.
    """
    shape = image_shape(operator, y)
    return image_schedule(denoiser, shape, timesteps, generator, latents, y.device)


def image_schedule(
    denoiser: Denoiser,
    shape: tuple[int, int, int],
    timesteps: Sequence[int],
    generator: Generators,
    latents: Tensor | None,
    device: torch.device,
) -> tuple[list[Step], Noise]:
    """Return steps and noise as :func:`schedule` does, for images without a measurement."""
    batch, ny, nx = shape
    check_timesteps(timesteps, len(denoiser.alphas_cumprod))
    multiple = denoiser.size_multiple
    if ny % multiple or nx % multiple:
        raise InputError(
            f"expected image sizes that are multiples of {multiple} for this network, got "
            f"{ny}x{nx}: pad the image and compose the operator with Crop"
        )
    if isinstance(generator, list) and len(generator) != batch:
        raise InputError(
            f"expected one generator or one for each of the {batch} samples, got {len(generator)}"
        )
    if latents is not None and tuple(latents.shape) != (batch, 2, ny, nx):
        raise InputError(
            f"expected latents of shape {(batch, 2, ny, nx)}, got {tuple(latents.shape)}"
        )
    alphas_bar = [float(denoiser.alphas_cumprod[t]) for t in timesteps]
    steps = [
        Step(index, *values)
        for index, values in enumerate(
            zip(
                timesteps,
                [*timesteps[1:], None],
                alphas_bar,
                [*alphas_bar[1:], 1.0],
                strict=True,
            )
        )
    ]
    return steps, Noise((batch, 2, ny, nx), device, generator, latents)


def denoise(denoiser: Denoiser, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Return ``x̂_0`` as a complex64 image ``(batch, ny, nx)`` and ``ε`` ``(batch, 2, ny, nx)``."""
    x0_hat, eps = denoiser(x_t, t)
    return channels_to_complex(x0_hat), eps


def on_step_end(callback: StepCallback | None, step: Step, x_t: Tensor, image: Tensor) -> Tensor:
    """Call the callback after a step, and return the ``x_t`` to continue with.

    Args:
        callback: Function of type :data:`StepCallback`, or ``None``.
        step: Step that has been taken.
        x_t: Next ``x_t``, ``(batch, 2, ny, nx)``.
        image: Current image, ``(batch, ny, nx)`` complex64.

    Returns:
        The callback's result, or ``x_t`` if that is ``None``.
    """
    replaced = None if callback is None else callback(step.index, step.t, x_t, image)
    return x_t if replaced is None else replaced


def check_timesteps(timesteps: Sequence[int], total: int) -> None:
    """Validate that timesteps are strictly descending and lie between 0 and ``total − 1``.

    Example:
        >>> from ctxrecon.solvers import check_timesteps
        >>> check_timesteps([600, 300], total=1000)
    """
    steps = [int(t) for t in timesteps]
    if not steps:
        raise InputError("expected at least one timestep, got none")
    if any(later >= earlier for earlier, later in pairwise(steps)):
        raise InputError(f"expected strictly descending timesteps, got {steps}")
    if steps[0] >= total or steps[-1] < 0:
        raise InputError(f"expected timesteps from 0 to {total - 1}, got {steps}")


def check_falling_noise(steps: Sequence[Step], solver: str) -> None:
    """Validate that ``ᾱ_t`` lies strictly between 0 and 1 and increases from step to step."""
    for step in steps:
        if not 0 < step.alpha_bar < 1:
            raise InputError(
                f"{solver} needs alphas_cumprod between 0 and 1, got {step.alpha_bar} at timestep "
                f"{step.t}: leave that timestep out, or use a scheduler without zero terminal SNR"
            )
    for step in steps:
        if step.alpha_bar_prev <= step.alpha_bar:
            raise InputError(
                f"{solver} needs noise that falls from timestep to timestep, got alphas_cumprod "
                f"{step.alpha_bar} at {step.t} and {step.alpha_bar_prev} at {step.next_t}: use "
                "another scheduler"
            )


def image_shape(operator: LinearOperator, y: Tensor) -> tuple[int, int, int]:
    """Return the image shape ``(batch, ny, nx)``, after checking that ``y`` fits ``A``."""
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
            "make them equal, or use an operator of batch 1"
        )
    if len(operator.domain_shape) != 3:
        raise InputError(
            "expected an operator on images (batch, ny, nx), got one on the domain "
            f"{tuple(operator.domain_shape)}"
        )
    _, ny, nx = operator.domain_shape
    return y.shape[0], ny, nx
