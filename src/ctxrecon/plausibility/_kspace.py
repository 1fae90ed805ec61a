"""Distribution of the energy of k-space, and correlations of its neighboring samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ctxrecon.plausibility._report import Finding, selected

# The thresholds separate about 2000 correct scans from at least 200 incorrect ones of each kind:
# phantoms and real images, 1 to 32 coils, 64 to 320 pixels, all masks up to x12, partial Fourier,
# objects up to 30 % of the field of view off center, noise up to 20 %.

_PEAK = 2.5
_BAND = 1.7
"""Energy around index 0 over the mean: in a square (up to 2.0 if correct), in a band (0.9)."""

_BRIGHTER = 2.5
"""Energy around index 0 over the energy around ``n // 2``."""

_SIGNAL = 3.0
"""Energy around the peak over the mean above which there is signal (noise reaches 2.4)."""

_HALVES = (0.8, 0.7)
"""Contrast between image border and middle: along one axis, and summed over both axes."""

_BORDER = (0.57, 0.8)
"""Contrast along one axis, and position of the energy centroid from the middle (0) to the border
(1). Correct scans reach a contrast of 0.47 with the centroid at the border, else 0.64."""

_SMOOTH = (0.25, 0.35)
_IMAGE_PEAK = (12.0, 4.0)
"""Thresholds for images: least correlation over 1/16 of the axes (smaller and larger one), and
greatest energy in the middle over the mean (in a square and in a band)."""

_POINT = 0.3
"""Coefficient of variation of the sample energy; a point source never exceeds it."""

_HYBRID = 0.7
"""Correlation along one axis that only images reach."""

_FLAT = (0.25, 4.0)
"""Thresholds for spokes: variation between lines, and brightness of the middle of each line."""

_LAGS = 4
"""Number of Fourier coefficients of the squared image."""

_CENTER = 2
"""Half width of the box around the brightest position that must be fully sampled to detect split
images: gaps spread the image over the field of view, and few pairs correlate by chance."""

_PLACES = ((False, False), (True, False), (False, True), (True, True))
"""Whether the box is at index 0 instead of ``n // 2``, along y and along x."""


@dataclass(frozen=True)
class Energy:
    """Quantities shared by the checks of k-space and mask.

    Attributes:
        nonzero: Whether any coil is non-zero, shape ``(batch, ny, nx)``, bool.
        energy: Energy ``Σ_c |y_c|²``, scaled to a maximum of 1, shape ``(batch, ny, nx)``,
            float32.
    """

    nonzero: Tensor
    energy: Tensor

    @classmethod
    def of(cls, kspace: Tensor) -> Energy:
        energy = sum_of_squares(kspace)
        largest = energy.amax(dim=(1, 2), keepdim=True)
        if bool(((largest < _TINY) | (largest > 1 / _TINY)).any()):  # k-space of unusual scale
            scale = torch.view_as_real(kspace).abs().amax(dim=(1, 2, 3, 4)).clamp_min(_TINY)
            energy = sum_of_squares(kspace / scale[:, None, None, None])
            largest = energy.amax(dim=(1, 2), keepdim=True)
        return cls((kspace != 0).any(dim=1), energy / largest.clamp_min(_TINY))


_TINY = 1e-30


def sum_of_squares(kspace: Tensor) -> Tensor:
    """Compute ``Σ_c |y_c|²`` coil by coil, which is faster than a norm over an inner axis."""
    batch, coils, ny, nx = kspace.shape
    parts = torch.view_as_real(kspace).reshape(batch, coils, ny, 2 * nx)
    total = parts[:, 0].square()
    for coil in range(1, coils):
        total.addcmul_(parts[:, coil], parts[:, coil])
    return total.unflatten(-1, (nx, 2)).sum(dim=-1)


