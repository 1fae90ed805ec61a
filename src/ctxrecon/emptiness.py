"""Slices that hold no signal: zeros, or nothing but the noise of air."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.fourier import ifft2c

_SIGNIFICANCE = 1e-2
"""Probability, over all tests together, that white noise is taken for signal."""
_LEAST_SAMPLES = 256
"""Positions of k-space below which nothing is said to be noise."""
_RADII = (0, 1, 1.5, 2.5, 4, 8)
_TILES = 8
_PLAIN = 100.0
"""Energy of the centre, over the mean of all samples, that needs no test: noise has e⁻¹⁰⁰."""


def find_empty(kspace: Tensor, mask: Tensor) -> Tensor:
    """Which slices hold no signal: all zeros, or white noise that no test can tell from it.

    Noise alone has the same expected energy everywhere. The coils are whitened by the covariance
    of all samples, after which the energy of ``n`` samples follows a gamma distribution of the
    shape ``n · coils``. A slice holds signal if that is exceeded anywhere: in a disc around the
    centre of k-space, in a tile of k-space, in a tile or a single pixel of the zero-filled image.
    So a slice is called empty only where its centre is no brighter than its edge: the weakest
    scan of which anything could be seen is far from that. Less than a hundredth of the slices of
    noise is taken for signal, which only costs the time of reconstructing them.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex, zero frequency at ``n // 2``.
        mask: ``(batch or 1, 1, ny, nx)`` bool.

    Returns:
        ``(batch,)`` bool on the CPU. With fewer than 256 samples, or 16 for each coil, only zeros
        are empty.
    """
    masks = mask.expand(len(kspace), -1, -1, -1)
    return torch.tensor(
        [_is_empty(y, sampled[0]) for y, sampled in zip(kspace, masks, strict=True)],
        dtype=torch.bool,
    )


def _is_empty(y: Tensor, sampled: Tensor) -> bool:
    """The same for one slice ``(coils, ny, nx)`` and its mask ``(ny, nx)``."""
    y = y / y.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    live = y[(y != 0).flatten(1).any(dim=1)]
    coils = len(live)
    if coils == 0:
        return True
    # Samples that are exactly zero were filled in.
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
        return False  # combinations of coils that hold no noise: not what a receiver measures
    white = torch.zeros(live.shape, dtype=torch.complex128, device=y.device)
    white[:, sampled] = (vectors / values.sqrt()).mH @ samples
    energy = white.abs().square().sum(dim=0)
    image = ifft2c(white).abs().square().sum(dim=0)
    # A pixel has the expected energy, and at most the freedom, of its share of the samples.
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
    """Energy and samples within each radius of the centre, ``(2, 1)`` each."""
    y, x = (torch.arange(n, device=energy.device) - n // 2 for n in energy.shape)
    squares = y[:, None] ** 2 + x**2
    inside = [squares <= radius**2 for radius in _RADII]
    return [torch.stack([energy[disc].sum(), sampled[disc].sum()])[:, None] for disc in inside]


def _tiles(energy: Tensor, samples: Tensor) -> Tensor:
    """Energy and samples of each tile of a grid, ``(2, tiles)``."""
    both = torch.stack([energy, samples])
    rows = [part.sum(dim=1) for part in both.tensor_split(_TILES, dim=1)]
    columns = torch.stack(rows, dim=1).tensor_split(_TILES, dim=2)
    return torch.stack([part.sum(dim=2) for part in columns], dim=2).flatten(1)


def _is_noise(test: Tensor, coils: int, limit: float) -> bool:
    """Whether no energy of the test, ``(2, places)``, is improbably high for its samples."""
    energy, samples = test[:, test[1] > 0]
    if len(energy) == 0:
        return True
    beyond = torch.special.gammaincc(samples * coils, energy)
    return bool(beyond.min() * len(energy) >= limit)
