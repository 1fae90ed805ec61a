"""How far the prior is trusted, chosen by how well samples are predicted that are held back."""

from __future__ import annotations

import logging
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
_CROP = 2  # pixels of a side that become one
_LEAST_SIDE = 64  # of an image of fewer pixels


def may_choose(solver: DiffusionSolver, noise_std: object) -> bool:
    """Whether the data are asked how far this solver trusts the prior.

    Args:
        solver: one of a level or weight of its own is never overruled.
        noise_std: as in the pipeline's call; only "auto" asks.
    """
    takes_weight = solver.default_noise_std is not None or solver.weight_is_open
    return isinstance(noise_std, str) and takes_weight and not solver.couples_batch


def choose_factors(
    diffusion: Diffusion, solver: DiffusionSolver, steps: Sequence[int], noise: Tensor | None
) -> Tensor | None:
    """Factor of each slice's noise level by which held-back samples are predicted best.

    Noise alone says how far to trust a prior that is right; one that is wrong is to be trusted
    less. Some samples (:func:`held_back`) are predicted from the others with each of
    :data:`FACTORS`, all of them in one batch: from the middle of k-space, at half of the resolution
    where that leaves 64 pixels a side, and with half of the timesteps, ending with the last, so
    that it takes less than half of the time of a reconstruction. A factor other than 1 has to
    predict clearly better. The choice of a slice depends neither on the other slices of the batch
    nor on the generators of the call, and is logged.

    Args:
        diffusion: the measurement of all slices, their conditions and their scale.
        solver: whose trust in the prior is chosen.
        steps: training timesteps of the reconstruction.
        noise: standard deviation of each slice's samples, ``(batch,)``; ``None`` for solvers that
            weigh the data without.

    Returns:
        ``(batch,)``, 1 for slices of which too little can be held back; ``None`` if that is so for
        all of them.
    """
    work = diffusion.work
    assert work.mask is not None  # by which the noise was estimated
    small = min(work.image_shape) >= _CROP * _LEAST_SIDE
    work = cropped(work) if small else work
    held = held_back(work.mask).to(work.y.device)
    todo = ((held & (work.y != 0)).flatten(1).any(dim=1) & ~work.empty).nonzero()[:, 0]
    if len(todo) == 0:
        logger.info("trust in the prior is not chosen: too few samples can be held back")
        return None
    embeds, uncond_embeds, gamma = diffusion.conditions
    part = replace(
        diffusion,
        work=work[todo],
        scale=diffusion.scale[todo] * (_CROP if small else 1),
        conditions=(None if embeds is None else embeds[todo], uncond_embeds, gamma),
        crop=diffusion.prior.padding(work.image_shape),
    )
    number = len(FACTORS)
    candidates = torch.tensor(FACTORS, device=work.y.device)
    level = None if noise is None else noise[todo]
    few = list(steps)[::-_STEP][::-1]

    def reconstruct(kept: Measurement) -> Tensor:
        # The same random numbers for every slice and candidate, whatever the call's generators.
        generators = [torch.Generator().manual_seed(0) for _ in range(number * len(kept))]
        shape = (len(generators), 2, *part.crop.domain_shape[1:])
        return replace(part, work=kept).run(
            "trust in the prior",
            solver,
            few,
            randn_tensor(shape, generator=generators, device=work.y.device, dtype=torch.float32),
            level,
            factors=candidates.repeat(len(kept)),
            generators=generators,
        )

    errors = prediction_errors(part.work, held[todo] if len(held) > 1 else held, reconstruct)
    best = best_candidate(errors)
    factors = torch.ones(len(work), device=work.y.device)
    factors[todo] = candidates[best]
    logger.info(
        "trust in the prior by held-back samples: %s",
        "; ".join(
            f"noise × {FACTORS[index]:g} (error {100 * found[index] ** 0.5:.1f} %, with noise × 1 "
            f"{100 * found[0] ** 0.5:.1f} %)"
            for index, found in zip(best.tolist(), errors.tolist(), strict=True)
        ),
    )
    return factors


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
    rows, columns = sampled.any(dim=1), sampled.any(dim=0)
    if bool((rows[:, None] & columns == sampled).all()):
        axis = 1 if float(columns.float().mean()) <= float(rows.float().mean()) else 0
        outer = (rows, columns)[axis].clone()
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
    assert measurement.mask is not None
    images = reconstruct(_masked(measurement, measurement.mask & ~held))
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


def _masked(measurement: Measurement, mask: Tensor) -> Measurement:
    """The measurement with part of its samples."""
    operator = sense_operator(mask, measurement.coil_maps)
    return replace(measurement, y=measurement.y * mask, mask=mask, operator=operator)


def cropped(measurement: Measurement) -> Measurement:
    """The middle of k-space, with coil maps of every second pixel: the same field of view.

    Transforms are orthonormal, so images become twice as bright, while the noise of a sample stays.
    """
    mask, maps = measurement.mask, measurement.coil_maps
    assert mask is not None
    middle, pixels = [], []
    for n in mask.shape[2:]:
        few = n // _CROP
        middle.append(slice(n // 2 - few // 2, n // 2 - few // 2 + few))
        first = n // 2 - few // 2 * _CROP  # the pixel in the middle stays there
        pixels.append(slice(first, first + _CROP * few, _CROP))
    window = (..., *middle)
    maps = None if maps is None else maps[(..., *pixels)].contiguous()
    y, mask = measurement.y[window].contiguous(), mask[window].contiguous()
    operator = sense_operator(mask, maps)
    return replace(measurement, y=y, mask=mask, coil_maps=maps, operator=operator)
