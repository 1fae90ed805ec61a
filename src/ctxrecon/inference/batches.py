"""Batches of slices and samples: their sizes and seeds, and the assembled output."""

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


def named_progress_bar(pipeline: Any, name: str, total: int, *, hidden: bool = False) -> Any:
    """Return the pipeline's progress bar with a name; what the user set comes first.

    Args:
        pipeline: Pipeline with the methods of diffusers for progress bars.
        name: Name shown before the bar.
        total: Number of steps.
        hidden: Whether the bar is not shown.
    """
    chosen = dict(getattr(pipeline, "_progress_bar_config", {}))
    defaults = {"desc": name, "disable": True} if hidden else {"desc": name}
    pipeline.set_progress_bar_config(**{**defaults, **chosen})
    try:
        return pipeline.progress_bar(total=total)
    finally:
        pipeline.set_progress_bar_config(**chosen)


def images_at_once(features: int, image: Sequence[int], copies: int = 1) -> int:
    """Return how many images are processed at once with little memory; at least one.

    The memory of a network is dominated by full-resolution features, about 26 of each in a U-Net
    evaluation: 2.5 GB in float32 at this limit. Iterative methods keep fewer copies of their data.
    Larger batches are hardly faster on CPUs or GPUs.

    Args:
        features: Number of feature maps of the network at full resolution, or of real numbers for
            each sample.
        image: Image shape ``(ny, nx)``, or shape of the data.
        copies: Evaluations per image, two with guidance.
    """
    return max(_FEATURES_AT_ONCE // (features * copies * math.prod(image)), 1)


def image_batches(owners: Tensor, sets: Tensor, size: int) -> list[Tensor]:
    """Split image indices into batches of at most ``size`` slices with equal numbers of map sets.

    The reconstruction of a slice therefore does not depend on the other slices.

    Args:
        owners: Slice index of each image.
        sets: Number of coil-map sets per slice, as from ``Measurement.number_of_sets``.
        size: Images per batch for one set; images with several sets count as many times.
    """
    batches: list[Tensor] = []
    for number in sets[owners].unique().tolist():
        chosen = (sets[owners] == number).nonzero()[:, 0]
        batches += chosen.split(max(size // number, 1))
    return batches


def scatter_slices(values: Sequence[Tensor], index: Tensor, like: Tensor) -> Tensor:
    """Return a tensor like ``like`` with the items of ``values`` at ``index`` and zeros elsewhere.

    Args:
        values: Batches of shape ``(…, rows, nx)``; items with fewer map sets have fewer rows.
        index: Index of each item in the result.
        like: Tensor ``(count, rows, nx)`` with the shape, type and device of the result.
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
    """Spawn one generator per sample of each slice, seeded in order from the given ones.

    Each sample has its own noise, independent of how samples are batched.
    """

    def spawn(parent: torch.Generator | None) -> torch.Generator:
        device = torch.device("cpu") if parent is None else parent.device
        seed = int(torch.randint(2**62, (), generator=parent, device=device))
        return torch.Generator(device).manual_seed(seed)

    parents = generator if isinstance(generator, list) else [generator] * slices
    return [spawn(parent) for parent in parents for _ in range(each)]


def slice_generators(seed: int, numbers: Sequence[int]) -> list[torch.Generator]:
    """Return one generator for each slice, from a seed and the slice's number in its volume.

    Random numbers of a slice thus do not depend on which other slices are selected.
    """
    source = torch.Generator().manual_seed(seed)
    seeds = torch.randint(2**62, (max(numbers) + 1,), generator=source).tolist()
    return [torch.Generator().manual_seed(seeds[number]) for number in numbers]


def build_output(
    samples: Tensor,
    measurement: Measurement,
    output_type: str,
    *,
    expected_error: Tensor | None = None,
    prompts: Sequence[str] | None = None,
) -> ReconstructionOutput[Images]:
    """Validate the samples of every slice, and return their mean, deviation and residual.

    Pixels outside all coil maps and slices without signal are set to zero.

    Args:
        samples: Complex samples of shape ``(batch · each, [sets ·] ny, nx)``, ordered by slice.
        measurement: Measurement that the samples reconstruct.
        output_type: Type of the images: "pt", "np" or "pil".
        expected_error: Error predicted by a network, ``(batch, [sets ·] ny, nx)``.
        prompts: Prompts, one per slice.

    Raises:
        InputError: If a result contains NaN or infinite values.
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
        # Scaled, because squares of values below 1e-19 underflow in float32.
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
    log_residuals(residual, measurement.empty)
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
    """Validate that results ``(batch, …, ny, nx)`` are finite in every slice.

    Raises:
        InputError: If they are not, with the slices in the message.
    """
    for result in results:
        if result is None:
            continue
        broken = ~torch.isfinite(result.abs()).flatten(-2).all(dim=-1)
        if bool(broken.any()):
            raise InputError(
                f"expected a finite image, got NaN or infinite values in {_listed(broken)}: check "
                "the network's weights and precision, the guidance, the solver's options and "
                "the coil maps"
            )


def log_residuals(residual: Tensor, empty: Tensor) -> None:
    """Log slices without signal, and slices with a larger residual than an empty image.

    Args:
        residual: ``‖A x − y‖/‖y‖``, ``(batch,)`` or ``(batch, contrasts)``.
        empty: Mask of the slices without signal, bool, of the same shape.
    """
    if bool(empty.any()):
        logger.warning("no signal above the noise in %s: the image is set to zero", _listed(empty))
    worse = (residual > 1) & ~empty
    if bool(worse.any()):
        logger.warning(
            "the data residual ‖A x − y‖/‖y‖ is above 1, that of an empty image, in %s (%s): check "
            "the noise, the coil maps, the mask, the scale of the data and the guidance",
            _listed(worse),
            ", ".join(f"{value:.3g}" for value in residual[worse].tolist()),
        )


def _listed(chosen: Tensor) -> str:
    """Format indices: ``slice 3``, ``slices 1, 3`` or ``slices 1 (contrast 0), 3 (contrast 2)``."""
    places = [
        str(slice_) + "".join(f" (contrast {contrast})" for contrast in contrasts)
        for slice_, *contrasts in chosen.nonzero().tolist()
    ]
    return f"slice{'s' * (len(places) > 1)} {', '.join(places)}"