@dataclass(frozen=True)
class Features:
    """Features that distinguish the conventions.

    Attributes:
        peak: Mean energy around each position over the mean of all samples, ``(places, batch)``.
        covered: Whether there are samples around ``(ny // 2, nx // 2)``, ``(batch,)`` bool.
        band: Mean energy of the lines around ``n // 2`` and index 0 over the mean of all samples,
            ``(axes, 2, batch)``.
        halves: Contrast from -1 for an image that is bright in the middle to 1 for one that is
            bright at both borders, ``(axes, batch)``; 0 without a fully sampled center.
        place: Position of the image's energy centroid, on a circular axis, from 0 for the middle
            to 1 for the border, ``(axes, batch)``.
        smooth: Correlation of samples that are 1/16 of the axis apart, ``(axes, batch)``.
        near: Correlation of neighboring samples, ``(axes, batch)``.
        complete: Whether nearly all lines of the axis have samples, ``(axes, batch)`` bool.
        flat: Coefficient of variation of the lines' energy, ``(axes, batch)``.
        varied: Coefficient of variation of the samples' energy, ``(batch,)``.
        real: Whether there is no imaginary part, ``(batch,)`` bool.
    """

    peak: Tensor
    covered: Tensor
    band: Tensor
    halves: Tensor
    place: Tensor
    smooth: Tensor
    near: Tensor
    complete: Tensor
    flat: Tensor
    varied: Tensor
    real: Tensor

    @property
    def signal(self) -> Tensor:
        return self.peak.amax(dim=0) > _SIGNAL


def classify(features: Features, size: tuple[int, int]) -> list[Finding]:
    """Return what each slice looks like; only the most significant finding of each slice."""
    peak, band = features.peak, features.band
    brightest = peak.argmax(dim=0)
    is_peak = (peak > _PEAK) & ((peak > _BRIGHTER * peak[0]) & (features.covered | (peak > 8)))
    at_edge = torch.tensor(_PLACES, device=peak.device)[brightest].T
    uncentered = at_edge & is_peak.gather(0, brightest[None])
    uncentered |= (band[:, 1] > _BAND) & (band[:, 1] > _BRIGHTER * band[:, 0])

    smaller, larger = features.smooth.aminmax(dim=0)
    varied = features.varied > _POINT
    image = (smaller > _SMOOTH[0]) & (larger > _SMOOTH[1])
    image &= (peak.amax(dim=0) < _IMAGE_PEAK[0]) & (band[:, 0].amax(dim=0) < _IMAGE_PEAK[1])
    image &= varied & (features.near >= features.smooth).all(dim=0)
    lines = torch.zeros_like(uncentered)
    for axis in (0, 1):
        if size[axis] >= 16:
            lines[axis] = (features.flat[axis] < _FLAT[0]) & (band[1 - axis].amax(dim=0) > _FLAT[1])
    hybrid = (features.smooth > _HYBRID) & (features.near >= features.smooth)
    hybrid &= features.complete & varied  # undersampling happens before any transform
    halves = (features.halves > _HALVES[0]) | (
        (features.halves > _BORDER[0]) & (features.place > _BORDER[1])
    )
    both = (features.halves > 0).all(dim=0) & (features.halves.sum(dim=0) > _HALVES[1])
    halves = (halves | both) & features.signal

    rest = torch.ones_like(image)
    findings = []

    def take(where: Tensor, message: str) -> None:
        nonlocal rest
        if bool((where & rest).any()):
            findings.append(Finding(message, selected(where & rest)))
        rest = rest & ~where

    take(features.real & varied, _REAL)
    take(image & ~lines.any(dim=0), _IMAGE)
    for axis in (0, 1):
        take(lines[axis], _LINES.format(axis="yx"[axis]))
    for pattern in (uncentered, halves):
        for where in ((True, True), (False, True), (True, False)):
            chosen = (pattern[0] == where[0]) & (pattern[1] == where[1])
            if pattern is halves:
                take(chosen, _half_shift(where, size))
                continue
            take(chosen & halves.any(dim=0), _not_centered(where, phase=True))
            take(chosen, _not_centered(where, phase=False))
    for axis in (0, 1):
        take(hybrid[axis], _HYBRID_SPACE.format(axis="yx"[axis], index=axis - 2))
    return findings


_AXES = {(True, True): "both axes", (True, False): "y", (False, True): "x"}
_INDICES = {(True, True): "(-2, -1)", (True, False): "-2", (False, True): "-1"}

_FORWARD = (
    "np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, axes=(-2, -1)), norm='ortho'), axes=(-2, -1))"
)

