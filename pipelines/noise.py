"""What is known of the measurement's noise: told to the solver, and held against the result."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.noise import estimate_noise_std
from ctxrecon.pipelines.inputs import Measurement
from ctxrecon.solvers import SOLVERS, Solver

logger = logging.getLogger(__name__)

NoiseStd: TypeAlias = "float | Sequence[float] | Tensor | str"

# Maps that are a little off, or too few iterations, do not make so much.
_LARGEST_RATIO = 2.0


def check_noise(
    noise_std: NoiseStd | None, slices: int, solver: Solver, image: object = None
) -> None:
    """Refuse a noise level that is none, or that nothing that runs has a use for.

    Args:
        noise_std: as in the pipeline's call.
        slices: how many there are.
        solver: that runs.
        image: that it starts from, which may be that of a solver which knows noise.

    Raises:
        InputError: for each, in a sentence of its own.
    """
    if noise_std is None:
        return
    first = SOLVERS.get(image) if isinstance(image, str) else None
    if not (hasattr(solver, "noise_std") or hasattr(first, "noise_std")):
        raise InputError(
            f"{type(solver).__name__} knows nothing of noise: leave noise_std out, or take a "
            "solver such as PnPADMM or DiffPIR"
        )
    if isinstance(noise_std, str):
        if noise_std != "auto":
            raise InputError(f"expected noise_std as numbers or 'auto', got {noise_std!r}")
        return
    values = torch.as_tensor(noise_std, dtype=torch.float32).flatten()
    if len(values) not in (1, slices) or not bool((values.isfinite() & (values > 0)).all()):
        raise InputError(
            f"expected noise_std as one positive number or one for each of the {slices} slices, "
            f"got {noise_std}"
        )


def noise_of(noise_std: NoiseStd, measurement: Measurement) -> Tensor:
    """Standard deviation of a k-space sample of each slice, ``(batch,)``, in the scan's units."""
    kspace = measurement.kspace
    if isinstance(noise_std, str):
        found = estimate_noise_std(kspace, measurement.mask)
        logger.info("noise estimated from the scan: %s", [float(f"{v:.3g}") for v in found])
        return found.clamp(min=torch.finfo(torch.float32).tiny)
    values = torch.as_tensor(noise_std, dtype=torch.float32, device=kspace.device).flatten()
    return values.expand(len(kspace))


def with_noise(solver: Solver, noise_std: Tensor | None) -> Solver:
    """The solver, told the noise of the images of a batch, in the units that it works in.

    One that takes no noise, or is told none, stays as it is.
    """
    if noise_std is None or not hasattr(solver, "noise_std"):
        return solver
    told: Any = dataclasses.replace(solver, noise_std=noise_std)  # type: ignore[type-var]
    return told


def noise_ratio(measurement: Measurement, residual: Tensor, noise_std: Tensor) -> Tensor:
    """``‖A x − y‖ / (σ √m)`` of each slice, m the number of samples: at most 1 if all is well.

    An image of n pixels fits the noise of as many samples, so ``√(1 − n/m)`` is what to expect.

    Args:
        measurement: y.
        residual: ``‖A x − y‖ / ‖y‖``, ``(batch,)``.
        noise_std: σ of a complex sample, ``(batch,)``.
    """
    error = residual * measurement.kspace.flatten(1).norm(dim=1)
    return error / (noise_std * _samples(measurement).sqrt())


def warn_of_residual(measurement: Measurement, residual: Tensor, noise_std: Tensor) -> None:
    """Log a warning for slices whose data residual the stated noise does not explain.

    Twice as much as the noise has is too much, and half of what an image that fits as much of the
    noise as it can leaves is too little. For the arguments see :func:`noise_ratio`.
    """
    ratios = noise_ratio(measurement, residual, noise_std)
    pixels = math.prod(measurement.kspace.shape[2:])
    least = (1 - pixels / _samples(measurement)).clamp(min=0).sqrt() / _LARGEST_RATIO
    for index, (ratio, lower) in enumerate(zip(ratios.tolist(), least.tolist(), strict=True)):
        if lower <= ratio <= _LARGEST_RATIO or bool(measurement.empty[index]):
            continue
        reason = (
            "does not explain the data: look at the coil maps, the mask and motion"
            if ratio > _LARGEST_RATIO
            else "follows the noise: the noise that was stated is too high"
        )
        logger.warning(
            "slice %d: the residual is %.3g times that of noise of %.3g, so the image %s",
            *(index, ratio, float(noise_std[index]), reason),
        )


def _samples(measurement: Measurement) -> Tensor:
    """Complex samples of each slice, ``(batch,)``."""
    kspace = measurement.kspace
    sampled = measurement.mask.flatten(1).sum(dim=1) * kspace.shape[1]
    return sampled.expand(len(kspace)).float()
