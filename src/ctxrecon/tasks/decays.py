"""Mono-exponential decays: simulated ones, and those of the pixels of a series of echoes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ctxrecon.errors import InputError

LONGEST_T2_STAR = 300.0
"""In ms; the supplement of JoJoNet: "covers the practical T2* values in human brain"."""

_FAINTEST = 0.01
"""A pixel below this part of the slice's strongest decay has no T2* worth the name."""


def check_echo_times(echo_times: Sequence[float]) -> tuple[float, ...]:
    """The echo times as a tuple of floats.

    Raises:
        InputError: fewer than two, or not positive and rising.
    """
    times = tuple(float(time) for time in echo_times)
    rising = all(before < after for before, after in pairwise(times))
    if len(times) < 2 or not rising or times[0] <= 0 or not math.isfinite(times[-1]):
        raise InputError(f"expected two or more rising positive echo times in ms, got {times}")
    return times


def check_echoes(images: Tensor, num_echoes: int | None = None) -> Tensor:
    """Magnitudes of a series of echoes, real, at least float32.

    Args:
        images: ``(batch, echoes, ny, nx)``, complex or real.
        num_echoes: that there have to be; ``None`` for any.

    Raises:
        InputError: another number of axes or echoes, an empty tensor, or whole numbers.
    """
    if images.ndim != 4 or num_echoes not in {None, images.shape[1]} or images.numel() == 0:
        wanted = "echoes" if num_echoes is None else num_echoes
        raise InputError(
            f"expected images (batch, {wanted}, ny, nx), an image for each echo time, got shape "
            f"{tuple(images.shape)}"
        )
    if not (images.is_complex() or images.is_floating_point()):
        raise InputError(f"expected complex or floating-point images, got {images.dtype}")
    magnitudes = images.abs()
    return magnitudes.to(torch.promote_types(magnitudes.dtype, torch.float32))


def unit_decays(magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """Each pixel's decay divided by its norm over the echoes, and where there is a decay at all.

    T2* does not depend on the norm. Where it is below 1 % of the slice's largest, which is air or
    bone, the decay is 0, and so is its gradient, which would grow as one over the signal.

    Args:
        magnitudes: ``(batch, echoes, ny, nx)`` real.

    Returns:
        decays ``(batch, echoes, ny, nx)`` and the pixels that have one, ``(batch, 1, ny, nx)``
        bool.
    """
    norm = torch.linalg.vector_norm(magnitudes, dim=1, keepdim=True)
    strongest = norm.detach().amax(dim=(-2, -1), keepdim=True)
    present = ~(norm.detach() <= _FAINTEST * strongest)  # NaN is passed on, not hidden
    decays = magnitudes / torch.where(present, norm, torch.ones_like(norm))
    return torch.where(present, decays, torch.zeros_like(decays)), present


def simulate_decays(
    count: int,
    echo_times: Sequence[float],
    *,
    noise_std: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Noisy mono-exponential decays with T2* uniform from 0 to 300 ms, on which JoJoNet trains.

    ``s_e = |exp(−TE_e/T2*) + n_e|``; the paper's equal spacing is ``TE_e = e Δt``.

    Args:
        count: decays to draw.
        echo_times: in ms, rising.
        noise_std: standard deviation of the complex noise ``n_e``, relative to the signal at TE 0.
        generator: source of randomness.

    Returns:
        decays ``(count, echoes)`` and their T2* in ms, ``(count,)``, float32.

    Raises:
        InputError: no decays, a negative noise, or echo times that make no sense.
    """
    times = torch.tensor(check_echo_times(echo_times))
    if count < 1 or not 0 <= noise_std < math.inf:
        raise InputError(
            f"expected at least one decay and a noise_std of 0 or more, got {count} and {noise_std}"
        )
    # 1 − u lies in (0, 1]: no decay of T2* 0, which has no signal.
    t2_star = LONGEST_T2_STAR * (1 - torch.rand(count, generator=generator))
    decays = torch.exp(-times / t2_star[:, None])
    noise = torch.randn(decays.shape, dtype=torch.complex64, generator=generator)
    return (decays + noise_std * noise).abs(), t2_star
