"""Noise level of the measurement: its choice for the solver, and a check of the residual."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ctxrecon.coils.noise import ENOUGH_COILS, estimate_noise_along, estimate_noise_std
from ctxrecon.errors import InputError
from ctxrecon.measurement import Measurement
from ctxrecon.operators import NonCartesianSense
from ctxrecon.solvers import SOLVERS, DiffusionSolver

logger = logging.getLogger(__name__)

NoiseLevel: TypeAlias = "float | Sequence[float] | Tensor | str"

# The 99 % quantile of the magnitude of pure white noise is √(ln 100) ≈ 2.1 standard deviations.
_LARGEST_SHARE = 0.5
# Tolerates small coil-map errors and early stopping.
_LARGEST_RATIO = 2.0


def check_noise(
    noise_std: NoiseLevel | None, slices: int, solver: DiffusionSolver, image: object = None
) -> None:
    """Validate ``noise_std``, and that a selected solver uses it.

    Args:
        noise_std: Noise level of the pipeline call: a number, one per slice, "auto" or ``None``.
        slices: Number of slices.
        solver: Solver of the call.
        image: Starting image, which may name a solver that uses the noise level.

    Raises:
        InputError: If the value is malformed or no solver uses it.
    """
    if noise_std is None:
        return
    first = SOLVERS.get(image) if isinstance(image, str) else None
    takes_noise = solver.default_noise_std is not None
    if isinstance(noise_std, str) and noise_std == "auto" and solver.weight_is_unset:
        return
    if not takes_noise and (first is None or first.default_noise_std is None):
        raise InputError(
            f"{solver.name} takes no noise level: leave noise_std out, or choose a solver such as "
            "PnPADMM or DiffPIR"
        )
    if isinstance(noise_std, str):
        if noise_std != "auto":
            raise InputError(f"expected noise_std as numbers or 'auto', got {noise_std!r}")
        return
    values = torch.as_tensor(noise_std, dtype=torch.float32).flatten()
    if len(values) not in (1, slices) or not bool((values.isfinite() & (values > 0)).all()):
        raise InputError(
            f"expected noise_std as one positive number or one for each of the {slices} slices, "
            f"got {noise_std}: leave it out to estimate it"
        )


def noise_of(
    noise_std: NoiseLevel | None,
    solver: DiffusionSolver,
    measurement: Measurement,
    scale: Tensor,
    gain: Tensor,
) -> Tensor | None:
    """Determine the noise level of a k-space sample of each slice, ``(batch,)``, and log it.

    A given level is used as it is. Otherwise, for solvers that use a noise level and have none set,
    it is ``√(σ² − 4d²)``, but at least d. σ is the noise measured by the scanner, or else estimated
    from the scan, and d is the solver's default. Up to twice the default, the default works better
    than the true level, because the solver stops early and the prior has errors
    (``benchmarks.solvers.noise_default``); far above it the result tends to σ. The level is at most
    half of the image's scale, which is that of pure noise. With fewer than four coils, where part
    of the estimate is signal and aliasing is the larger error, σ is half of the estimate. A slice
    without a noise estimate gets the default. DDNM, whose default is no noise, keeps it, because
    with noise it is a different method.

    Args:
        noise_std: Noise level of the pipeline call, in scan units.
        solver: Solver of the call.
        measurement: Measurement y, divided by ``gain``.
        scale: 99 % quantile of each image, ``(batch,)``.
        gain: Divisor of the k-space, ``(batch or 1,)``.

    Returns:
        Noise level in the units of ``measurement``; ``None`` to keep the solver's settings.
    """
    y, empty = measurement.y, measurement.empty.tolist()
    if noise_std is not None and not isinstance(noise_std, str):
        found = torch.as_tensor(noise_std, dtype=torch.float32, device=y.device).flatten()
        return _logged(found.expand(len(y)) / gain, scale, gain, ["given"] * len(y))
    default = solver.default_noise_std
    if noise_std is None and (not default or solver.noise_std is not None):
        return None
    levels: list[Tensor] = []
    sources: list[str | None] = []
    for index, its_scale in enumerate(scale):
        if empty[index]:
            level, source = its_scale, None
        elif noise_std is not None:
            level = _estimated(measurement, index)
            level = level.clamp(min=torch.finfo(torch.float32).tiny)
            source = "estimated from the scan"
        else:
            level, source = _default_level(solver, measurement, index, its_scale)
        levels.append(level)
        sources.append(source)
    return _logged(torch.stack(levels), scale, gain, sources)


def _default_level(
    solver: DiffusionSolver, measurement: Measurement, index: int, scale: Tensor
) -> tuple[Tensor, str]:
    """Return the level of one slice if none is given, and its source; see :func:`noise_of`."""
    name, default = solver.name, solver.default_noise_std
    assert default is not None
    lower = default * scale
    if measurement.noise_std is not None:
        sigma = measurement.noise_std[index]
        source = "measured by the scanner"
    else:
        share = 0.5 if measurement.y.shape[1] < ENOUGH_COILS else 1.0
        try:
            sigma = share * _estimated(measurement, index)
        except InputError:
            return lower, f"{name}'s default, since there are too few samples to estimate it"
        source = "estimated from the scan"
    level = scale * ((sigma / scale).square() - (2 * default) ** 2).clamp(min=0).sqrt()
    if not bool(level > lower):
        return lower, f"{name}'s default, the minimum"
    return level.minimum(_LARGEST_SHARE * scale).maximum(lower), source


def _estimated(measurement: Measurement, index: int) -> Tensor:
    """Estimate the noise of one slice from its outer samples.

    Raises:
        InputError: If the data are not k-space or there are too few samples.
    """
    one = measurement[index]
    if isinstance(one.operator, NonCartesianSense):
        return estimate_noise_along(one.operator, one.y)[0]
    if one.mask is None:
        raise InputError(
            "expected noise_std as a number, since noise can only be estimated from k-space: pass "
            "it, or leave it out"
        )
    return estimate_noise_std(one.y, one.mask)[0]


def _logged(
    noise_std: Tensor, scale: Tensor, gain: Tensor, sources: Sequence[str | None]
) -> Tensor:
    """Log the noise levels and their sources, and return the levels.

    Slices without a source are omitted from the log.
    """
    shares = 100 * noise_std / scale
    lines = [
        f"{level:.3g} ({share:.2g} % of the image's scale, {source})"
        for level, share, source in zip(
            (noise_std * gain).tolist(), shares.tolist(), sources, strict=True
        )
        if source is not None
    ]
    if lines:
        logger.info("noise level of the solver for a k-space sample: %s", "; ".join(lines))
    return noise_std


def with_noise(solver: DiffusionSolver, noise_std: Tensor | None) -> DiffusionSolver:
    """Return a copy of the solver with the noise of a batch, in normalized units.

    Solvers without a noise level, and any solver if the noise is ``None``, are returned unchanged.
    """
    if noise_std is None or solver.default_noise_std is None:
        return solver
    return solver.with_noise(noise_std)


def noise_ratio(measurement: Measurement, residual: Tensor, noise_std: Tensor) -> Tensor:
    """Compute ``‖A x − y‖ / (σ √m)`` of each slice, where m is the number of samples.

    It is at most 1 for a correct model. An image of n pixels fits the noise of as many samples, so
    the expected value is ``√(1 − n/m)``.

    Args:
        measurement: Measurement y.
        residual: ``‖A x − y‖ / ‖y‖``, ``(batch,)``.
        noise_std: Standard deviation σ of a complex sample, ``(batch,)``.
    """
    error = residual * measurement.y.flatten(1).norm(dim=1)
    return error / (noise_std * _samples(measurement).sqrt())


def warn_of_residual(measurement: Measurement, residual: Tensor, noise_std: Tensor) -> None:
    """Log a warning for slices whose data residual does not match the stated noise.

    Warns if the residual exceeds twice the expected noise norm, or falls below half the smallest
    residual an n-pixel image can leave.

    Args:
        measurement: Measurement y.
        residual: ``‖A x − y‖ / ‖y‖``, ``(batch,)``.
        noise_std: Standard deviation σ of a complex sample, ``(batch,)``.
    """
    ratios = noise_ratio(measurement, residual, noise_std)
    pixels = math.prod(measurement.image_shape)
    least = (1 - pixels / _samples(measurement)).clamp(min=0).sqrt() / _LARGEST_RATIO
    for index, (ratio, lower) in enumerate(zip(ratios.tolist(), least.tolist(), strict=True)):
        if lower <= ratio <= _LARGEST_RATIO or bool(measurement.empty[index]):
            continue
        reason = (
            "does not explain the data: check the coil maps, the mask and motion"
            if ratio > _LARGEST_RATIO
            else "follows the noise: the noise that was stated is too high"
        )
        logger.warning(
            "slice %d: the residual is %.3g times that of noise of %.3g, so the image %s",
            *(index, ratio, float(noise_std[index]), reason),
        )


def _samples(measurement: Measurement) -> Tensor:
    """Return the number of complex samples of each slice, ``(batch,)``."""
    y, mask = measurement.y, measurement.mask
    if mask is None:
        return torch.full((len(y),), math.prod(y.shape[1:]), device=y.device).float()
    return (mask.flatten(1).sum(dim=1) * y.shape[1]).expand(len(y)).float()
