"""T2* maps from a series of gradient echoes, differentiable in the images.

The error of a map can therefore drive masks and networks (JoJoNet, equation (5)). Both estimators
use magnitudes only and do not depend on the images' scale. They return ms clipped to [0, 300], and
0 without a gradient where a pixel's signal is below 1 % of the slice's strongest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import InputError, check_counts
from ctxrecon.tasks.decays import (
    LONGEST_T2_STAR,
    check_echo_times,
    check_echoes,
    simulate_decays,
    unit_decays,
)

_NUM_STEPS = 10
_FASTEST = 10.0
"""Largest ``(TE_2 − TE_1)/T2*`` of the fit, at which the second echo is negligible."""


class T2StarMLP(ModelMixin, ConfigMixin):
    """Per-pixel T2* network, ``f`` in JoJoNet's equation (5).

    "Three fully connected layers that have 5/32/1 nodes": as many nodes as echoes, 32 and 1, with
    ReLUs between them. The paper does not specify how the unknown ``S_0`` of a decay is removed;
    here each decay is divided by its norm over the echoes.

    Args:
        echo_times: Increasing echo times in ms; the network is valid only for those it was trained
            on.
        width: Number of nodes of the middle layer.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import T2StarMLP
        >>> network = T2StarMLP(echo_times=[5, 10, 15, 20, 25])
        >>> network(torch.rand(1, 5, 8, 8)).shape
        torch.Size([1, 8, 8])
    """

    @register_to_config
    def __init__(self, echo_times: Sequence[float], width: int = 32) -> None:
        super().__init__()
        echoes = len(check_echo_times(echo_times))
        check_counts(width=width)
        self.num_echoes = echoes
        self.layers = nn.Sequential(
            nn.Linear(echoes, echoes),
            nn.ReLU(),
            nn.Linear(echoes, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the T2* map ``(batch, ny, nx)``, float32, in ms from 0 to 300.

        Args:
            images: Complex or magnitude images ``(batch, echoes, ny, nx)``, of arbitrary scale.

        Raises:
            InputError: If the images have another shape or number of echoes.
        """
        decays, present = unit_decays(check_echoes(images, self.num_echoes))
        found = self.of_decays(decays.to(self.dtype).movedim(1, -1)).float()
        return torch.where(present[:, 0], found.clamp(0, LONGEST_T2_STAR), torch.zeros_like(found))

    def of_decays(self, decays: Tensor) -> Tensor:
        """Return the unclipped T2* in ms, ``(…)``, of decays of unit norm ``(…, echoes)``."""
        found: Tensor = self.layers(decays)[..., 0]
        return LONGEST_T2_STAR * found


def train_t2star_mlp(
    echo_times: Sequence[float],
    *,
    noise_std: float = 0.005,
    num_steps: int = 4000,
    batch_size: int = 4096,
    generator: torch.Generator | None = None,
) -> T2StarMLP:
    """Train a :class:`T2StarMLP` on simulated decays and freeze it.

    The loss is the mean squared error with T2* uniform from 0 to 300 ms, as in JoJoNet's
    supplement, which uses 64 million decays and a million steps. Here Adam uses 16 million decays
    and a step size that falls from 0.01 to 0 along a cosine. The minimizer of the squared error is
    the posterior mean: with noise, long T2* are biased towards the middle of the range.

    Args:
        echo_times: Increasing echo times in ms.
        noise_std: Standard deviation of the noise of the decays, see
            :func:`~ctxrecon.tasks.simulate_decays`; the paper specifies none.
        num_steps: Number of optimizer steps.
        batch_size: Number of decays per step.
        generator: Source of randomness, including the initial weights.

    Returns:
        The network, in evaluation mode and with frozen parameters.

    Raises:
        InputError: If ``num_steps`` or ``batch_size`` is below 1, or the echo times or noise are
            invalid.
    """
    if num_steps < 1:
        raise InputError(f"expected `num_steps` of at least 1, got {num_steps}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        model = T2StarMLP(list(check_echo_times(echo_times)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        signals, t2_star = simulate_decays(
            batch_size, echo_times, noise_std=noise_std, generator=generator
        )
        # One slice of one row, so that training and inference prepare decays in the same way.
        decays, _ = unit_decays(signals.T[None, :, None])
        found = model.of_decays(decays[0, :, 0].T)
        loss = ((found - t2_star) / LONGEST_T2_STAR).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def fit_t2star(images: Tensor, echo_times: Sequence[float]) -> Tensor:
    """Fit T2* by least squares, ``min_{S_0, T2*} Σ_e (|x_e| − S_0 exp(−TE_e/T2*))²``.

    ``S_0`` is eliminated (variable projection, Golub and Pereyra 1973), which leaves the rate
    ``R = 1/T2*``. Starting from the log-linear fit with weights ``|x_e|²``, a fixed number of
    Levenberg–Marquardt steps, with a separate damping for each pixel, finds the minimum without a
    gradient. A final step ``R − g(R, x)/g'(R)``, with the derivative ``g`` of the objective, gives
    the map its gradient, which is the gradient of the minimizer by the implicit function theorem.
    The noise floor of magnitudes is not modeled, so that T2* is overestimated for a decay that
    sinks into the noise.

    Args:
        images: Complex or magnitude images ``(batch, echoes, ny, nx)``, of arbitrary scale.
        echo_times: Increasing echo times in ms, one per echo.

    Returns:
        T2* map ``(batch, ny, nx)`` in ms, float32 or float64 like the images, clipped to [0, 300]
        without a gradient outside. Times below a tenth of the first echo spacing cannot be
        distinguished.

    Raises:
        InputError: If the images have another shape, or the echo times are invalid.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import fit_t2star
        >>> echo_times = torch.tensor([5.0, 10.0, 15.0, 20.0])
        >>> images = torch.exp(-echo_times / 40).view(1, 4, 1, 1).expand(1, 4, 2, 2)
        >>> fit_t2star(images, echo_times.tolist()).round()
        tensor([[[40., 40.],
                 [40., 40.]]])
    """
    times = check_echo_times(echo_times)
    decays, present = unit_decays(check_echoes(images, len(times)))
    # Times relative to the first echo, whose signal is then S_0; this avoids underflow.
    t = decays.new_tensor([time - times[0] for time in times])[:, None, None]
    fastest = _FASTEST / (times[1] - times[0])
    with torch.no_grad():
        rate = _least_squares_rate(decays, t, fastest)
        curvature = _project(decays, t, rate).curvature()
        curvature = torch.where(present & (curvature > 0), curvature, torch.ones_like(curvature))
    rate = rate - _project(decays, t, rate).gradient / curvature
    found = 1 / rate.clamp(1 / LONGEST_T2_STAR, fastest)
    return torch.where(present, found, torch.zeros_like(found))[:, 0]


