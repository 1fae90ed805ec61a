"""Choice of the ESPIRiT settings by cross-validation on held-out samples.

The candidates differ in the calibration region, the threshold between signal and noise, the
eigenvalue at which maps are cropped, and the number of sets of maps. For each, CG-SENSE
reconstructs an image from part of the samples in the center of k-space and predicts the others.
Maps predict badly if their support is too small or too large, if they mix two places where the
object wraps, or if they follow noise; so do two sets where one suffices, because they add unknowns.
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
from ctxrecon.fourier import ifft2c
from ctxrecon.linalg import conjugate_gradient, squared_norm

# Size (ny, nx) of the center of k-space in which samples are predicted
_LINES = (32, 96)
_POINTS = (64, 64)
_ROW_STEP = 2  # with a mask of lines, rows of pixels are separate problems, so half suffices
_GRID = 24  # points per side at which candidates are compared
_VIRTUAL_COILS = 8
_DRAWS = 2
_KEPT = 2  # lines or points to each side of the center that are never held out
_ITERATIONS = 24
_DAMPING = 1e-3
# The held-out samples are random: other settings than the first must predict them better by
# more than this margin.
_GAIN_OF_ANOTHER = 0.97
_LEAST_SHARE_OF_TWO = 0.005  # fraction of the pixels
_LEAST_KEPT = 0.5  # fraction of the energy, since only air should be cropped


class Candidate(NamedTuple):
    """Settings of :func:`ctxrecon.coils.espirit`.

    Attributes:
        region: Calibration samples as slices of ``ny`` and ``nx``.
        threshold: Relative singular value below which there is noise, or "auto".
        crop: Eigenvalue below which maps are zero, or "auto".
        num_maps: Number of sets of maps, 1 or 2.
    """

    region: tuple[slice, slice]
    threshold: float | Literal["auto"]
    crop: float | Literal["auto"]
    num_maps: Literal[1, 2]


def kernel_for(region: tuple[slice, slice], kernel_size: int) -> tuple[int, int]:
    """Return the kernel of a region: ``kernel_size``, but at most half of each side."""
    ky, kx = (min(kernel_size, (part.stop - part.start) // 2) for part in region)
    return ky, kx


def choose_settings(
    kspace: Tensor, mask: Tensor, candidates: Sequence[Candidate], *, kernel_size: int
) -> Candidate:
    """Return the candidate whose maps best predict held-out samples.

    Args:
        kspace: K-space of one slice, complex64 ``(1, coils, ny, nx)``, zero where not sampled.
        mask: Sampling mask of shape ``(1, 1, ny, nx)``, bool.
        candidates: Candidates to compare, the default first.
        kernel_size: Largest kernel size along an axis; it adapts to the region.

    Returns:
        The best candidate, or the default if there are too few samples to hold any out.
    """
    first = candidates[0]
    if len(candidates) == 1:
        return first
    lines = bool((mask == mask[..., :1, :]).all())
    middle = tuple(
        _middle(n, width)
        for n, width in zip(kspace.shape[2:], _LINES if lines else _POINTS, strict=True)
    )
    sampled = mask[:, :, middle[0], middle[1]]
    held_back = _held_back(sampled, mask.numel() / int(mask.sum()))
    # Scaled, because squares of very large or small units exceed the range of floats
    kspace = kspace / kspace.abs().amax()
    compression = _compression(kspace[:, :, first.region[0], first.region[1]])
    kspace = torch.einsum("vc,bcyx->bvyx", compression, kspace)
    samples = kspace[:, :, middle[0], middle[1]]
    held_back = held_back[(samples * held_back != 0).flatten(1).any(dim=1)]
    if not len(held_back):
        return first
    maps = _maps_of(kspace, candidates, kernel_size, samples.shape[2:])
    errors = _prediction_errors(samples, sampled, held_back, maps)
    errors[0] *= _GAIN_OF_ANOTHER
    # In strong noise, empty maps would predict best.
    kept = _kept_energy(samples, first.region, middle, maps)
    errors[kept < _LEAST_KEPT] = float("inf")
    best = errors.argmin() if bool(errors.isfinite().any()) else kept.argmax()
    return candidates[int(best)]


def _kept_energy(
    samples: Tensor, region: tuple[slice, slice], middle: tuple[slice, ...], maps: Tensor
) -> Tensor:
    """Return the fraction of the calibration image's energy inside the maps, ``(candidates,)``."""
    rows, columns = (
        slice(part.start - window.start, part.stop - window.start)
        for part, window in zip(region, middle, strict=True)
    )
    calibration = torch.zeros_like(samples)
    calibration[:, :, rows, columns] = samples[:, :, rows, columns]
    energy = ifft2c(calibration).abs().square().sum(dim=1)
    inside = (maps != 0).flatten(1, 2).any(dim=1)
    return (energy * inside).flatten(1).sum(dim=1) / energy.sum()


