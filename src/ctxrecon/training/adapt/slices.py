"""Division of a lab's own scans into training slices, held-out slices and hidden samples.

Fully sampled slices provide training images; undersampled ones provide samples that are hidden
from a reconstruction. Held-out data are never used for training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ctxrecon.coils import find_calibration_region
from ctxrecon.errors import InputError
from ctxrecon.inference.weighting import line_axis
from ctxrecon.masks import uniform1d
from ctxrecon.measurement import Measurement
from ctxrecon.metadata import parse_prompt
from ctxrecon.operators import SoftSense, sense_operator
from ctxrecon.scan import FULLY_SAMPLED
from ctxrecon.training.slices import MIRRORED

HELD_OUT_SHARE = 0.2
"""Share of the scans, or of the slices of a single scan, that is held out."""
MOST_HELD_OUT = 6
"""Maximum number of slices on which priors are compared."""
_HIDDEN_SHARE = 0.25
"""Hidden share of the samples outside the calibration region of an undersampled slice."""
_CENTER = (24, 24)
"""Maximum size of the calibration region, which is never hidden."""
_ACCELERATIONS = (4.0, 8.0)
"""Accelerations of the masks of fully sampled held-out slices, used in turn."""


@dataclass(frozen=True)
class Slice:
    """Slice of a scan.

    Attributes:
        measurement: Measurement of this slice, with normalized coil maps.
        prompt: Prompt of the slice; may be empty.
        scan: Index of its scan.
        whole: ``True`` if enough is sampled to use its image as the reference.
    """

    measurement: Measurement
    prompt: str
    scan: int
    whole: bool

    @property
    def mask(self) -> Tensor:
        """Sampling mask ``(1, 1, ny, nx)``, bool."""
        assert self.measurement.mask is not None
        return self.measurement.mask

    @property
    def mirrored(self) -> bool:
        """``True`` if the anatomy in the prompt has left-right symmetry."""
        return parse_prompt(self.prompt)[0].anatomy in MIRRORED

    def only(self, mask: Tensor) -> Slice:
        """Return the slice restricted to a subset of its samples."""
        return replace(self, measurement=restricted(self.measurement, mask), whole=False)


@dataclass(frozen=True)
class Trial:
    """Held-out slice with samples to reconstruct from, and samples to predict.

    Attributes:
        slice: Slice with the samples to reconstruct from.
        kspace: Complete k-space ``(1, coils, ny, nx)``.
        hidden: Samples to predict, ``(1, 1, ny, nx)`` bool.
    """

    slice: Slice
    kspace: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class Division:
    """Division into training and held-out data.

    Attributes:
        training: Training slices.
        trials: Held-out slices on which priors are compared.
        held_out: Description of the held-out data, such as "2 of 5 scans".
        unseen: ``True`` if the held-out data are of other slices than the training data.
    """

    training: list[Slice]
    trials: list[Trial]
    held_out: str
    unseen: bool = True


def restricted(measurement: Measurement, mask: Tensor) -> Measurement:
    """Restrict a measurement to the samples of a mask ``(1, 1, ny, nx)``, bool."""
    assert measurement.mask is not None
    mask = mask.to(measurement.y.device) & measurement.mask
    operator = sense_operator(mask, measurement.coil_maps)
    return replace(measurement, y=measurement.y * mask, mask=mask, operator=operator)


def slices_of(
    measurements: Sequence[Measurement], prompts: Sequence[Sequence[str] | str | None]
) -> list[Slice]:
    """Return all slices of all scans that contain signal.

    Args:
        measurements: One measurement per scan.
        prompts: For each scan one prompt for all slices, one per slice, or ``None``.

    Raises:
        InputError: If a scan is not Cartesian or has two sets of coil maps, prompts do not match
            the scans, or all slices are empty.
    """
    if len(prompts) != len(measurements):
        raise InputError(
            f"expected prompts for each of the {len(measurements)} scans, got {len(prompts)}"
        )
    found = []
    for number, (measurement, given) in enumerate(zip(measurements, prompts, strict=True)):
        if measurement.mask is None:
            raise InputError(
                f"expected Cartesian scans to adapt to, but scan {number} has a trajectory or "
                "another operator: omit it"
            )
        if isinstance(measurement.operator, SoftSense):
            raise InputError(
                f"expected one set of coil maps, but scan {number} has several: pass `coil_maps`, "
                "such as estimate_coil_maps(kspace, mask, num_maps=1)"
            )
        words = (
            [given or ""] * len(measurement) if given is None or isinstance(given, str) else given
        )
        if len(words) != len(measurement):
            raise InputError(
                f"expected one prompt for each of the {len(measurement)} slices of scan {number}, "
                f"got {len(words)}"
            )
        normalized, _ = measurement.normalized()
        for index in normalized.filled.tolist():
            one = normalized[index]
            assert one.mask is not None
            whole = float(one.mask.float().mean()) >= FULLY_SAMPLED
            found.append(Slice(one, words[index], number, whole))
    if not found:
        raise InputError("expected scans with signal, got only empty slices: check the files")
    return found


def divide(slices: Sequence[Slice], generator: torch.Generator) -> Division:
    """Hold out scans, slices of a single scan, or samples of a single slice.

    Raises:
        InputError: If a single slice has too few samples to hold out some of them.
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
    # Spread evenly, since slices of one scan are adjacent.
    places = torch.linspace(0, len(held) - 1, min(len(held), MOST_HELD_OUT)).round().int()
    trials = [
        _trial(held[int(place)], _ACCELERATIONS[number % len(_ACCELERATIONS)], generator)
        for number, place in enumerate(places)
    ]
    what = "scans" if len(scans) > 1 else "slices"
    return Division(training, trials, f"{len(chosen)} of {len(units)} {what}")


