"""The slices of a lab's own scans: which are learned from, which are held out, and what is hidden.

A slice is learned from whole where it is fully sampled, and by samples that are hidden from a
reconstruction where it is not. What is held out is never learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctxrecon.coils import find_calibration_region
from ctxrecon.errors import InputError
from ctxrecon.masks import uniform1d
from ctxrecon.measurement import Measurement
from ctxrecon.metadata import parse_prompt
from ctxrecon.operators import SoftSense, sense_operator
from ctxrecon.scan import FULLY_SAMPLED
from ctxrecon.training.slices import MIRRORED

HELD_OUT_SHARE = 0.2
"""Of the scans, or of the slices of a single scan."""
MOST_HELD_OUT = 6
"""Slices that the priors are compared on."""
_HIDDEN_SHARE = 0.25
"""Of the samples outside the calibration region, of a slice that is undersampled."""
_CENTER = (24, 24)
"""Largest sides of the calibration region, which is never hidden."""
_ACCELERATIONS = (4.0, 8.0)
"""Of the masks of fully sampled slices that are held out, by turns."""


@dataclass(frozen=True)
class Slice:
    """One slice of a scan.

    Attributes:
        measurement: of this slice alone, with normalized coil maps.
        prompt: what is known of it, "" for nothing.
        scan: number of its scan.
        whole: whether enough is sampled to take its image for the truth.
    """

    measurement: Measurement
    prompt: str
    scan: int
    whole: bool

    @property
    def mask(self) -> Tensor:
        """``(1, 1, ny, nx)`` bool."""
        assert self.measurement.mask is not None
        return self.measurement.mask

    @property
    def mirrored(self) -> bool:
        """Whether the anatomy that the prompt names looks the same from left and right."""
        return parse_prompt(self.prompt)[0].anatomy in MIRRORED

    def only(self, mask: Tensor) -> Slice:
        """The slice as if these of its samples alone had been measured."""
        return replace(self, measurement=restricted(self.measurement, mask), whole=False)


@dataclass(frozen=True)
class Trial:
    """A slice that is held out: what is reconstructed of it, and what is to be predicted.

    Attributes:
        slice: with the samples that are reconstructed.
        kspace: ``(1, coils, ny, nx)``.
        hidden: ``(1, 1, ny, nx)`` bool, samples to be predicted.
    """

    slice: Slice
    kspace: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Division:
    """What is learned from, and what is held out.

    Attributes:
        training: slices to learn from.
        trials: what priors are compared on.
        held_out: in words, such as "2 of 5 scans".
    """

    training: list[Slice]
    trials: list[Trial]
    held_out: str


def restricted(measurement: Measurement, mask: Tensor) -> Measurement:
    """The measurement of these samples alone, ``(1, 1, ny, nx)`` bool."""
    assert measurement.mask is not None
    mask = mask.to(measurement.y.device) & measurement.mask
    operator = sense_operator(mask, measurement.coil_maps)
    return replace(measurement, y=measurement.y * mask, mask=mask, operator=operator)


def slices_of(
    measurements: Sequence[Measurement], prompts: Sequence[Sequence[str] | str | None]
) -> list[Slice]:
    """All slices of all scans that hold signal.

    Args:
        measurements: one for each scan.
        prompts: of each scan: one for all slices, one for each, or ``None``.

    Raises:
        InputError: scans that are not on a Cartesian grid or have two sets of coil maps, prompts
            that do not fit them, or nothing but empty slices.
    """
    if len(prompts) != len(measurements):
        raise InputError(
            f"expected prompts of each of the {len(measurements)} scans, got {len(prompts)}"
        )
    found = []
    for number, (measurement, given) in enumerate(zip(measurements, prompts, strict=True)):
        if measurement.mask is None:
            raise InputError(
                f"expected Cartesian scans to adapt to, and scan {number} is along a trajectory or "
                "of another operator: leave it out"
            )
        if isinstance(measurement.operator, SoftSense):
            raise InputError(
                f"expected one set of coil maps, and scan {number} has several: give coil_maps, "
                "such as those of estimate_coil_maps(kspace, mask, num_maps=1)"
            )
        words = (
            [given or ""] * len(measurement) if given is None or isinstance(given, str) else given
        )
        if len(words) != len(measurement):
            raise InputError(
                f"expected a prompt for each of the {len(measurement)} slices of scan {number}, "
                f"got {len(words)}"
            )
        normalized, _ = measurement.normalized()
        for index in normalized.filled.tolist():
            one = normalized[index]
            assert one.mask is not None
            whole = float(one.mask.float().mean()) >= FULLY_SAMPLED
            found.append(Slice(one, words[index], number, whole))
    if not found:
        raise InputError("expected scans with signal, and every slice is empty: look at the files")
    return found


def divide(slices: Sequence[Slice], generator: torch.Generator) -> Division:
    """Hold out scans, slices of a single scan, or samples of a single slice.

    Raises:
        InputError: a single slice with too few samples to hold out some.
    """
    scans = sorted({item.scan for item in slices})
    units = scans if len(scans) > 1 else list(range(len(slices)))
    if len(units) == 1:
        return _divide_samples(slices[0], generator)
    order = torch.randperm(len(units), generator=generator).tolist()
    chosen = {units[i] for i in order[: max(1, round(HELD_OUT_SHARE * len(units)))]}
    apart = [(item.scan if len(scans) > 1 else n) in chosen for n, item in enumerate(slices)]
    training = [item for item, out in zip(slices, apart, strict=True) if not out]
    held = [item for item, out in zip(slices, apart, strict=True) if out]
    # Spread over the scans: those of one scan lie side by side.
    places = torch.linspace(0, len(held) - 1, min(len(held), MOST_HELD_OUT)).round().int()
    trials = [
        _trial(held[int(place)], _ACCELERATIONS[number % len(_ACCELERATIONS)], generator)
        for number, place in enumerate(places)
    ]
    what = "scans" if len(scans) > 1 else "slices"
    return Division(training, trials, f"{len(chosen)} of {len(units)} {what}")


def _trial(item: Slice, acceleration: float, generator: torch.Generator) -> Trial:
    """Samples of a held-out slice that are reconstructed, and those that are predicted."""
    if item.whole:
        kept = _undersampled(item.mask, acceleration, generator)
    else:
        kept = item.mask & ~hide(item.mask, _HIDDEN_SHARE, generator)
    return Trial(item.only(kept), item.measurement.y, item.mask & ~kept)


def _divide_samples(item: Slice, generator: torch.Generator) -> Division:
    """A single slice: some of its samples are held out, and the others are all that there is."""
    hidden = hide(item.mask, _HIDDEN_SHARE, generator)
    rest = item.mask & ~hidden
    trials = []
    for acceleration in _ACCELERATIONS if item.whole else (1.0,):
        kept = rest & _undersampled(item.mask, acceleration, generator) if item.whole else rest
        trials.append(Trial(item.only(kept), item.measurement.y, hidden))
    held_out = f"{_HIDDEN_SHARE:.0%} of the outer samples of the only slice"
    return Division([item.only(rest)], trials, held_out)


def _undersampled(mask: Tensor, acceleration: float, generator: torch.Generator) -> Tensor:
    ny, nx = mask.shape[-2:]
    return mask & uniform1d((ny, nx), acceleration, generator=generator).to(mask.device)


def center_of(mask: Tensor) -> tuple[slice, slice]:
    """Rows and columns of the calibration region of a mask."""
    return find_calibration_region(mask, max_size=_CENTER)


def hide(mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the samples outside the calibration region, ``(1, 1, ny, nx)`` bool.

    Whole lines where lines were measured, single samples otherwise.

    Raises:
        InputError: too few samples outside the calibration region.
    """
    ny, nx = mask.shape[-2:]
    rows, columns = center_of(mask)
    outer = mask[0, 0].cpu().clone()
    lines = bool((outer == outer[:1]).all())
    outer[slice(None) if lines else rows, columns] = False
    places = (outer[0] if lines else outer.flatten()).nonzero()[:, 0]
    count = round(share * len(places))
    if count == 0:
        raise InputError(
            f"expected samples outside the calibration region to hold some of them out, got "
            f"{len(places)} {'lines' if lines else 'samples'}: adapt to scans of more slices"
        )
    chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    hidden = torch.zeros(nx if lines else ny * nx, dtype=torch.bool)
    hidden[chosen] = True
    hidden = hidden.expand(ny, nx) if lines else hidden.view(ny, nx)
    return hidden[None, None].to(mask.device) & mask
