"""How far the prior is trusted, chosen by how well samples are predicted that are held back."""

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
"""Candidates, as factors of the noise level; the first is that of a prior that is right."""

_EVERY = 5  # one of so many outer lines or points is held back
_LEAST_LINES, _LEAST_POINTS = 2, 64
# Which samples are held back is chance: another factor than the first has to predict them better
# by more than this.
_GAIN_OF_ANOTHER = 0.93
_STEP = 2  # one of so many timesteps is taken
_PART = 4  # one of so many rows is in the band
_LEAST_ROWS, _MULTIPLE = 48, 16
_CROP = 2  # pixels of a side that become one
_LEAST_SIDE = 64  # of an image of fewer pixels


def may_choose(solver: DiffusionSolver, noise_std: object) -> bool:
    """Whether the data are asked how far this solver trusts the prior.

    Args:
        solver: that runs; a data weight that it was given is never overruled.
        noise_std: as in the pipeline's call; only "auto" asks, in place of a level of the solver.
    """
    takes_weight = solver.default_noise_std is not None or solver.weight_is_open
    return isinstance(noise_std, str) and takes_weight and not solver.couples_batch


def choose_factors(
    diffusion: Diffusion,
    solver: DiffusionSolver,
    steps: Sequence[int],
    noise: Tensor | None,
    noise_std: object = "auto",
) -> Tensor | None:
    """Factor of each slice's noise level by which held-back samples are predicted best.

    Noise alone says how far to trust a prior that is right; one that is wrong is to be trusted
    less. Some samples (:func:`held_back`) are predicted from the others with each of
    :data:`FACTORS`, all of them in one batch, with half of the timesteps, ending with the last, and
    for a part of the image (:func:`part_of`), so that it takes less than half of the time of a
    reconstruction. A factor other than 1 has to predict clearly better. The choice of a slice
    depends neither on the other slices of the batch nor on the generators of the call, and is
    logged.

    Args:
        diffusion: the measurement of all slices, their conditions and their scale.
        solver: whose trust in the prior is chosen.
        steps: training timesteps of the reconstruction.
        noise: standard deviation of each slice's samples, ``(batch,)``; ``None`` for solvers that
            weigh the data without.
        noise_std: as in the pipeline's call; see :func:`may_choose`.

    Returns:
        ``(batch,)``, 1 for slices of which too little can be held back; ``None`` if that is so for
        all of them, or where the data are not asked.
    """
    if not may_choose(solver, noise_std):
        return None
    work = diffusion.work
    assert work.mask is not None  # by which the noise was estimated
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
        logger.info("trust in the prior is not chosen: too few samples can be held back")
        return None
    best = torch.where(rated, best_candidate(errors.nan_to_num()), 0)
    logger.info(
        "trust in the prior by held-back samples: %s",
        "; ".join(
            f"noise × {FACTORS[index]:g} (error {100 * found[index] ** 0.5:.1f} %, with noise × 1 "
            f"{100 * found[0] ** 0.5:.1f} %)"
            for index, found in zip(best[rated].tolist(), errors[rated].tolist(), strict=True)
        ),
    )
    return torch.tensor(FACTORS, device=work.y.device)[best]


def _part(diffusion: Diffusion, slices: Tensor, measurement: Measurement, gain: float) -> Diffusion:
    """What runs for part of the image of some slices, ``gain`` times as bright."""
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
    """:func:`prediction_errors` with each factor; see :func:`choose_factors`."""
    device = part.work.y.device
    factors = torch.tensor(FACTORS, device=device).repeat(len(part.work))
    # The same random numbers for every slice and candidate, whatever the call's generators.
    generators = [torch.Generator().manual_seed(0) for _ in factors]
    shape = (len(factors), 2, *part.crop.domain_shape[1:])
    latents = randn_tensor(shape, generator=generators, device=device, dtype=torch.float32)

    def reconstruct(kept: Measurement) -> Tensor:
        return replace(part, work=kept).run(
            "trust in the prior",
            solver,
            list(steps)[::-_STEP][::-1],
            latents,
            noise,
            factors=factors,
            generators=generators,
        )

    return prediction_errors(part.work, held, reconstruct)


def held_back(mask: Tensor) -> Tensor:
    """Samples to predict, ``(batch or 1, 1, ny, nx)`` bool: those of a slice depend on its mask.

    Every fifth line outside the calibration region, or a random fifth of the points of a mask that
    is no set of lines; none where that leaves fewer than two lines or 64 points.

    Args:
        mask: ``(batch or 1, 1, ny, nx)`` bool.
    """
    return torch.stack([_held_back(sampled)[None] for sampled in mask[:, 0]])