_REAL = (
    "k-space has no imaginary part, like a magnitude or the real part alone, so its image is "
    "symmetric about the center and wrong: give the complex samples"
)
_IMAGE = (
    "k-space looks like images, smooth and without a central peak, so the result would be their "
    f"transform: give {_FORWARD} of coil images x"
)
_LINES = (
    "all lines along {axis} have the same energy, as if they were spokes of a radial scan or "
    "interleaves of a spiral: only Cartesian k-space is supported here, so grid it first, or "
    "reconstruct it with ctxrecon.operators.NonCartesianSense"
)
_HYBRID_SPACE = (
    "k-space is smooth along {axis} like an image, as if it had already been transformed along "
    "that axis: give np.fft.fftshift(np.fft.fft(np.fft.ifftshift(kspace, axes={index}), "
    "axis={index}, norm='ortho'), axes={index})"
)


def _not_centered(where: tuple[bool, bool], phase: bool) -> str:
    origin = (
        f"; if it was computed from images x, give {_FORWARD}, because its images are shifted by "
        "half the field of view, too"
        if phase
        else ""
    )
    return (
        f"k-space does not look centered along {_AXES[where]}: it is brightest at index 0, but the "
        "zero frequency is expected at n // 2; otherwise images are modulated and coil maps wrong: "
        f"use np.fft.fftshift(kspace, axes={_INDICES[where]}), and the same for the mask" + origin
    )


def _half_shift(where: tuple[bool, bool], size: tuple[int, int]) -> str:
    signs = {
        (True, True): f"np.add.outer(np.arange({size[0]}), np.arange({size[1]}))",
        (True, False): f"np.arange({size[0]})[:, None]",
        (False, True): f"np.arange({size[1]})",
    }
    return (
        f"the image is split in halves at opposite borders along {_AXES[where]}, as if k-space "
        "lacked the alternating sign of a centered image (np.fft.ifftshift before the transform): "
        f"use kspace * (-1.0) ** {signs[where]}, or {_FORWARD} of images x"
    )