def _trial(item: Slice, acceleration: float, generator: torch.Generator) -> Trial:
    """Split the samples of a held-out slice into those to reconstruct from and those to predict."""
    if item.whole:
        kept = _undersampled(item.mask, acceleration, generator)
    else:
        kept = item.mask & ~hide(item.mask, _HIDDEN_SHARE, generator)
    return Trial(item.only(kept), item.measurement.y, item.mask & ~kept)


def _divide_samples(item: Slice, generator: torch.Generator) -> Division:
    """Hold out some samples of a single slice and train on the rest."""
    hidden = hide(item.mask, _HIDDEN_SHARE, generator)
    rest = item.mask & ~hidden
    trials = []
    for acceleration in _ACCELERATIONS if item.whole else (1.0,):
        kept = rest & _undersampled(item.mask, acceleration, generator) if item.whole else rest
        trials.append(Trial(item.only(kept), item.measurement.y, hidden))
    held_out = f"{_HIDDEN_SHARE:.0%} of the outer samples of the only slice"
    return Division([item.only(rest)], trials, held_out, unseen=False)


def _undersampled(mask: Tensor, acceleration: float, generator: torch.Generator) -> Tensor:
    ny, nx = mask.shape[-2:]
    return mask & uniform1d((ny, nx), acceleration, generator=generator).to(mask.device)


def center_of(mask: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns of the calibration region of a mask."""
    return find_calibration_region(mask, max_size=_CENTER)


def hide(mask: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Select a share of the samples outside the calibration region, ``(1, 1, ny, nx)`` bool.

    Selects whole lines if whole lines were measured, otherwise single samples.

    Raises:
        InputError: If there are too few samples outside the calibration region.
    """
    sampled = mask[0, 0].cpu()
    region = center_of(mask)
    axis = line_axis(sampled)
    if axis is None:
        outer = sampled.clone()
        outer[region] = False
    else:
        outer = sampled.any(dim=1 - axis)
        outer[region[axis]] = False
    places = outer.flatten().nonzero()[:, 0]
    count = round(share * len(places))
    if count == 0:
        raise InputError(
            f"expected samples outside the calibration region that can be held out, got "
            f"{len(places)} {'samples' if axis is None else 'lines'}: adapt to scans with more "
            "slices"
        )
    chosen = places[torch.randperm(len(places), generator=generator)[:count]]
    hidden = torch.zeros_like(sampled)
    if axis is None:
        hidden.view(-1)[chosen] = True
    else:
        hidden.index_fill_(axis, chosen, True)
    return hidden[None, None].to(mask.device) & mask
