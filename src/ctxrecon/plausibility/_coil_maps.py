"""Coil maps that are not normalized, or that do not explain the middle of k-space."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctxrecon.fourier import ifft2c
from ctxrecon.plausibility._report import Finding, selected

_SUM_OF_SQUARES = 2.0
_SENSITIVITY = 20.0
"""How far the median of ``Σ_c |S_c|²`` may be from 1, with several coils and with one."""

_REGION = 24
_LEAST_REGION = 6
_PART = 3
"""Most and fewest samples an axis of the middle of k-space, and the part of the axis it may be."""

_SAMPLED = 0.9

_EXPLAINED = 0.7
_FITS = 0.9
"""Shares of what is not noise: maps of the same scan explain 0.94 and more of it."""

_REST, _GAIN = 0.5, 0.02
"""What changed maps leave unexplained over what the maps as given do, and the share of energy by
which they are better: changes of right maps leave 0.95 of it and more, 0.6 where half the field of
view is wrapped around."""

_SIDE = 32
"""Pixels an axis, about, of the maps that are changed."""


def check_scale(coil_maps: Tensor) -> list[Finding]:
    """Maps whose ``Σ_c |S_c|²`` is not 1 where they are not zero.

    Args:
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64.
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
            f"the coil maps have a sum of squares over the coils of {factor**2:.3g} in place of 1, "
            f"so the image is {1 / factor:.3g} times as bright as it should be and uneven where "
            "the sum is: divide them by np.linalg.norm(coil_maps, axis=-3, keepdims=True) where "
            "that is not zero",
            selected(wrong),
        )
    ]


def check_fit(kspace: Tensor, sampled: Tensor, coil_maps: Tensor, energy: Tensor) -> list[Finding]:
    """Maps that no image can turn into the low-resolution coil images.

    Noise is what maps do not explain of their own scan. A sample has no more of it than there is
    energy on average, so the maps explain the rest at least.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex64.
        sampled: ``(batch or 1, ny, nx)`` bool.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64.
        energy: ``(batch, ny, nx)`` float32, over the coils, in any unit.
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
    if bool((share < 1 - _GAIN).any()):  # others cannot gain as much: no share is above 1
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
                f"the coil maps explain only {_percent(share[better])} of the energy in the middle "
                f"of k-space, and {_percent(changed[change][better])} once they are changed, so "
                f"they seem to follow another convention: {change} fits, or leave them out to have "
                "them estimated",
                selected(better),
            )
        )
    if bool(wrong.any()):
        findings.append(
            Finding(
                f"the coil maps explain only {_percent(share[wrong])} of the energy in "
                "the middle of k-space, so they seem to be of another scan or in another order: "
                "leave them out to have them estimated",
                selected(wrong),
            )
        )
    return findings


def explained_energy(images: Tensor, coil_maps: Tensor) -> Tensor:
    """``Σ_r |Σ_c S̄_c x_c|² / Σ_c |S_c|²`` over ``Σ_r Σ_c |x_c|²``, ``(batch,)``.

    One if the coil images ``x_c`` are one image times the maps; about one over the number of coils
    by chance.
    """
    combined = (coil_maps.conj() * images).sum(dim=1).abs().square()
    norm = coil_maps.abs().square().sum(dim=1)
    explained = torch.where(norm > 0, combined / norm.clamp_min(1e-38), 0).sum(dim=(1, 2))
    return explained / images.abs().square().sum(dim=(1, 2, 3)).clamp_min(1e-38)


def _region(sampled: Tensor) -> tuple[slice, slice] | None:
    """The fully sampled middle as an even number of samples an axis, or ``None``."""
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
    """The maps at the pixels of an image of lower resolution and the same field of view."""
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
    """:func:`explained_energy` by the name of each change that keeps the shape of the maps."""
    size = [n // max(n // _SIDE, 1) for n in coil_maps.shape[-2:]]
    small = _sample(coil_maps, size)
    return {
        name: explained_energy(images, _sample(changed, images.shape[-2:]))
        for name, change in _CHANGES.items()
        if (changed := change(small)).shape == small.shape
    }


def _percent(share: Tensor) -> str:
    return f"{100 * float(share.mean()):.0f} %"
