"""Batches of slices and samples: their size, seeds, and the output they are put back into."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.measurement import Measurement
from ctxrecon.output import Images, ReconstructionOutput, convert_images, relative_residual

logger = logging.getLogger(__name__)

_FEATURES_AT_ONCE = 24 * 2**20


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


def image_batches(owners: Tensor, sets: Tensor, size: int) -> list[Tensor]:
    """Indices of images in batches of at most ``size``, each of slices with as many sets of maps.

    So a slice is reconstructed in the same way whatever other slices there are.

    Args:
        owners: slice of each image.
        sets: of each slice, as from ``Measurement.number_of_sets``.
        size: images of one set in a batch; those of several sets take as much more memory.
    """
    batches: list[Tensor] = []
    for number in sets[owners].unique().tolist():
        chosen = (sets[owners] == number).nonzero()[:, 0]
        batches += chosen.split(max(size // number, 1))
    return batches


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
    expected_error: Tensor | None = None,
    prompts: Sequence[str] | None = None,
) -> ReconstructionOutput[Images]:
    """Mean, spread and residual of the samples of every slice, after a look at whether they serve.

    Pixels that no coil sees, and slices without signal, are zero.

    Args:
        samples: ``(batch · each, [sets ·] ny, nx)`` complex, those of one slice after the other.
        measurement: what they are samples for.
        output_type: "pt", "np" or "pil".
        expected_error: of a network, ``(batch, [sets ·] ny, nx)``.
        prompts: one for each slice.

    Raises:
        InputError: NaN or infinite values in a result.
    """
    batch, maps = len(measurement), measurement.coil_maps
    inside = ~measurement.empty[:, None, None]
    if maps is not None:
        seen = (maps != 0).any(dim=-3)
        inside = inside & (seen if seen.ndim == 3 else seen.flatten(1, 2))
    samples = samples.unflatten(0, (batch, -1))
    samples = torch.where(inside[:, None], samples, 0)
    mean, number = samples.mean(dim=1), samples.shape[1]
    images = measurement.combine(mean)
    std = None
    if number > 1:
        # Float32 has no squares of values below 1e-19.
        peak = images.abs().flatten(1).amax(dim=1)[:, None, None]
        peak = torch.where(peak > 0, peak, 1.0)
        deviation = (samples - mean[:, None]) / peak[:, None]
        std = measurement.combine(
            peak * (deviation.abs().square().sum(dim=1) / (number - 1)).sqrt()
        )
        samples = torch.stack([measurement.combine(each) for each in samples.unbind(1)], dim=1)
    if expected_error is not None:
        expected_error = measurement.combine(torch.where(inside, expected_error, 0))
    check_finite(images, std, expected_error)
    residual = relative_residual(measurement.operator(mean), measurement.y)
    report(residual, measurement.empty)
    return ReconstructionOutput(
        images=convert_images(images, output_type),
        std=std,
        expected_error=expected_error,
        samples=samples if number > 1 else None,
        residual=residual,
        coil_maps=maps,
        prompts=None if prompts is None else list(prompts),
    )


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
