"""Detection of masks that contradict the samples, and of masks that are not centered."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ctxrecon.errors import InputError
from ctxrecon.plausibility._report import Finding, selected, shared_or_selected

_FEW = 0.02
"""Fraction of single samples that may contradict a mask; a whole line is always reported."""

_CHANCE = 1e-3
"""Probability of a run of sampled lines below which it is the fully sampled center."""

_SOLID = 0.95
"""Fraction of their bounding box above which samples are not a sampling pattern."""

_FAINT, _FAINT_SHARE, _AROUND = 1e-4, 0.2, 7
"""Amplitude relative to the largest of 7 × 7 neighbors, and fraction of samples below it."""

_OTHER_MASK = (
    "leave the mask out to use the samples that are not zero, or give the mask of this scan"
)


def check_mask(nonzero: Tensor, energy: Tensor, sampled: Tensor) -> list[Finding]:
    """Detect samples that contradict a given mask.

    Args:
        nonzero: Whether k-space is non-zero in any coil, shape ``(batch, ny, nx)``, bool.
        energy: Energy summed over the coils, shape ``(batch, ny, nx)``, float32.
        sampled: Sampling mask of shape ``(batch or 1, ny, nx)``, bool.

    Raises:
        InputError: If the mask misses most of the energy, or would fit if it were transposed,
            shifted or inverted.
    """
    if bool((sampled == nonzero).all()):
        return []
    sampled = sampled.expand_as(nonzero)
    missing = sampled & ~nonzero
    area = sampled[0].numel()
    in_mask, in_kspace = _count(sampled), _count(nonzero)
    inside = _count(sampled & nonzero)
    empty = 1 - inside / in_mask
    left_out = 1 - inside / in_kspace
    kept = kept_energy(energy, sampled)
    # All-zero slices do not contradict any mask.
    contradicts = ((empty > _FEW) | (_empty_lines(sampled, missing) > 0)) & (in_kspace > 0)
    pattern = in_kspace / _bounding_box(nonzero) < _SOLID
    other = contradicts & (left_out > _FEW) & pattern

    for item in selected(other):
        remedy = _remedy(nonzero[item], sampled[item])
        if remedy is None and kept[item] >= 0.5:
            continue
        remedy = remedy or _OTHER_MASK
        if inside[item] == 0:
            raise InputError(
                f"k-space of slice {item} is zero everywhere inside the mask, but not outside: "
                f"{remedy}"
            )
        raise InputError(
            f"the mask does not fit k-space of slice {item}: {100 * empty[item]:.0f} % of its "
            f"samples are zero, and {100 * left_out[item]:.0f} % of the non-zero samples are "
            f"outside it: {remedy}"
        )
    findings = []
    if bool(other.any()):
        findings.append(
            Finding(
                f"the mask seems to be from another scan: k-space is zero at "
                f"{_percent(empty, other)} of its samples, which count as measured, and "
                f"{_percent(left_out, other)} of the non-zero samples are outside it and are "
                f"dropped: {_OTHER_MASK}",
                selected(other),
            )
        )
    if bool((zeros := contradicts & ~other).any()):
        acceleration = area / inside[zeros].mean()
        findings.append(
            Finding(
                f"k-space is exactly zero in all coils at {_percent(empty, zeros)} of the samples "
                "of the mask, which count as measured zeros; if they were not measured, "
                "leave the mask out or give (abs(kspace) > 0).any(axis=-3), which has an "
                f"acceleration of {acceleration:.3g}",
                selected(zeros),
            )
        )
    if bool((dropped := (left_out > 0) & ~other).any()):
        number = int(_count(nonzero & ~sampled)[dropped].sum())
        findings.append(
            Finding(
                f"k-space is not zero at {number} positions outside the mask "
                f"({_percent(left_out, dropped)} of its samples, {_percent(1 - kept, dropped)} of "
                "its energy); they are set to zero",
                selected(dropped),
            )
        )
    return findings


def check_faint(energy: Tensor, sampled: Tensor) -> list[Finding]:
    """Detect samples that nearly vanish relative to their neighbors: zero-filled and transformed.

    Unmeasured samples that were transformed to an image and back are rounding errors instead of
    zeros. Measured k-space does not decrease by such a factor within a few samples.

    Args:
        energy: Energy summed over the coils, shape ``(batch, ny, nx)``, float32.
        sampled: Sampling mask of shape ``(batch or 1, ny, nx)``, bool.
    """
    around = max_pool2d(energy[:, None], _AROUND, stride=1, padding=_AROUND // 2)[:, 0]
    faint = sampled & (energy > 0) & (energy < _FAINT**2 * around)
    share = _count(faint) / _count(sampled.expand_as(faint))
    faint = share > _FAINT_SHARE
    if not bool(faint.any()):
        return []
    return [
        Finding(
            f"{_percent(share, faint)} of the samples of the mask are smaller than {_FAINT:g} of "
            "their neighbors, like rounding errors of samples that were not measured, but they "
            "count as measured: give the mask, such as "
            "abs(kspace).max(axis=-3) > 1e-6 * abs(kspace).max()",
            selected(faint),
        )
    ]


def check_center(energy: Tensor, sampled: Tensor) -> list[Finding]:
    """Detect a mask with its center at index 0, or one that is True where nothing was measured.

    The indication is a run of samples around index 0, or of gaps around ``n // 2``, that is
    unlikely to occur by chance at the density of the mask.

    Args:
        energy: Energy summed over the coils, shape ``(batch, ny, nx)``, float32.
        sampled: Sampling mask of shape ``(batch or 1, ny, nx)``, bool.

    Raises:
        InputError: If the mask omits the center and most of the energy.
    """
    density = sampled.float().mean(dim=(1, 2)).clamp(1e-6, 1 - 1e-6)
    at_edge = torch.zeros(len(sampled), dtype=torch.bool, device=sampled.device)
    inverted = torch.zeros_like(at_edge)
    for plane in (sampled, sampled.mT):
        length, size = plane.shape[1:]
        lines = plane[:, [0, length // 2]]
        edge, middle = (_run(lines, at).amax(dim=1) for at in (0, size // 2))
        gap = _run(~lines[:, -1:], size // 2)[:, 0]
        at_edge |= (edge < size) & (edge > 2 * middle) & (density.log() * edge < math.log(_CHANCE))
        unlikely = (1 - density).log() * gap < math.log(_CHANCE)
        inverted |= (gap < size / 4) & (density > 0.5) & unlikely
    findings = []
    if bool(at_edge.any()):
        findings.append(
            Finding(
                "the fully sampled center of the mask is at index 0 of an axis, but the zero "
                "frequency is at n // 2, so the calibration lines cannot be found: "
                "use np.fft.fftshift(mask, axes=(-2, -1))",
                shared_or_selected(at_edge),
            )
        )
    if bool(inverted.any()):
        flagged = inverted & energy.flatten(1).any(dim=1)
        kept = float(torch.where(flagged, kept_energy(energy, sampled), 1.0).min())
        if kept < 0.5:
            raise InputError(
                f"the mask omits the center of k-space and {100 * (1 - kept):.0f} "
                "% of its energy, as if True meant not sampled: use ~mask"
            )
        findings.append(
            Finding(
                "the mask is False around the center of k-space and True at most other positions, "
                "as if True meant not sampled: use ~mask",
                shared_or_selected(inverted),
            )
        )
    return findings


def kept_energy(energy: Tensor, sampled: Tensor) -> Tensor:
    """Compute the fraction of k-space energy inside the mask, ``(batch,)``."""
    return (energy * sampled).sum(dim=(1, 2)) / energy.sum(dim=(1, 2)).clamp_min(1e-38)


def _run(lines: Tensor, at: int) -> Tensor:
    """Return the length of the circular run of True through index ``at``, ``(batch, lines)``."""
    ahead = lines.roll(-at, dims=-1).long()
    behind = ahead.roll(-1, dims=-1).flip(-1)
    length = ahead.cumprod(dim=-1).sum(dim=-1) + behind.cumprod(dim=-1).sum(dim=-1) - 1
    return torch.where(lines[..., at], length, 0).clamp_max(lines.shape[-1])


def _count(where: Tensor) -> Tensor:
    return where.sum(dim=(1, 2)).float()


def _percent(share: Tensor, of: Tensor) -> str:
    return f"{100 * float(share[of].mean()):.3g} %"


def _empty_lines(sampled: Tensor, missing: Tensor) -> Tensor:
    """Return the number of lines along either axis that the mask has and k-space lacks."""
    number = torch.zeros(len(sampled), device=sampled.device)
    for axis in (1, 2):
        measured = sampled.sum(dim=axis)
        number += ((missing.sum(dim=axis) == measured) & (measured > 1)).sum(dim=1)
    return number


def _bounding_box(where: Tensor) -> Tensor:
    """Return the area of the bounding box."""
    area = torch.ones(len(where), device=where.device)
    for axis in (1, 2):
        line = where.any(dim=axis).long()
        within = (line.cumsum(dim=1) > 0) & (line.flip(1).cumsum(dim=1).flip(1) > 0)
        area *= within.sum(dim=1)
    return area


def _remedy(nonzero: Tensor, sampled: Tensor) -> str | None:
    """Return the change that makes the mask of one slice fit, if any; both ``(ny, nx)`` bool."""
    axes = {"(-2, -1)": (0, 1), "-1": (1,), "-2": (0,)}
    changed = {
        f"np.fft.fftshift(mask, axes={name})": torch.fft.fftshift(sampled, dim=dim)
        for name, dim in axes.items()
    }
    changed["~mask"] = ~sampled
    if sampled.shape[0] == sampled.shape[1]:
        changed["np.swapaxes(mask, -1, -2)"] = sampled.T
    for remedy, mask in changed.items():
        if int((mask & nonzero).sum()) > _SOLID * int((mask | nonzero).sum()):
            return f"use {remedy}"
    return None
