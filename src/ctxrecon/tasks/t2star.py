"""T2* maps of a series of gradient echoes, differentiable in the images.

A map's error can therefore drive masks and networks (JoJoNet, equation (5)). Both ways look at
magnitudes alone, are free of the images' scale, give ms clipped to [0, 300], and 0 without a
gradient where a pixel's signal is below 1 % of the slice's strongest.
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
"""Largest ``(TE_2 − TE_1)/T2*`` of the fit: the second echo is then lost beside the first."""


class T2StarMLP(ModelMixin, ConfigMixin):
    """T2* of a pixel from its echoes, ``f`` in JoJoNet's equation (5).

    "Three fully connected layers that have 5/32/1 nodes": as many nodes as echoes, 32 and 1, with
    rectifiers between. The paper does not say how the decay's unknown ``S_0`` is taken out; here
    each decay is divided by its norm over the echoes.

    Args:
        echo_times: in ms, rising; a network knows those that it was trained on.
        width: nodes of the middle layer.
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
        """The map, ``(batch, ny, nx)`` float32, in ms from 0 to 300.

        Args:
            images: ``(batch, echoes, ny, nx)``, complex or magnitudes, of any scale.

        Raises:
            InputError: images of another shape or number of echoes.
        """
        decays, present = unit_decays(check_echoes(images, self.num_echoes))
        found = self.of_decays(decays.to(self.dtype).movedim(1, -1)).float()
        return torch.where(present[:, 0], found.clamp(0, LONGEST_T2_STAR), torch.zeros_like(found))

    def of_decays(self, decays: Tensor) -> Tensor:
        """T2* in ms, not clipped, ``(…)``, of decays of unit norm ``(…, echoes)``."""
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
    """Train a :class:`T2StarMLP` on simulated decays, and freeze it.

    Mean squared error and T2* uniform from 0 to 300 ms, as in JoJoNet's supplement, which takes
    64 million decays and a million steps; here Adam, with a step that falls from 0.01 to 0 along a
    cosine, takes 16 million decays. The least squared error is that of the posterior mean: with
    noise, long T2* are drawn towards the middle of their range.

    Args:
        echo_times: in ms, rising.
        noise_std: of the decays, see :func:`~ctxrecon.tasks.simulate_decays`; the paper names
            none.
        num_steps: of the optimiser.
        batch_size: decays a step.
        generator: source of randomness, of the weights as well.

    Returns:
        The network, in evaluation mode, whose parameters need no gradient.

    Raises:
        InputError: no steps or decays, or echo times or a noise that make no sense.
    """
    if num_steps < 1:
        raise InputError(f"expected num_steps of 1 or more, got {num_steps}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        model = T2StarMLP(list(check_echo_times(echo_times)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    for _ in range(num_steps):
        signals, t2_star = simulate_decays(
            batch_size, echo_times, noise_std=noise_std, generator=generator
        )
        # One slice of one row, so that training and use see decays made in one way.
        decays, _ = unit_decays(signals.T[None, :, None])
        found = model.of_decays(decays[0, :, 0].T)
        loss = ((found - t2_star) / LONGEST_T2_STAR).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval().requires_grad_(False)


def fit_t2star(images: Tensor, echo_times: Sequence[float]) -> Tensor:
    """T2* by least squares, ``min_{S_0, T2*} Σ_e (|x_e| − S_0 exp(−TE_e/T2*))²``.

    ``S_0`` is eliminated (variable projection, Golub and Pereyra 1973), which leaves the rate
    ``R = 1/T2*``. It starts from the log-linear fit with weights ``|x_e|²``; a fixed number of
    Levenberg–Marquardt steps, with a damping for each pixel, finds the minimum without a gradient.
    A last step ``R − g(R, x)/g'(R)``, ``g`` the derivative of the objective, gives the map its
    gradient: that of the minimiser itself, by the implicit function theorem. The noise floor of
    magnitudes is not modelled, so a decay that sinks into the noise looks longer than it is.

    Args:
        images: ``(batch, echoes, ny, nx)``, complex or magnitudes, of any scale.
        echo_times: in ms, rising, one for each echo.

    Returns:
        The map ``(batch, ny, nx)``, float32 or float64 as the images, in ms, clipped to [0, 300]
        with no gradient outside. Times below a tenth of the first echo spacing are not told
        apart.

    Raises:
        InputError: images of another shape, or echo times that make no sense.
    """
    times = check_echo_times(echo_times)
    decays, present = unit_decays(check_echoes(images, len(times)))
    # From the first echo on, whose signal then is S_0, and nothing underflows.
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
    """Objective of the fit at a rate, ``S_0`` being the best for it; all ``(batch, 1, ny, nx)``.

    With ``d = exp(−R t)``, ``A_k = Σ t^k s d``, ``B_k = Σ t^k d²``: ``S_0 = A_0/B_0``, and the
    derivative of half the sum of squares is ``S_0 (A_1 − S_0 B_1)``.
    """

    amplitude: Tensor
    """``S_0``."""
    explained: Tensor
    """``A_0²/B_0``, what the fit takes off the sum of squares."""
    gradient: Tensor
    """``A_1 − S_0 B_1``."""
    gauss_newton: Tensor
    """``S_0 (B_2 − B_1²/B_0)``, the derivative of ``gradient`` where the decay fits."""
    slope: Tensor
    """The derivative of ``gradient``."""

    def curvature(self) -> Tensor:
        """``slope``, kept away from 0 where noise bends the objective."""
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
    """The rate ``(batch, 1, ny, nx)`` in 1/ms of decays ``(batch, echoes, ny, nx)``."""
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
