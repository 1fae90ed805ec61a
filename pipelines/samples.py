"""Posterior samples of several slices: their seeds, operators, scale and summary."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import CartesianSense, LinearOperator
from ctxrecon.pipelines.inputs import ArrayLike, Measurement
from ctxrecon.pipelines.output import ReconstructionOutput, convert_images, relative_residual

_SCALE_QUANTILE = 0.99
_SCALE_ITERATIONS = 8


def count_slices(kspace: ArrayLike) -> int:
    """Batch of the k-space, before it has been checked."""
    shape = tuple(getattr(kspace, "shape", ()))
    return shape[0] if len(shape) == 4 else 1


def to_device(measurement: Measurement, device: torch.device) -> Measurement:
    """The measurement on another device."""
    if measurement.kspace.device == device:
        return measurement
    mask = measurement.mask.to(device)
    maps = None if measurement.coil_maps is None else measurement.coil_maps.to(device)
    return Measurement(measurement.kspace.to(device), mask, maps, CartesianSense(mask, maps))


def operator_of(measurement: Measurement, owner: Tensor) -> LinearOperator:
    """The operator of a batch of images, given the slice that each belongs to."""
    operator = measurement.operator
    if operator.batch_size == 1:
        return operator

    def pick(value: Tensor) -> Tensor:
        return value if len(value) == 1 else value[owner]

    maps = measurement.coil_maps
    return CartesianSense(pick(measurement.mask), None if maps is None else pick(maps))


def training_scale(measurement: Measurement) -> Tensor:
    """99 % quantile of a quick CG-SENSE magnitude of each slice, ``(batch,)``."""
    operator = measurement.operator
    image = conjugate_gradient(
        operator.normal, operator.adjoint(measurement.kspace), num_iterations=_SCALE_ITERATIONS
    )
    magnitude = image.abs().flatten(1)
    rank = max(math.ceil(_SCALE_QUANTILE * magnitude.shape[1]), 1)
    scale = magnitude.kthvalue(rank, dim=1).values
    # Fewer than 1 % of the pixels lit, as with point sources: their brightest one is the scale.
    return torch.where(scale > 0, scale, magnitude.amax(dim=1))


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


def summarise(
    samples: Tensor,
    num_samples: int,
    measurement: Measurement,
    output_type: str,
    prompts: Sequence[str] | None,
) -> ReconstructionOutput:
    """Mean, spread and residual of ``(batch · num_samples, ny, nx)`` samples."""
    maps = measurement.coil_maps
    samples = samples.unflatten(0, (-1, num_samples))
    if maps is not None:
        samples = samples * (maps != 0).any(dim=1)[:, None]
    images = samples.mean(dim=1)
    spread = None
    if num_samples > 1:
        deviation = (samples - images[:, None]).abs().square().sum(dim=1)
        spread = (deviation / (num_samples - 1)).sqrt()
    return ReconstructionOutput(
        images=convert_images(images, output_type),
        std=spread,
        samples=samples if num_samples > 1 else None,
        residual=relative_residual(measurement.operator(images), measurement.kspace),
        coil_maps=maps,
        prompts=None if prompts is None else list(prompts),
    )