def _held_back(sampled: Tensor) -> Tensor:
    """The same for one mask ``(ny, nx)``."""
    held = torch.zeros_like(sampled)
    try:
        region = find_calibration_region(sampled)
    except InputError:
        return held
    axis = _line_axis(sampled)
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
    # An order, not a draw of each point, which could be the draw that made the mask.
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    places = places[order[: len(places) // _EVERY].to(places.device)]
    if len(places) >= _LEAST_POINTS:
        held.view(-1)[places] = True
    return held


def _line_axis(sampled: Tensor) -> int | None:
    """Axis along which the lines of a mask ``(ny, nx)`` are chosen; ``None`` if it has none."""
    rows, columns = sampled.any(dim=1), sampled.any(dim=0)
    if not bool((rows[:, None] & columns == sampled).all()):
        return None
    return 1 if float(columns.float().mean()) <= float(rows.float().mean()) else 0


def _full_axis(sampled: Tensor) -> int | None:
    """Axis along which every line of a mask ``(ny, nx)`` is complete, the readout."""
    axis = _line_axis(sampled)
    return 1 - axis if axis is not None and bool(sampled.any(dim=axis).all()) else None


def prediction_errors(
    measurement: Measurement, held: Tensor, reconstruct: Callable[[Measurement], Tensor]
) -> Tensor:
    """``‖H (A x̂ − y)‖² / ‖H y‖²`` of every candidate ``x̂``, ``(batch, candidates)``.

    Args:
        measurement: y.
        held: H, ``(batch or 1, 1, ny, nx)`` bool, in which every slice has samples.
        reconstruct: makes the candidates of the measurement without these samples,
            ``(batch · candidates, [sets ·] ny, nx)``, those of one slice after the other.
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
    """Index of the smallest of ``(batch, candidates)``; another than the first if clearly so."""
    rated = errors.clone()
    rated[:, 0] *= _GAIN_OF_ANOTHER
    return rated.argmin(dim=1)


def _mask_of(measurement: Measurement) -> Tensor:
    """The mask of k-space on a grid, ``(batch or 1, 1, ny, nx)``."""
    assert measurement.mask is not None
    return measurement.mask


def _masked(measurement: Measurement, mask: Tensor) -> Measurement:
    """The measurement with part of its samples."""
    return _with(measurement, measurement.y * mask, mask, measurement.coil_maps)


def _with(measurement: Measurement, y: Tensor, mask: Tensor, maps: Tensor | None) -> Measurement:
    """Other samples of the same slices."""
    maps = None if maps is None else maps.contiguous()
    mask = mask.contiguous()
    operator = sense_operator(mask, maps)
    return replace(measurement, y=y.contiguous(), mask=mask, coil_maps=maps, operator=operator)


def part_of(measurement: Measurement, axis: int | None) -> tuple[Measurement, float]:
    """A measurement of a part of the image that takes a quarter of the time, where there is one.

    Where lines are complete the transform along them separates the rows of the image, of which a
    band around the middle is taken: a quarter of them, 48 at least. Otherwise it is the middle of
    k-space, that is larger pixels, where that leaves 64 of them a side.

    Args:
        measurement: of slices with masks of one kind.
        axis: 0 or 1, of ``(ny, nx)``, along which the lines are complete; ``None`` if they are not.

    Returns:
        The measurement, and how much brighter its image is.
    """
    if axis is not None:
        return _band(measurement, axis), 1.0
    if min(measurement.image_shape) >= _CROP * _LEAST_SIDE:
        return _larger_pixels(measurement), float(_CROP)
    return measurement, 1.0


def _band(measurement: Measurement, axis: int) -> Measurement:
    """The rows in the middle, or the columns for axis 1, with coil maps of their own."""
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
    """The middle of k-space, with coil maps of every second pixel: the same field of view.

    Transforms are orthonormal, so images become twice as bright, while the noise of a sample stays.
    """
    mask, maps = _mask_of(measurement), measurement.coil_maps
    middle, pixels = [], []
    for n in mask.shape[2:]:
        few = n // _CROP
        middle.append(slice(n // 2 - few // 2, n // 2 - few // 2 + few))
        first = n // 2 - few // 2 * _CROP  # the pixel in the middle stays there
        pixels.append(slice(first, first + _CROP * few, _CROP))
    maps = None if maps is None else maps[..., pixels[0], pixels[1]]
    y, mask = (each[..., middle[0], middle[1]] for each in (measurement.y, mask))
    return _with(measurement, y, mask, maps)