def describe(kspace: Tensor, sampled: Tensor, energy: Tensor) -> Features:
    """Compute the features that :func:`classify` evaluates.

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex64.
        sampled: Samples to evaluate, shape ``(batch, ny, nx)``, bool.
        energy: Energy summed over the coils in any unit, shape ``(batch, ny, nx)``, float32.
    """
    sizes = kspace.shape[-2:]
    weight = sampled.to(energy.dtype)
    counted = energy * weight
    count = weight.sum(dim=(1, 2))
    mean = counted.sum(dim=(1, 2)) / count
    peak, covered, full = [], [], []
    for place in _PLACES:
        box = [_around(n, edge, max(n // 32, 1)) for n, edge in zip(sizes, place, strict=True)]
        samples = _take(weight, box).sum(dim=(1, 2))
        peak.append(_take(counted, box).sum(dim=(1, 2)) / samples.clamp_min(1) / mean)
        covered.append(samples > 0)
        center = [_around(n, edge, _CENTER) for n, edge in zip(sizes, place, strict=True)]
        full.append(_take(sampled, center).flatten(1).all(dim=1))
    band, complete, flat = [], [], []
    for axis, n in enumerate(sizes):
        line = counted.sum(dim=2 - axis)
        number = weight.sum(dim=2 - axis)
        bands = []
        for edge in (False, True):
            near = _around(n, edge, max(n // 32, 1))
            bands.append(line[:, near].sum(1) / number[:, near].sum(1).clamp_min(1) / mean)
        band.append(torch.stack(bands))
        profile = line / number.clamp_min(1)
        lines = (number > 0).sum(dim=1)
        complete.append(lines > 0.9 * n)
        average = profile.sum(dim=1) / lines
        spread = ((profile - average[:, None]).square() * (number > 0)).sum(dim=1) / lines
        flat.append(spread.sqrt() / average)
    spread = ((energy - mean[:, None, None]).square() * weight).sum(dim=(1, 2)) / count
    places = torch.stack(peak)
    brightest = places.argmax(dim=0)
    halves, place = torch.zeros(2, 2, len(kspace), device=kspace.device)
    for index, edges in enumerate(_PLACES):
        items = ((brightest == index) & full[index]).nonzero()[:, 0]
        if len(items):
            box = [_around(n, edge, 16) for n, edge in zip(sizes, edges, strict=True)]
            halves[:, items], place[:, items] = _split(kspace, sampled, items, box)
    everything = torch.arange(len(kspace), device=kspace.device)
    wide = [_around(n, False, max(n // 8, 8)) for n in sizes]
    lags = (max(sizes[0] // 16, 2), max(sizes[1] // 16, 2))
    smooth, near = _correlation(kspace, sampled, everything, wide, lags, (1, 1)).abs()
    return Features(
        peak=places,
        covered=covered[0],
        band=torch.stack(band),
        halves=halves,
        place=place,
        smooth=smooth,
        near=near,
        complete=torch.stack(complete),
        flat=torch.stack(flat),
        varied=spread.sqrt() / mean,
        real=_is_real(kspace, wide),
    )


def _is_real(kspace: Tensor, box: list[Tensor]) -> Tensor:
    real = ~(_take(kspace, box).imag != 0).flatten(1).any(dim=1)
    return real & ~(kspace.imag != 0).flatten(1).any(dim=1) if bool(real.any()) else real


def _around(size: int, at_edge: bool, width: int) -> Tensor:
    """Return indices within ``width`` of index 0 or ``size // 2``, circular, without repetition."""
    if 2 * width + 1 >= size:
        return (torch.arange(size) + (size // 2 if at_edge else 0)) % size
    return (torch.arange(-width, width + 1) + (0 if at_edge else size // 2)) % size


def _take(values: Tensor, box: list[Tensor]) -> Tensor:
    """Return the samples of a box, without a copy unless it wraps around the edge."""
    for axis, index in zip((-2, -1), box, strict=True):
        first, last = int(index[0]), int(index[-1])
        if last - first == len(index) - 1:
            values = values.narrow(axis, first, len(index))
        else:
            values = values.index_select(axis, index.to(values.device))
    return values


def _split(
    kspace: Tensor, sampled: Tensor, items: Tensor, box: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Compare the image's energy at the two borders of each axis with its middle.

    The correlation over ``l`` samples is the ``l``-th Fourier coefficient of the squared image.
    Four of them, with a Bartlett window, approximate its projection at the border and in the
    middle; the phase of the first is the position of the projection's centroid.

    Returns:
        ``halves`` and ``place`` of :class:`Features`, both of shape ``(axes, items)``.
    """
    border, middle = torch.ones(2, 2, len(items), device=kspace.device)
    lags = [(lag, lag) for lag in range(1, _LAGS + 1)]
    found = _correlation(kspace, sampled, items, box, *lags)
    for lag, correlation in enumerate(found, start=1):
        part = 2 * (1 - lag / (_LAGS + 1)) * correlation.real
        border, middle = border + (-1) ** lag * part, middle + part
    halves = (border - middle) / (border + middle).clamp_min(0.1)
    return halves, found[0].angle().abs() / math.pi


def _correlation(
    kspace: Tensor, sampled: Tensor, items: Tensor, box: list[Tensor], *lags: tuple[int, int]
) -> Tensor:
    """Compute ``Σ k̄_i k_{i+lag}`` over the energy of the sampled pairs, ``(lags, axes, items)``."""
    crop = _take(kspace.index_select(0, items) if len(items) < len(kspace) else kspace, box)
    crop = crop * _take(sampled.index_select(0, items), box)[:, None]
    energy = crop.abs().square()
    measured = crop != 0
    found = crop.new_zeros(len(lags), 2, len(items))
    for index, pair in enumerate(lags):
        for axis, lag in ((-2, pair[0]), (-1, pair[1])):
            pairs = crop.shape[axis] - lag
            if pairs < 1:
                continue
            first, second = (0, pairs), (lag, pairs)
            both = measured.narrow(axis, *first) & measured.narrow(axis, *second)
            total = (energy.narrow(axis, *first) + energy.narrow(axis, *second)) * both
            product = crop.narrow(axis, *first).conj() * crop.narrow(axis, *second)
            found[index, axis] = product.flatten(1).sum(dim=1) / (
                total.flatten(1).sum(dim=1) / 2
            ).clamp_min(1e-38)
    return found