def _maps_of(
    kspace: Tensor, candidates: Sequence[Candidate], kernel_size: int, shape: Sequence[int]
) -> Tensor:
    """Return the candidates' maps ``(candidates, sets, coils, ny, nx)``, zero for missing sets."""
    ny, nx = shape
    most = max(candidate.num_maps for candidate in candidates)
    fields: dict[object, tuple[Tensor, Tensor, Tensor]] = {}
    subspaces: dict[object, tuple[Tensor, SignalSubspace]] = {}
    found = []
    for region, threshold, crop, num_maps in candidates:
        kernel = kernel_for(region, kernel_size)
        edges = tuple((part.start, part.stop) for part in region)
        if edges not in subspaces:
            calibration = kspace[:, :, region[0], region[1]]
            calibration = calibration / calibration.abs().amax()
            subspaces[edges] = calibration, SignalSubspace(calibration, kernel)
        calibration, subspace = subspaces[edges]
        # Thresholds that keep equal numbers of singular vectors yield the same maps.
        key = (edges, subspace.rank(threshold))
        if key not in fields:
            gram = pixel_gram(
                subspace.projector(threshold),
                calibration.shape[1],
                kernel,
                (min(ny, _GRID), min(nx, _GRID)),
            )
            values, vectors = torch.linalg.eigh(gram)
            fields[key] = calibration, values, vectors
        calibration, values, vectors = fields[key]
        if num_maps == 1:
            maps, _ = single_maps(calibration, vectors[..., -1], values[..., -1], crop, (ny, nx))
            maps = maps[:, None]
        else:
            pair, size = vectors[..., -2:].flip(-1), values[..., -2:].flip(-1)
            maps, _ = paired_maps(calibration, pair, size, crop, (ny, nx))
        found.append(pad(maps, (0,) * 7 + (most - num_maps,)))
    return torch.cat(found)


def _middle(size: int, width: int) -> slice:
    width = min(size, width)
    return slice(size // 2 - width // 2, size // 2 - width // 2 + width)


def _held_back(sampled: Tensor, acceleration: float) -> Tensor:
    """Return the samples to predict, ``(draws, 1, ny, nx)``: lines, or points of a 2-D mask.

    The remaining samples are undersampled like the scan, with at least a third held out.
    """
    ny, nx = sampled.shape[2:]
    present = float(sampled.float().mean())
    share = min(max(1 - 1 / (acceleration * present), 1 / 3), 0.75)
    generator = torch.Generator().manual_seed(0)
    lines = bool((sampled == sampled[..., :1, :]).all())
    size = (_DRAWS, 1, 1 if lines else ny, nx)
    drawn = torch.rand(size, generator=generator, device=generator.device) < share
    from_center_y, from_center_x = (
        torch.arange(n, device=generator.device) - n // 2 for n in (ny, nx)
    )
    near_y, near_x = (
        (offset >= -_KEPT) & (offset < _KEPT) for offset in (from_center_y, from_center_x)
    )
    drawn &= ~(near_x if lines else near_y[:, None] & near_x)
    return sampled & drawn.to(sampled.device)


def _compression(calibration: Tensor) -> Tensor:
    """Return the calibration's principal components ``(virtual coils, coils)``, by strength."""
    samples = calibration.flatten(2)[0]
    vectors = torch.linalg.eigh(samples @ samples.mH)[1]
    return vectors[:, -_VIRTUAL_COILS:].flip(1).mH


def _prediction_errors(samples: Tensor, sampled: Tensor, held_back: Tensor, maps: Tensor) -> Tensor:
    """Return ``‖H (A x̂ − y)‖² / ‖H y‖²`` for each item of ``maps``, averaged over the draws.

    ``x̂`` is reconstructed from the remaining samples. The data are shifted once for plain FFTs, and
    no transform is needed along a fully sampled readout.
    """
    draws = len(held_back)
    samples, sampled, held_back, maps = (
        torch.fft.ifftshift(each, dim=(-2, -1)) for each in (samples, sampled, held_back, maps)
    )
    lines = sampled.shape[2] > 1 and bool((sampled == sampled[..., :1, :]).all())
    axes = (-1,) if lines else (-2, -1)
    if lines:
        samples = torch.fft.ifft(samples, dim=-2, norm="ortho")
        samples, sampled, held_back, maps = (
            each[..., ::_ROW_STEP, :] for each in (samples, sampled, held_back, maps)
        )
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
    kspace: Tensor, candidate: Candidate, *, kernel_size: int, negligible: bool
) -> Tensor:
    """Estimate the maps of one slice, ``(1, [2,] coils, ny, nx)``, with a candidate's settings.

    Args:
        kspace: K-space of shape ``(1, coils, ny, nx)``, complex64.
        candidate: Settings.
        kernel_size: Largest kernel size along an axis.
        negligible: Whether to drop a second set that is zero in nearly all pixels.
    """
    region, threshold, crop, num_maps = candidate

    def estimate(sets: Literal[1, 2]) -> Tensor:
        return espirit(
            kspace[:, :, region[0], region[1]],
            (kspace.shape[2], kspace.shape[3]),
            kernel_size=kernel_for(region, kernel_size),
            threshold=threshold,
            crop=crop,
            num_maps=sets,
        ).coil_maps

    maps = estimate(num_maps)
    if num_maps == 2 and negligible:
        second = (maps[:, 1] != 0).any(dim=1)
        if float(second.float().mean()) < _LEAST_SHARE_OF_TWO:
            return estimate(1)
    return maps
