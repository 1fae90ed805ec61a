"""Detection of slices without signal: zeros, or only noise from air."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.fourier import ifft2c

_SIGNIFICANCE = 1e-2
"""Probability, over all tests together, that white noise is classified as signal."""
_LEAST_SAMPLES = 256
"""Number of k-space positions below which no slice is classified as noise."""
_RADII = (0, 1, 1.5, 2.5, 4, 8)
_TILES = 8
_PLAIN = 100.0
"""Ratio of the center's energy to the mean above which no test is needed (for noise, e⁻¹⁰⁰)."""


def find_empty(kspace: Tensor, mask: Tensor) -> Tensor:
    """Find slices without signal: all zeros, or indistinguishable from white noise.

    Noise alone has the same expected energy everywhere. The coils are whitened with the covariance
    of all samples, after which the energy of ``n`` samples follows a gamma distribution of shape
    ``n · coils``. A slice contains signal if that energy is improbably high anywhere: in a disc
    around the center of k-space, in a tile of k-space, or in a tile or a single pixel of the
    zero-filled image. A slice is thus empty only if its center is no brighter than its edge, which
    even the weakest useful scan is far from. Less than a hundredth of the noise slices are
    classified as signal, which merely costs the time to reconstruct them.

    Args:
        kspace: Complex k-space of shape ``(batch, coils, ny, nx)``, with zero frequency at
            ``n // 2``.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool.

    Returns:
        Flags of shape ``(batch,)``, bool, on the CPU. With fewer than 256 samples, or fewer than
        16 per coil, only all-zero slices are empty.

    Example:
        >>> import torch
        >>> from ctxrecon.emptiness import find_empty
        >>> generator = torch.Generator().manual_seed(0)
        >>> kspace = torch.randn(2, 4, 32, 32, dtype=torch.complex64, generator=generator)
        >>> kspace[1, :, 16, 16] += 100
        >>> find_empty(kspace, torch.ones(1, 1, 32, 32, dtype=torch.bool))
        tensor([ True, False])
    """
    masks = mask.expand(len(kspace), -1, -1, -1)
    return torch.tensor(
        [_is_empty(y, sampled[0]) for y, sampled in zip(kspace, masks, strict=True)],
        dtype=torch.bool,
    )


def _is_empty(y: Tensor, sampled: Tensor) -> bool:
    """Return whether one slice ``(coils, ny, nx)`` with its mask ``(ny, nx)`` is empty."""
    y = y / y.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    live = y[(y != 0).flatten(1).any(dim=1)]
    coils = len(live)
    if coils == 0:
        return True
    # Samples that are exactly zero are zero filling, not measurements.
    sampled = sampled & (live != 0).any(dim=0)
    count = int(sampled.sum())
    if count < max(_LEAST_SAMPLES, 16 * coils):
        return False
    ny, nx = sampled.shape
    power = live.abs().square().sum(dim=0)
    if float(power[ny // 2, nx // 2]) > _PLAIN * float(power[sampled].mean()):
        return False
    samples = live[:, sampled].to(torch.complex128)
    values, vectors = torch.linalg.eigh(samples @ samples.mH / count)
    if not float(values[0]) > 1e-12 * float(values[-1]):
        return False  # singular covariance, which receiver noise does not have
    white = torch.zeros(live.shape, dtype=torch.complex128, device=y.device)
    white[:, sampled] = (vectors / values.sqrt()).mH @ samples
    energy = white.abs().square().sum(dim=0)
    image = ifft2c(white).abs().square().sum(dim=0)
    # A pixel has the expected energy, and at most the degrees of freedom, of its share of samples.
    shares = torch.full_like(image, count / sampled.numel())
    tests = [
        *_discs(energy, sampled),
        _tiles(energy, sampled.double()),
        _tiles(image, shares),
        torch.stack([image, shares]).flatten(1),
    ]
    limit = _SIGNIFICANCE / len(tests)
    return all(_is_noise(test, coils, limit) for test in tests)


def _discs(energy: Tensor, sampled: Tensor) -> list[Tensor]:
    """Return energy and number of samples within each radius of the center, ``(2, 1)`` each."""
    y, x = (torch.arange(n, device=energy.device) - n // 2 for n in energy.shape)
    squares = y[:, None] ** 2 + x**2
    inside = [squares <= radius**2 for radius in _RADII]
    return [torch.stack([energy[disc].sum(), sampled[disc].sum()])[:, None] for disc in inside]


def _tiles(energy: Tensor, samples: Tensor) -> Tensor:
    """Return energy and number of samples of each tile of a grid, ``(2, tiles)``."""
    both = torch.stack([energy, samples])
    rows = [part.sum(dim=1) for part in both.tensor_split(_TILES, dim=1)]
    columns = torch.stack(rows, dim=1).tensor_split(_TILES, dim=2)
    return torch.stack([part.sum(dim=2) for part in columns], dim=2).flatten(1)


def _is_noise(test: Tensor, coils: int, limit: float) -> bool:
    """Return whether no energy of a test ``(2, places)`` is improbably high for its samples."""
    energy, samples = test[:, test[1] > 0]
    if len(energy) == 0:
        return True
    beyond = torch.special.gammaincc(samples * coils, energy)
    return bool(beyond.min() * len(energy) >= limit)