class _Projection(NamedTuple):
    """Fit objective at a given rate with the optimal ``S_0``; all ``(batch, 1, ny, nx)``.

    With ``d = exp(−R t)``, ``A_k = Σ t^k s d``, ``B_k = Σ t^k d²``: ``S_0 = A_0/B_0``, and the
    derivative of half the sum of squares is ``S_0 (A_1 − S_0 B_1)``.
    """

    amplitude: Tensor
    """``S_0``."""
    explained: Tensor
    """``A_0²/B_0``, the reduction of the sum of squares by the fit."""
    gradient: Tensor
    """``A_1 − S_0 B_1``."""
    gauss_newton: Tensor
    """``S_0 (B_2 − B_1²/B_0)``, the derivative of ``gradient`` for a perfect fit."""
    slope: Tensor
    """Derivative of ``gradient``."""

    def curvature(self) -> Tensor:
        """Return ``slope``, bounded away from 0 where noise makes the objective non-convex."""
        return torch.maximum(self.slope, 0.1 * self.gauss_newton)


def _project(decays: Tensor, t: Tensor, rate: Tensor) -> _Projection:
    model = torch.exp(-rate * t)
    a0, a1, a2 = ((decays * model * t**k).sum(dim=1, keepdim=True) for k in range(3))
    b0, b1, b2 = ((model * model * t**k).sum(dim=1, keepdim=True) for k in range(3))
    amplitude = a0 / b0
    return _Projection(
        amplitude=amplitude,
        explained=amplitude * a0,
        gradient=a1 - amplitude * b1,
        gauss_newton=amplitude * (b2 - b1 * b1 / b0),
        slope=2 * amplitude * b2 - a2 + b1 * (a1 - 2 * amplitude * b1) / b0,
    )


def _least_squares_rate(decays: Tensor, t: Tensor, fastest: float) -> Tensor:
    """Fit the rate ``(batch, 1, ny, nx)`` in 1/ms to decays ``(batch, echoes, ny, nx)``."""
    weights = decays.square().clamp_min(torch.finfo(decays.dtype).tiny)
    logarithm = weights.log() / 2
    total = weights.sum(dim=1, keepdim=True)
    centered = t - (weights * t).sum(dim=1, keepdim=True) / total
    spread = (weights * centered.square()).sum(dim=1, keepdim=True)
    rate = -(weights * centered * logarithm).sum(dim=1, keepdim=True) / spread.clamp_min(
        torch.finfo(decays.dtype).tiny
    )
    rate = rate.clamp(1 / LONGEST_T2_STAR, fastest)
    damping = torch.full_like(rate, 1e-2)
    here = _project(decays, t, rate)
    for _ in range(_NUM_STEPS):
        step = here.gradient / (here.gauss_newton * (1 + damping)).clamp_min(
            torch.finfo(decays.dtype).tiny
        )
        trial = (rate - step).clamp(1 / LONGEST_T2_STAR, fastest)
        there = _project(decays, t, trial)
        better = there.explained >= here.explained
        rate = torch.where(better, trial, rate)
        damping = torch.where(better, damping / 10, damping * 10)
        here = _Projection(*(torch.where(better, b, a) for a, b in zip(here, there, strict=True)))
    return rate
