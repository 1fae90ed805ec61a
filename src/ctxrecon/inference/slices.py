"""Slices of a measurement: their selection, scale, seeds, and the output they are put back into."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.measurement import ArrayLike, Measurement
from ctxrecon.operators import combine_sets, sense_operator
from ctxrecon.output import ReconstructionOutput, convert_images, relative_residual

logger = logging.getLogger(__name__)

_FEATURES_AT_ONCE = 24 * 2**20
_SCALE_QUANTILE = 0.99
_SCALE_ITERATIONS = 8
# Normalized maps are that near to a root sum of squares of 1 whoever estimated them.
_NEARLY_NORMALIZED = 0.02


def named_bar(pipeline: Any, name: str, total: int) -> Any:
    """The pipeline's progress bar with the name of what runs, unless the user gave it another."""
    chosen = dict(getattr(pipeline, "_progress_bar_config", {}))
    pipeline.set_progress_bar_config(**{"desc": name, **chosen})
    try:
        return pipeline.progress_bar(total=total)
    finally:
        pipeline.set_progress_bar_config(**chosen)


def images_at_once(features: int, image: Sequence[int], copies: int = 1) -> int:
    """How many images a network takes at once without much memory; at least one.

    Features of full size are what fills memory, about 26 of each in a U-Net's evaluation: 2.5 GB
    in float32 by the limit here. Larger batches are hardly faster, on CPUs nor on GPUs.

    Args:
        features: of the network, at full size.
        image: ``(ny, nx)``.
        copies: evaluations of each image at once, two with guidance.
    """
    return max(_FEATURES_AT_ONCE // (features * copies * math.prod(image)), 1)


def count_slices(kspace: ArrayLike | Measurement) -> int:
    """Batch of the k-space, before it has been checked."""
    if isinstance(kspace, Measurement):
        return len(kspace)
    shape = tuple(getattr(kspace, "shape", ()))
    if len(shape) == 4 and shape[0] == 0:
        raise InputError(f"expected at least one slice, got k-space of the empty shape {shape}")
    return shape[0] if len(shape) == 4 else 1


def to_device(measurement: Measurement, device: torch.device) -> Measurement:
    """The measurement on another device."""
    if measurement.kspace.device == device:
        return measurement
    mask = measurement.mask.to(device)
    maps = None if measurement.coil_maps is None else measurement.coil_maps.to(device)
    return replace(
        measurement,
        kspace=measurement.kspace.to(device),
        mask=mask,
        coil_maps=maps,
        operator=sense_operator(mask, maps),
        empty=measurement.empty.to(device),
        noise_std=None if measurement.noise_std is None else measurement.noise_std.to(device),
    )


def select(measurement: Measurement, slices: Tensor) -> Measurement:
    """The measurement of some slices, each as often as its index is in ``slices``.

    Sets of coil maps that are zero in all of them are left out.
    """

    def pick(value: Tensor) -> Tensor:
        return value if len(value) == 1 else value[slices]

    kspace, empty = measurement.kspace[slices], measurement.empty[slices]
    mask, maps, operator = measurement.mask, measurement.coil_maps, measurement.operator
    if operator.batch_size > 1:
        mask, maps = pick(mask), None if maps is None else pick(maps)
        if maps is not None and maps.ndim == 5:
            number = int(_used_sets(maps).amax())
            maps = maps[:, 0] if number == 1 else maps[:, :number]
        operator = sense_operator(mask, maps)
    noise_std = None if measurement.noise_std is None else measurement.noise_std[slices]
    return Measurement(kspace, mask, maps, operator, empty, noise_std)


def number_of_sets(measurement: Measurement) -> Tensor:
    """How many sets of coil maps each slice has that are not zero, ``(batch,)``."""
    maps, batch = measurement.coil_maps, len(measurement.kspace)
    if maps is None or maps.ndim == 4:
        return torch.ones(batch, dtype=torch.long, device=measurement.kspace.device)
    return _used_sets(maps).expand(batch)


def _used_sets(maps: Tensor) -> Tensor:
    used = (maps != 0).flatten(2).any(dim=2)
    index = torch.arange(1, maps.shape[1] + 1, device=maps.device)
    return (used * index).amax(dim=1).clamp_min(1)


def image_batches(owners: Tensor, sets: Tensor, size: int) -> list[Tensor]:
    """Indices of images in batches of at most ``size``, each of slices with as many sets of maps.

    So a slice is reconstructed in the same way whatever other slices there are.

    Args:
        owners: slice of each image.
        sets: of each slice, as from :func:`number_of_sets`.
        size: images of one set in a batch; those of several sets take as much more memory.
    """
    batches: list[Tensor] = []
    for number in sets[owners].unique().tolist():
        chosen = (sets[owners] == number).nonzero()[:, 0]
        batches += chosen.split(max(size // number, 1))
    return batches


def filled_slices(measurement: Measurement) -> Tensor:
    """Indices of the slices that hold signal; the others are left out of all work."""
    return (~measurement.empty).nonzero()[:, 0]


def put_back(values: Sequence[Tensor], index: Tensor, like: Tensor) -> Tensor:
    """``like`` with the items of ``values`` at ``index``, and zero elsewhere.

    Args:
        values: batches ``(…, rows, nx)``; those of fewer sets of maps have fewer rows.
        index: where each of their items belongs.
        like: ``(count, rows, nx)``, whose shape, type and device the result has.
    """
    result = torch.zeros_like(like)
    first = 0
    for batch in values:
        result[index[first : first + len(batch)], : batch.shape[1]] = batch
        first += len(batch)
    return result


def normalize_maps(measurement: Measurement) -> tuple[Measurement, Tensor]:
    """The same images to be found from maps with ``max Σ_c |S_c|² = 1``.

    Solvers and networks weigh the data for such maps. ``A x = y`` and ``(A/g) x = y/g`` have the
    same solution, so maps in other units, or ones for every coil, only need both divided.

    Returns:
        The measurement, and what its k-space was divided by, ``(batch or 1,)``.
    """
    maps = measurement.coil_maps
    if maps is None:
        return measurement, torch.ones(1, device=measurement.kspace.device)
    gain = maps_gain(maps)
    if bool((gain == 1).all()):
        return measurement, gain
    operator = sense_operator(measurement.mask, maps / gain[(...,) + (None,) * (maps.ndim - 1)])
    normalized = replace(
        measurement,
        kspace=measurement.kspace / gain[:, None, None, None],
        coil_maps=operator.coil_maps,
        operator=operator,
    )
    return normalized, gain


def maps_gain(coil_maps: Tensor) -> Tensor:
    """``√max Σ_c |S_c|²`` of each slice's maps, ``(batch,)``; 1 where they are normalized or zero.

    Another value is logged.
    """
    peak = coil_maps.abs().flatten(1).amax(dim=1)
    peak = torch.where(peak > 0, peak, 1.0)
    relative = coil_maps.abs() / peak[(...,) + (None,) * (coil_maps.ndim - 1)]
    energy = relative.square().sum(dim=-3).flatten(1).amax(dim=1)
    gain = peak * energy.sqrt()
    known = ((gain - 1).abs() <= _NEARLY_NORMALIZED) | (energy == 0)
    if not bool(known.all()):
        logger.info(
            "the coil maps have a root sum of squares of up to %.3g: they and k-space are divided "
            "by it",
            float(gain.amax()),
        )
    return torch.where(known, 1.0, gain)


def training_scale(measurement: Measurement) -> Tensor:
    """99 % quantile of a quick CG-SENSE magnitude of each slice, ``(batch,)``; 1 if it is empty."""
    filled = filled_slices(measurement)
    scale = torch.ones(len(measurement.kspace), device=measurement.kspace.device)
    if len(filled) == 0:
        return scale
    if len(filled) < len(scale):
        measurement = select(measurement, filled)
    operator = measurement.operator
    image = conjugate_gradient(
        operator.normal, operator.adjoint(measurement.kspace), num_iterations=_SCALE_ITERATIONS
    )
    image = combined(image, measurement)
    magnitude = image.abs().flatten(1)
    rank = max(math.ceil(_SCALE_QUANTILE * magnitude.shape[1]), 1)
    found = magnitude.kthvalue(rank, dim=1).values
    # Fewer than 1 % of the pixels lit, as with point sources: their brightest one is the scale.
    found = torch.where(found > 0, found, magnitude.amax(dim=1))
    scale[filled] = torch.where(found > 0, found, 1.0)
    return scale


def spawn_generators(
    generator: torch.Generator | list[torch.Generator] | None, slices: int, each: int
) -> list[torch.Generator]:
    """One generator for each sample of each slice, seeded in order from those given.

    Each sample then has its own stream of noise, however samples are batched.
    """

    def spawn(parent: torch.Generator | None) -> torch.Generator:
        device = torch.device("cpu") if parent is None else parent.device
        seed = int(torch.randint(2**62, (), generator=parent, device=device))
        return torch.Generator(device).manual_seed(seed)

    parents = generator if isinstance(generator, list) else [generator] * slices
    return [spawn(parent) for parent in parents for _ in range(each)]


def conclude(
    samples: Tensor,
    measurement: Measurement,
    output_type: str,
    *,
    std: Tensor | None = None,
    prompts: Sequence[str] | None = None,
) -> ReconstructionOutput:
    """Mean, spread and residual of the samples of every slice, after a look at whether they serve.

    Pixels that no coil sees, and slices without signal, are zero.

    Args:
        samples: ``(batch · each, [sets ·] ny, nx)`` complex, those of one slice after the other.
        measurement: what they are samples for.
        output_type: "pt", "np" or "pil".
        std: ``(batch, [sets ·] ny, nx)``, where it is not that of the samples.
        prompts: one for each slice.

    Raises:
        InputError: NaN or infinite values in a result.
    """
    batch, maps = len(measurement.kspace), measurement.coil_maps
    inside = ~measurement.empty[:, None, None]
    if maps is not None:
        seen = (maps != 0).any(dim=-3)
        inside = inside & (seen if seen.ndim == 3 else seen.flatten(1, 2))
    samples = samples.unflatten(0, (batch, -1))
    samples = torch.where(inside[:, None], samples, 0)
    mean, number = samples.mean(dim=1), samples.shape[1]
    images = combined(mean, measurement)
    if number > 1:
        # Float32 has no squares of values below 1e-19.
        peak = images.abs().flatten(1).amax(dim=1)[:, None, None]
        peak = torch.where(peak > 0, peak, 1.0)
        deviation = (samples - mean[:, None]) / peak[:, None]
        std = peak * (deviation.abs().square().sum(dim=1) / (number - 1)).sqrt()
        samples = torch.stack([combined(each, measurement) for each in samples.unbind(1)], dim=1)
    elif std is not None:
        std = torch.where(inside, std, 0)
    if std is not None:
        std = combined(std, measurement)
    check_finite(images, std)
    residual = relative_residual(measurement.operator(mean), measurement.kspace)
    report(residual, measurement.empty)
    return ReconstructionOutput(
        images=convert_images(images, output_type),
        std=std,
        samples=samples if number > 1 else None,
        residual=residual,
        coil_maps=maps,
        prompts=None if prompts is None else list(prompts),
    )


def combined(images: Tensor, measurement: Measurement) -> Tensor:
    """``(batch, ny, nx)`` of images whose sets lie one below the other; others as they are."""
    if images.shape[1] == measurement.kspace.shape[2]:
        return images
    return combine_sets(images.unflatten(1, (-1, measurement.kspace.shape[2])))


def check_finite(*results: Tensor | None) -> None:
    """Refuse results ``(batch, …, ny, nx)`` of which a slice is not finite.

    Raises:
        InputError: naming the slices.
    """
    for result in results:
        if result is None:
            continue
        broken = ~torch.isfinite(result.abs()).flatten(-2).all(dim=-1)
        if bool(broken.any()):
            raise InputError(
                f"expected a finite image, got NaN or infinite values in {_listed(broken)}: look "
                "at the network's weights and precision, the guidance, the solver's options and "
                "the coil maps"
            )


def report(residual: Tensor, empty: Tensor) -> None:
    """Log the slices without signal, and those whose image is worse than none.

    Args:
        residual: ``‖A x − y‖/‖y‖``, ``(batch,)`` or ``(batch, contrasts)``.
        empty: of the same shape, bool.
    """
    if bool(empty.any()):
        logger.warning("no signal above the noise in %s: the image is zero there", _listed(empty))
    worse = (residual > 1) & ~empty
    if bool(worse.any()):
        logger.warning(
            "the data residual ‖A x − y‖/‖y‖ is above 1, that of an empty image, in %s (%s): look "
            "at the noise, the coil maps, the mask, the scale of the data and the guidance",
            _listed(worse),
            ", ".join(f"{value:.3g}" for value in residual[worse].tolist()),
        )


def _listed(chosen: Tensor) -> str:
    """``slice 3``, ``slices 1, 3`` or ``slices 1 (contrast 0), 3 (contrast 2)``, from 0 on."""
    places = [
        str(slice_) + "".join(f" (contrast {contrast})" for contrast in contrasts)
        for slice_, *contrasts in chosen.nonzero().tolist()
    ]
    return f"slice{'s' * (len(places) > 1)} {', '.join(places)}"
