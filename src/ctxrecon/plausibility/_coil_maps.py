"""Detection of coil maps that are not normalized, or do not fit the center of k-space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctxrecon.fourier import ifft2c
from ctxrecon.plausibility._report import Finding, selected, shared_or_selected

_SUM_OF_SQUARES = 2.0
_SENSITIVITY = 20.0
"""Tolerated factor between the median of ``Σ_c |S_c|²`` and 1, for several coils and for one."""

_REGION = 24
_LEAST_REGION = 6
_PART = 3
"""Largest and smallest number of samples of the region per axis; it covers at most 1/3 of it."""

_SAMPLED = 0.9

_EXPLAINED = 0.7
_FITS = 0.9
"""Least fractions of the signal that fitting maps explain; maps of the same scan explain 0.94."""

_REST, _GAIN = 0.5, 0.02
"""Largest ratio of the energy that changed maps leave unexplained to that of the original maps, and
least gain in explained energy. Changes of correct maps have a ratio of at least 0.95, or 0.6 if
half the field of view is aliased."""

_SIDE = 32
"""Approximate size in pixels to which maps are reduced before they are changed."""


def check_scale(coil_maps: Tensor) -> list[Finding]:
    """Detect maps whose ``Σ_c |S_c|²`` is not 1 where they are non-zero.

    Args:
        coil_maps: Coil maps of shape ``(batch or 1, coils, ny, nx)``, complex64.
    """
    steps = [max(n // 64, 1) for n in coil_maps.shape[-2:]]
    some = torch.linalg.vector_norm(coil_maps[..., :: steps[0], :: steps[1]], dim=1).flatten(1)
    typical = torch.where(some > 0, some, torch.nan).nanmedian(dim=1).values
    most = math.sqrt(_SUM_OF_SQUARES if coil_maps.shape[1] > 1 else _SENSITIVITY)
    wrong = (typical < 1 / most) | (typical > most)
    if not bool(wrong.any()):
        return []
    factor = float(typical[wrong][0])
    return [
        Finding(
            f"the coil maps have a sum of squares over the coils of {factor**2:.3g} instead of 1, "
            f"which makes the image {1 / factor:.3g} times as bright as it should be, and uneven "
            "if the sum is: divide them by np.linalg.norm(coil_maps, axis=-3, keepdims=True) where "
            "that is not zero",
            shared_or_selected(wrong),
        )
    ]


def check_fit(kspace: Tensor, sampled: Tensor, coil_maps: Tensor, energy: Tensor) -> list[Finding]:
    """Detect maps that do not explain the low-resolution coil images.

    Maps of the same scan leave only noise unexplained. The noise of a sample does not exceed the
    average energy, so such maps explain at least the rest.

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex64.
        sampled: Sampling mask of shape ``(batch or 1, ny, nx)``, bool.
        coil_maps: Coil maps of shape ``(batch or 1, coils, ny, nx)``, complex64.
        energy: Energy summed over the coils in any unit, shape ``(batch, ny, nx)``, float32.
    """
    region = _region(sampled.all(dim=0))
    if kspace.shape[1] == 1 or region is None:
        return []
    images = ifft2c(kspace[:, :, region[0], region[1]])
    share = explained_energy(images, _sample(coil_maps, images.shape[-2:]))
    average = (energy * sampled).sum(dim=(1, 2)) / sampled.sum(dim=(1, 2))
    middle = energy[:, region[0], region[1]].mean(dim=(1, 2))
    noise = average / middle.clamp_min(1e-38)
    changed: dict[str, Tensor] = {}
    best = share
    if bool((share < 1 - _GAIN).any()):  # otherwise no change can gain enough
        changed = _explained_when_changed(images, coil_maps)
        best = torch.stack(list(changed.values())).amax(dim=0)
    better = (1 - best < _REST * (1 - share)) & (best > share + _GAIN)
    better &= best > _FITS * (1 - noise)
    wrong = (middle > 0) & (share < _EXPLAINED * (1 - noise)) & ~better
    findings = []
    if bool(better.any()):
        change = max(changed, key=lambda name: float(changed[name][better].mean()))
        findings.append(
            Finding(
                f"the coil maps explain only {_percent(share[better])} of the energy in the center "
                f"of k-space, but {_percent(changed[change][better])} after a change, so they seem "
                f"to follow another convention: use {change}, or leave them out to have "
                "them estimated",
                selected(better),
            )
        )
    if bool(wrong.any()):
        findings.append(
            Finding(
                f"the coil maps explain only {_percent(share[wrong])} of the energy in "
                "the center of k-space, so they seem to be from another scan or in another order: "
                "leave them out to have them estimated",
                selected(wrong),
            )
        )
    return findings


def explained_energy(images: Tensor, coil_maps: Tensor) -> Tensor:
    """Compute the explained fraction ``Σ_r |Σ_c S̄_c x_c|² / Σ_c |S_c|²`` of ``Σ_r Σ_c |x_c|²``.

    It is 1 if the coil images ``x_c`` are one image times the maps, and on average 1 / coils for
    unrelated maps.

    Returns:
        Fractions of shape ``(batch,)``.
    """
    combined = (coil_maps.conj() * images).sum(dim=1).abs().square()
    norm = coil_maps.abs().square().sum(dim=1)
    explained = torch.where(norm > 0, combined / norm.clamp_min(1e-38), 0).sum(dim=(1, 2))
    return explained / images.abs().square().sum(dim=(1, 2, 3)).clamp_min(1e-38)


def _region(sampled: Tensor) -> tuple[slice, slice] | None:
    """Return the fully sampled center with an even number of samples per axis, or ``None``."""
    found = []
    for axis, size in enumerate(sampled.shape):
        middle = sampled.select(1 - axis, sampled.shape[1 - axis] // 2)
        at = size // 2
        before, after = middle[:at].flip(0).cumprod(0).sum(), middle[at:].cumprod(0).sum()
        half = min(int(before), int(after), _REGION // 2, size // _PART // 2)
        if 2 * half < _LEAST_REGION:
            return None
        found.append(slice(at - half, at + half))
    rows, columns = found
    if float(sampled[rows, columns].float().mean()) < _SAMPLED:
        return None
    return rows, columns


def _sample(coil_maps: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sample the maps at the pixels of an image of lower resolution and the same FOV."""
    for axis, size in zip((-2, -1), sizes, strict=True):
        n = coil_maps.shape[axis]
        offset = torch.arange(size, device=coil_maps.device) - size // 2
        index = (n // 2 + (offset * n / size).round().long()).clamp(0, n - 1)
        coil_maps = coil_maps.index_select(axis, index)
    return coil_maps


_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "coil_maps.conj()": torch.conj,
    "np.fft.fftshift(coil_maps, axes=(-2, -1))": lambda s: torch.fft.fftshift(s, dim=(-2, -1)),
    "np.fft.fftshift(coil_maps, axes=-1)": lambda s: torch.fft.fftshift(s, dim=-1),
    "np.fft.fftshift(coil_maps, axes=-2)": lambda s: torch.fft.fftshift(s, dim=-2),
    "np.flip(coil_maps, (-2, -1))": lambda s: s.flip((-2, -1)),
    "np.flip(coil_maps, -1)": lambda s: s.flip(-1),
    "np.flip(coil_maps, -2)": lambda s: s.flip(-2),
    "np.flip(coil_maps, -3)": lambda s: s.flip(-3),
    "np.swapaxes(coil_maps, -1, -2)": lambda s: s.mT,
    "np.rot90(coil_maps, 1, (-2, -1))": lambda s: s.rot90(1, (-2, -1)),
    "np.rot90(coil_maps, -1, (-2, -1))": lambda s: s.rot90(-1, (-2, -1)),
}


def _explained_when_changed(images: Tensor, coil_maps: Tensor) -> dict[str, Tensor]:
    """Compute :func:`explained_energy` for each change that keeps the shape of the maps."""
    size = [n // max(n // _SIDE, 1) for n in coil_maps.shape[-2:]]
    small = _sample(coil_maps, size)
    return {
        name: explained_energy(images, _sample(changed, images.shape[-2:]))
        for name, change in _CHANGES.items()
        if (changed := change(small)).shape == small.shape
    }


def _percent(share: Tensor) -> str:
    return f"{100 * float(share.mean()):.0f} %"
