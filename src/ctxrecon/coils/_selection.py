"""Choice of ESPIRiT's settings by how well their maps predict samples that are held back.

A few candidates differ in the calibration region, in the threshold that separates signal from
noise, and in the number of sets of maps. For each, an image is reconstructed by CG-SENSE from part
of the samples in the middle of k-space, and the other part is predicted from it. Maps that claim
too little of the field of view, that mix two places where it wraps, or that follow noise predict
badly; so do two sets where one suffices, since they leave more unknowns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ctxrecon.coils._espirit import (
    SignalSubspace,
    espirit,
    paired_maps,
    pixel_gram,
    single_maps,
)
from ctxrecon.linalg import conjugate_gradient, squared_norm

THRESHOLDS: tuple[float | Literal["auto"], ...] = ("auto", 0.02)
# Samples (ny, nx) in the middle of k-space that are predicted; rows of a mask of lines are alike.
_LINES = (16, 48)
_POINTS = (36, 36)
_GRID = 16  # points a side at which candidates are compared
_VIRTUAL_COILS = 8
_DRAWS = 3
_KEPT = 2  # lines or points to each side of the centre, which are never held back
_ITERATIONS = 24
_DAMPING = 1e-3
# A second set doubles the work that follows, and which samples are held back is chance: other
# settings than the first have to predict better by more than these.
_GAIN_OF_TWO_SETS = 0.95
_GAIN_OF_ANOTHER = 0.98
_LEAST_SHARE_OF_TWO = 0.005  # of the pixels


class Candidate(NamedTuple):
    """Settings of :func:`ctxrecon.coils.espirit`.

    Attributes:
        region: calibration samples, slices of ``ny`` and ``nx``.
        threshold: as in :func:`~ctxrecon.coils.espirit`.
        num_maps: sets of maps, 1 or 2.
    """

    region: tuple[slice, slice]
    threshold: float | Literal["auto"]
    num_maps: Literal[1, 2]


def kernel_for(region: tuple[slice, slice], kernel_size: int) -> tuple[int, int]:
    """The kernel for a region: ``kernel_size``, or half of a side that is shorter than twice it."""
    ky, kx = (min(kernel_size, (part.stop - part.start) // 2) for part in region)
    return ky, kx


def choose_settings(
    kspace: Tensor,
    mask: Tensor,
    regions: list[tuple[slice, slice]],
    *,
    kernel_size: int,
    thresholds: tuple[float | Literal["auto"], ...] = THRESHOLDS,
    crop: float | Literal["auto"],
    sets: tuple[Literal[1, 2], ...] = (1, 2),
) -> Candidate:
    """The candidate whose maps predict held-back samples best.

    Thresholds and sets of maps are compared in the largest region first; then the other regions
    are tried with the best threshold. The kernel follows the region.

    Args:
        kspace: of one slice, ``(1, coils, ny, nx)`` complex64, zero where not sampled.
        mask: ``(1, 1, ny, nx)`` bool.
        regions: calibration regions, the largest first.
        kernel_size: largest kernel along an axis.
        thresholds: those to compare.
        crop: as in :func:`ctxrecon.coils.espirit`.
        sets: numbers of sets to compare.

    Returns:
        The best; where too little is sampled to hold anything back, the first of each.
    """
    first = Candidate(regions[0], thresholds[0], sets[0])
    if len(regions) == len(thresholds) == len(sets) == 1:
        return first
    lines = bool((mask == mask[..., :1, :]).all())
    middle = tuple(
        _middle(n, width)
        for n, width in zip(kspace.shape[2:], _LINES if lines else _POINTS, strict=True)
    )
    sampled = mask[:, :, middle[0], middle[1]]
    held_back = _held_back(sampled, mask.numel() / int(mask.sum()))
    largest = regions[0]
    # Squares of very large or small units would leave the range of floats.
    kspace = kspace / kspace.abs().amax()
    compression = _compression(kspace[:, :, largest[0], largest[1]])
    kspace = torch.einsum("vc,bcyx->bvyx", compression, kspace)
    samples = kspace[:, :, middle[0], middle[1]]
    held_back = held_back[(samples * held_back != 0).flatten(1).any(dim=1)]
    if not len(held_back):
        return first

    def candidates(
        part: tuple[slice, slice], limits: Sequence[float | Literal["auto"]]
    ) -> list[tuple[Candidate, Tensor]]:
        calibration = kspace[:, :, part[0], part[1]]
        calibration = calibration / calibration.abs().amax()
        kernel = kernel_for(part, kernel_size)
        subspace = SignalSubspace(calibration, kernel)
        # Thresholds that keep as many singular vectors are one candidate: the first of them.
        distinct = {subspace.rank(limit): limit for limit in reversed(limits)}
        gram = pixel_gram(
            torch.cat([subspace.projector(limit) for limit in distinct.values()]),
            calibration.shape[1],
            kernel,
            (min(samples.shape[2], _GRID), min(samples.shape[3], _GRID)),
        )
        values, vectors = torch.linalg.eigh(gram)
        found: list[tuple[Candidate, Tensor]] = []
        for count in sets:
            maps = _maps_of(calibration, vectors, values, count, crop, samples.shape[2:])
            names = [Candidate(part, limit, count) for limit in distinct.values()]
            found += zip(names, maps, strict=True)
        return found

    def compare(entries: list[tuple[Candidate, Tensor]]) -> list[tuple[Candidate, float]]:
        most = max(len(maps) for _, maps in entries)
        padded = torch.stack([pad(maps, (0,) * 7 + (most - len(maps),)) for _, maps in entries])
        missed = _prediction_errors(samples, sampled, held_back, padded).tolist()
        return list(zip((name for name, _ in entries), missed, strict=True))

    compared = compare(candidates(largest, thresholds))
    if others := regions[1:]:
        limit = _best(compared, first).threshold
        compared += compare([entry for part in others for entry in candidates(part, (limit,))])
    return _best(compared, first)


def _best(compared: list[tuple[Candidate, float]], first: Candidate) -> Candidate:
    """The least error, after allowance for what the candidate costs."""

    def weighted(entry: tuple[Candidate, float]) -> float:
        candidate, error = entry
        if candidate.num_maps == first.num_maps:
            return error if candidate == first else error / _GAIN_OF_ANOTHER
        return error / _GAIN_OF_TWO_SETS

    return min(compared, key=weighted)[0]


def _middle(size: int, width: int) -> slice:
    width = min(size, width)
    return slice(size // 2 - width // 2, size // 2 - width // 2 + width)


def _held_back(sampled: Tensor, acceleration: float) -> Tensor:
    """Samples to predict, ``(draws, 1, ny, nx)``: lines, or points of a 2-D mask.

    What is left is undersampled as the scan is, or by half more where it is so already.
    """
    ny, nx = sampled.shape[2:]
    present = float(sampled.float().mean())
    share = min(max(1 - 1 / (acceleration * present), 1 / 3), 0.75)
    generator = torch.Generator().manual_seed(0)
    lines = bool((sampled == sampled[..., :1, :]).all())
    size = (_DRAWS, 1, 1 if lines else ny, nx)
    drawn = torch.rand(size, generator=generator, device=generator.device) < share
    from_centre_y, from_centre_x = (
        torch.arange(n, device=generator.device) - n // 2 for n in (ny, nx)
    )
    near_y, near_x = (
        (offset >= -_KEPT) & (offset < _KEPT) for offset in (from_centre_y, from_centre_x)
    )
    drawn &= ~(near_x if lines else near_y[:, None] & near_x)
    return sampled & drawn.to(sampled.device)


def _compression(calibration: Tensor) -> Tensor:
    """``(virtual coils, coils)``: principal components of the calibration data, strongest first."""
    samples = calibration.flatten(2)[0]
    vectors = torch.linalg.eigh(samples @ samples.mH)[1]
    return vectors[:, -_VIRTUAL_COILS:].flip(1).mH


def _maps_of(
    calibration: Tensor,
    vectors: Tensor,
    values: Tensor,
    num_maps: int,
    crop: float | Literal["auto"],
    shape: Sequence[int],
) -> Tensor:
    """Maps ``(items, num_maps, coils, ny, nx)`` from the eigenvectors of ``items`` fields ``G``."""
    calibration = calibration.expand(len(values), -1, -1, -1)
    ny, nx = shape
    if num_maps == 1:
        return single_maps(calibration, vectors[..., -1], values[..., -1], crop, (ny, nx))[0][
            :, None
        ]
    vectors, values = vectors[..., -2:].flip(-1), values[..., -2:].flip(-1)
    return paired_maps(calibration, vectors, values, crop, (ny, nx))[0]


def _prediction_errors(samples: Tensor, sampled: Tensor, held_back: Tensor, maps: Tensor) -> Tensor:
    """``‖H (A x̂ − y)‖² / ‖H y‖²`` of each item of ``maps``, ``x̂`` from the samples that are left.

    The average over the draws of ``held_back``. All is shifted to plain transforms once, and along
    a readout that is fully sampled none is needed.
    """
    draws = len(held_back)
    samples, sampled, held_back, maps = (
        torch.fft.ifftshift(each, dim=(-2, -1)) for each in (samples, sampled, held_back, maps)
    )
    lines = sampled.shape[2] > 1 and bool((sampled == sampled[..., :1, :]).all())
    axes = (-1,) if lines else (-2, -1)
    if lines:
        samples = torch.fft.ifft(samples, dim=-2, norm="ortho")
    maps = maps.repeat_interleave(draws, dim=0)
    conjugate = maps.conj().resolve_conj()
    held_back = held_back.repeat(len(maps) // draws, 1, 1, 1)
    kept = sampled & ~held_back

    def coil_spectra(images: Tensor) -> Tensor:
        return torch.fft.fftn((maps * images[:, :, None]).sum(dim=1), dim=axes, norm="ortho")

    def combined(spectra: Tensor) -> Tensor:
        return (conjugate * torch.fft.ifftn(spectra, dim=axes, norm="ortho")[:, None]).sum(dim=2)

    x = conjugate_gradient(
        lambda images: combined(coil_spectra(images) * kept) + _DAMPING * images,
        combined(samples * kept),
        num_iterations=_ITERATIONS,
    )
    errors = squared_norm((coil_spectra(x) - samples) * held_back) / squared_norm(
        samples * held_back
    )
    return errors.unflatten(0, (-1, draws)).mean(dim=1)


def chosen_maps(
    kspace: Tensor,
    candidate: Candidate,
    *,
    kernel_size: int,
    crop: float | Literal["auto"],
    negligible: bool,
) -> Tensor:
    """Maps of one slice, ``(1, [2,] coils, ny, nx)``, by the settings of a candidate.

    Args:
        kspace: ``(1, coils, ny, nx)`` complex64.
        candidate: the settings.
        kernel_size: largest kernel along an axis.
        crop: as in :func:`ctxrecon.coils.espirit`.
        negligible: whether a second set that hardly any pixel has may be left out.
    """
    region = candidate.region

    def estimate(num_maps: Literal[1, 2]) -> Tensor:
        return espirit(
            kspace[:, :, region[0], region[1]],
            (kspace.shape[2], kspace.shape[3]),
            kernel_size=kernel_for(region, kernel_size),
            threshold=candidate.threshold,
            crop=crop,
            num_maps=num_maps,
        ).coil_maps

    maps = estimate(candidate.num_maps)
    if candidate.num_maps == 2 and negligible:
        second = (maps[:, 1] != 0).any(dim=1)
        if float(second.float().mean()) < _LEAST_SHARE_OF_TWO:
            return estimate(1)
    return maps
