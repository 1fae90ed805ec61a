"""Mono-exponential decays: simulation, validation and normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ctxrecon.errors import InputError

LONGEST_T2_STAR = 300.0
"""Longest T2* in ms; JoJoNet's supplement: "covers the practical T2* values in human brain"."""

_FAINTEST = 0.01
"""Pixels below this share of the slice's strongest decay have no meaningful T2*."""


def check_echo_times(echo_times: Sequence[float]) -> tuple[float, ...]:
    """Return the echo times as a tuple of floats.

    Raises:
        InputError: If there are fewer than two, or they are not positive and increasing.
    """
    times = tuple(float(time) for time in echo_times)
    rising = all(before < after for before, after in pairwise(times))
    if len(times) < 2 or not rising or times[0] <= 0 or not math.isfinite(times[-1]):
        raise InputError(f"expected two or more increasing positive echo times in ms, got {times}")
    return times


def check_echoes(images: Tensor, num_echoes: int | None = None) -> Tensor:
    """Return the magnitudes of a series of echoes, in float32 or the wider dtype of the images.

    Args:
        images: Complex or real images ``(batch, echoes, ny, nx)``.
        num_echoes: Required number of echoes; ``None`` for any.

    Raises:
        InputError: If the number of axes or echoes differs, the tensor is empty, or its dtype is
            an integer type.
    """
    if images.ndim != 4 or num_echoes not in {None, images.shape[1]} or images.numel() == 0:
        wanted = "echoes" if num_echoes is None else num_echoes
        raise InputError(
            f"expected images (batch, {wanted}, ny, nx), one per echo time, got shape "
            f"{tuple(images.shape)}"
        )
    if not (images.is_complex() or images.is_floating_point()):
        raise InputError(f"expected complex or floating-point images, got {images.dtype}")
    magnitudes = images.abs()
    return magnitudes.to(torch.promote_types(magnitudes.dtype, torch.float32))


def unit_decays(magnitudes: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each pixel's decay by its norm over the echoes, and mark the pixels with a decay.

    T2* does not depend on the norm. Where the norm is below 1 % of the slice's largest, as in air
    or bone, the decay and its gradient are set to 0; the gradient would grow as the inverse of the
    signal.

    Args:
        magnitudes: Real magnitudes ``(batch, echoes, ny, nx)``.

    Returns:
        Unit decays ``(batch, echoes, ny, nx)``, and the pixels that have one,
        ``(batch, 1, ny, nx)`` bool.
    """
    norm = torch.linalg.vector_norm(magnitudes, dim=1, keepdim=True)
    strongest = norm.detach().amax(dim=(-2, -1), keepdim=True)
    present = ~(norm.detach() <= _FAINTEST * strongest)  # NaN propagates to the result
    decays = magnitudes / torch.where(present, norm, torch.ones_like(norm))
    return torch.where(present, decays, torch.zeros_like(decays)), present


def simulate_decays(
    count: int,
    echo_times: Sequence[float],
    *,
    noise_std: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Simulate noisy mono-exponential decays with T2* uniform from 0 to 300 ms, as in JoJoNet.

    ``s_e = |exp(−TE_e/T2*) + n_e|``. The paper uses equal spacing, ``TE_e = e Δt``.

    Args:
        count: Number of decays.
        echo_times: Increasing echo times in ms.
        noise_std: Standard deviation of the complex noise ``n_e``, relative to the signal at TE 0.
        generator: Source of randomness.

    Returns:
        Decays ``(count, echoes)`` and their T2* ``(count,)`` in ms, float32.

    Raises:
        InputError: If ``count`` is below 1, the noise is negative, or the echo times are invalid.

    Example:
        >>> from ctxrecon.tasks import simulate_decays
        >>> decays, t2_star = simulate_decays(100, [5, 10, 15], noise_std=0.01)
        >>> decays.shape, t2_star.shape
        (torch.Size([100, 3]), torch.Size([100]))
    """
    times = torch.tensor(check_echo_times(echo_times))
    if count < 1 or not 0 <= noise_std < math.inf:
        raise InputError(f"expected `count` ≥ 1 and `noise_std` ≥ 0, got {count} and {noise_std}")
    # 1 − u lies in (0, 1]: a T2* of 0 would have no signal.
    t2_star = LONGEST_T2_STAR * (1 - torch.rand(count, generator=generator))
    decays = torch.exp(-times / t2_star[:, None])
    noise = torch.randn(decays.shape, dtype=torch.complex64, generator=generator)
    return (decays + noise_std * noise).abs(), t2_star
