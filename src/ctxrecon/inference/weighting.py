"""Choice of the prior's weight by cross-validation on held-out k-space samples."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ctxrecon.coils import find_calibration_region
from ctxrecon.errors import InputError
from ctxrecon.inference.diffusion import Diffusion
from ctxrecon.linalg import squared_norm
from ctxrecon.measurement import Measurement
from ctxrecon.operators import sense_operator
from ctxrecon.solvers import DiffusionSolver

logger = logging.getLogger(__name__)

FACTORS = (1.0, 0.5, 0.3)
"""Candidate factors of the noise level; the first assumes a correct prior."""

_EVERY = 5  # one of this many outer lines or points is held out
_LEAST_LINES, _LEAST_POINTS = 2, 64
# The held-out samples are random: other factors than the first must predict them better by
# more than this margin.
_GAIN_OF_ANOTHER = 0.93
_STEP = 2  # one of this many timesteps is used
_PART = 4  # one of this many rows is in the band
_LEAST_ROWS, _MULTIPLE = 48, 16
_CROP = 2  # pixels per side that are merged into one
_LEAST_SIDE = 64  # smallest side of an image with merged pixels


def may_choose(solver: DiffusionSolver, noise_std: object) -> bool:
    """Return whether this solver's weight of the prior is chosen from the data.

    Args:
        solver: Solver of the call; a data weight set by the user is never overruled.
        noise_std: Noise level of the pipeline call; only "auto" enables the choice.
    """
    takes_weight = solver.default_noise_std is not None or solver.weight_is_unset
    return isinstance(noise_std, str) and takes_weight and not solver.couples_batch


def choose_factors(
    diffusion: Diffusion,
    solver: DiffusionSolver,
    steps: Sequence[int],
    noise: Tensor | None,
    noise_std: object = "auto",
) -> Tensor | None:
    """Choose the factor of each slice's noise level that best predicts held-out samples.

    The noise level alone determines the weight of a correct prior; an incorrect prior should weigh
    less. Some samples (:func:`held_back`) are predicted from the others with each of
    :data:`FACTORS`, all in one batch, with half of the timesteps, including the last, and for a
    part of the image (:func:`part_of`). This takes less than half the time of a reconstruction. A
    factor other than 1 must predict clearly better. The choice of a slice depends neither on the
    other slices of the batch nor on the generators of the call, and is logged.

    Args:
        diffusion: Measurement of all slices, with their conditions and scale.
        solver: Solver whose weight is chosen.
        steps: Training timesteps of the reconstruction.
        noise: Standard deviation of each slice's samples, ``(batch,)``; ``None`` for solvers that
            weight the data without it.
        noise_std: Noise level of the pipeline call; see :func:`may_choose`.

    Returns:
        Factors of shape ``(batch,)``, 1 for slices with too few samples to hold out; ``None`` if
        that applies to all slices, the scan is not Cartesian, or the choice is disabled.
    """
    if not may_choose(solver, noise_std):
        return None
    work = diffusion.work
    if work.mask is None:
        logger.info("weight of the prior not chosen: samples are held out of Cartesian scans only")
        return None
    masks = work.mask.expand(len(work), -1, -1, -1)
    groups: dict[int | None, list[int]] = {}
    for index in work.filled.tolist():
        groups.setdefault(_full_axis(masks[index, 0]), []).append(index)
    errors = work.y.new_full((len(work), len(FACTORS)), math.nan, dtype=torch.float32)
    for axis, indices in groups.items():
        group = torch.tensor(indices, device=work.y.device)
        reduced, gain = part_of(work[group], axis)
        held = held_back(_mask_of(reduced)).expand(len(group), -1, -1, -1)
        able = (held & (reduced.y != 0)).flatten(1).any(dim=1).nonzero()[:, 0]
        if len(able):
            part = _part(diffusion, group[able], reduced[able], gain)
            level = None if noise is None else noise[group[able]]
            errors[group[able]] = _errors_of(part, solver, steps, level, held[able])
    rated = (~errors.isnan()).all(dim=1)
    if not bool(rated.any()):
        logger.info("weight of the prior not chosen: too few samples can be held out")
        return None
    best = torch.where(rated, best_candidate(errors.nan_to_num()), 0)
    logger.info(
        "weight of the prior by held-out samples: %s",
        "; ".join(
            f"noise × {FACTORS[index]:g} (error {100 * found[index] ** 0.5:.1f} %, with noise × 1 "
            f"{100 * found[0] ** 0.5:.1f} %)"
            for index, found in zip(best[rated].tolist(), errors[rated].tolist(), strict=True)
        ),
    )
    return torch.tensor(FACTORS, device=work.y.device)[best]


def _part(diffusion: Diffusion, slices: Tensor, measurement: Measurement, gain: float) -> Diffusion:
    """Return the settings for a part of the image of some slices, ``gain`` times as bright."""
    embeds, uncond_embeds, gamma = diffusion.conditions
    return replace(
        diffusion,
        work=measurement,
        scale=diffusion.scale[slices] * gain,
        conditions=(None if embeds is None else embeds[slices], uncond_embeds, gamma),
        crop=diffusion.prior.padding(measurement.image_shape),
    )


def _errors_of(
    part: Diffusion,
    solver: DiffusionSolver,
    steps: Sequence[int],
    noise: Tensor | None,
    held: Tensor,
) -> Tensor:
    """Return :func:`prediction_errors` for each factor; see :func:`choose_factors`."""
    device = part.work.y.device
    factors = torch.tensor(FACTORS, device=device).repeat(len(part.work))
    # The same random numbers for every slice and candidate, independent of the call's generators
    generators = [torch.Generator().manual_seed(0) for _ in factors]
    shape = (len(factors), 2, *part.crop.domain_shape[1:])
    latents = randn_tensor(shape, generator=generators, device=device, dtype=torch.float32)

    def reconstruct(kept: Measurement) -> Tensor:
        return replace(part, work=kept).run(
            "weight of the prior",
            solver,
            list(steps)[::-_STEP][::-1],
            latents,
            noise,
            factors=factors,
            generators=generators,
        )

    return prediction_errors(part.work, held, reconstruct)


def held_back(mask: Tensor) -> Tensor:
    """Return the samples to hold out, bool ``(batch or 1, 1, ny, nx)``, for each mask separately.

    Every fifth line outside the calibration region is held out, or a random fifth of the points of
    masks that do not consist of lines; none if that would be fewer than two lines or 64 points.

    Args:
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool.
    """
    return torch.stack([_held_back(sampled)[None] for sampled in mask[:, 0]])


def _held_back(sampled: Tensor) -> Tensor:
    """Return the held-out samples of one mask ``(ny, nx)``."""
    held = torch.zeros_like(sampled)
    try:
        region = find_calibration_region(sampled)
    except InputError:
        return held
    axis = line_axis(sampled)
    if axis is not None:
        outer = sampled.any(dim=1 - axis)
        outer[region[axis]] = False
        places = outer.nonzero()[:, 0][_EVERY // 2 :: _EVERY]
        if len(places) >= _LEAST_LINES:
            held.index_fill_(axis, places, True)
        return held & sampled
    outer = sampled.clone()
    outer[region] = False
    places = outer.flatten().nonzero()[:, 0]
    # A permutation, since independent draws could repeat those that made the mask
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    places = places[order[: len(places) // _EVERY].to(places.device)]
    if len(places) >= _LEAST_POINTS:
        held.view(-1)[places] = True
    return held


def line_axis(sampled: Tensor) -> int | None:
    """Return the axis along which a mask ``(ny, nx)`` selects lines; ``None`` if there is none."""
    rows, columns = sampled.any(dim=1), sampled.any(dim=0)
    if not bool((rows[:, None] & columns == sampled).all()):
        return None
    return 1 if float(columns.float().mean()) <= float(rows.float().mean()) else 0


def _full_axis(sampled: Tensor) -> int | None:
    """Return the readout axis, along which every line of a mask ``(ny, nx)`` is complete."""
    axis = line_axis(sampled)
    return 1 - axis if axis is not None and bool(sampled.any(dim=axis).all()) else None


def prediction_errors(
    measurement: Measurement, held: Tensor, reconstruct: Callable[[Measurement], Tensor]
) -> Tensor:
    """Compute ``‖H (A x̂ − y)‖² / ‖H y‖²`` of every candidate ``x̂``, ``(batch, candidates)``.

    Args:
        measurement: Measurement y.
        held: Held-out samples H, bool ``(batch or 1, 1, ny, nx)``, some in every slice.
        reconstruct: Function that reconstructs the candidates from the remaining samples,
            ``(batch · candidates, [sets ·] ny, nx)``, ordered by slice.
    """
    images = reconstruct(_masked(measurement, _mask_of(measurement) & ~held))
    unseen = _masked(measurement, held)
    errors = []
    for index, candidates in enumerate(images.unflatten(0, (len(measurement), -1))):
        one = unseen[index]
        rows = one.operator.domain_shape[1]
        difference = one.operator(candidates[:, :rows]) - one.y
        errors.append(squared_norm(difference) / squared_norm(one.y))
    return torch.stack(errors)


def best_candidate(errors: Tensor) -> Tensor:
    """Return the index of the smallest error; other than the first only if clearly smaller."""
    rated = errors.clone()
    rated[:, 0] *= _GAIN_OF_ANOTHER
    return rated.argmin(dim=1)


def _mask_of(measurement: Measurement) -> Tensor:
    """Return the mask of Cartesian k-space, ``(batch or 1, 1, ny, nx)``."""
    assert measurement.mask is not None
    return measurement.mask


def _masked(measurement: Measurement, mask: Tensor) -> Measurement:
    """Return the measurement restricted to the samples of a mask."""
    return _with(measurement, measurement.y * mask, mask, measurement.coil_maps)


def _with(measurement: Measurement, y: Tensor, mask: Tensor, maps: Tensor | None) -> Measurement:
    """Return a measurement of the same slices with other samples."""
    maps = None if maps is None else maps.contiguous()
    mask = mask.contiguous()
    operator = sense_operator(mask, maps)
    return replace(measurement, y=y.contiguous(), mask=mask, coil_maps=maps, operator=operator)


def part_of(measurement: Measurement, axis: int | None) -> tuple[Measurement, float]:
    """Return a measurement of a part of the image that takes a quarter of the time, if possible.

    If lines are complete, the Fourier transform along them separates the rows of the image, and the
    part is a central band of a quarter of the rows, at least 48. Otherwise it is the center of
    k-space, which means larger pixels, if at least 64 remain along each side.

    Args:
        measurement: Measurement of slices with masks of one kind.
        axis: Axis of ``(ny, nx)`` along which the lines are complete, 0 or 1; ``None`` if they are
            not.

    Returns:
        The measurement, and the factor by which its image is brighter.
    """
    if axis is not None:
        return _band(measurement, axis), 1.0
    if min(measurement.image_shape) >= _CROP * _LEAST_SIDE:
        return _larger_pixels(measurement), float(_CROP)
    return measurement, 1.0


def _band(measurement: Measurement, axis: int) -> Measurement:
    """Return the central rows, or columns for axis 1, with their coil maps."""
    mask, maps, dim = _mask_of(measurement), measurement.coil_maps, axis - 2
    size = mask.shape[dim]
    count = max(math.ceil(size / _PART / _MULTIPLE) * _MULTIPLE, _LEAST_ROWS)
    if count >= size:
        return measurement
    first = size // 2 - count // 2
    rows = torch.fft.ifftshift(measurement.y, dim=dim)
    rows = torch.fft.fftshift(torch.fft.ifft(rows, dim=dim, norm="ortho"), dim=dim)
    rows = torch.fft.ifftshift(rows.narrow(dim, first, count), dim=dim)
    y = torch.fft.fftshift(torch.fft.fft(rows, dim=dim, norm="ortho"), dim=dim)
    mask = mask.narrow(dim, first, count)
    maps = None if maps is None else maps.narrow(dim, first, count)
    return _with(measurement, y * mask, mask, maps)


def _larger_pixels(measurement: Measurement) -> Measurement:
    """Return the center of k-space and coil maps of every second pixel (same field of view).

    FFTs are orthonormal, so images become twice as bright, while the noise of a sample stays equal.
    """
    mask, maps = _mask_of(measurement), measurement.coil_maps
    middle, pixels = [], []
    for n in mask.shape[2:]:
        few = n // _CROP
        middle.append(slice(n // 2 - few // 2, n // 2 - few // 2 + few))
        first = n // 2 - few // 2 * _CROP  # keeps the central pixel in place
        pixels.append(slice(first, first + _CROP * few, _CROP))
    maps = None if maps is None else maps[..., pixels[0], pixels[1]]
    y, mask = (each[..., middle[0], middle[1]] for each in (measurement.y, mask))
    return _with(measurement, y, mask, maps)
