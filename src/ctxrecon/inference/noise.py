"""What is known of the measurement's noise: given to the solver, compared with the residual."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ctxrecon.coils.noise import ENOUGH_COILS, estimate_noise_std
from ctxrecon.errors import InputError
from ctxrecon.measurement import Measurement
from ctxrecon.solvers import SOLVERS, Solver

logger = logging.getLogger(__name__)

NoiseStd: TypeAlias = "float | Sequence[float] | Tensor | str"

# The 99 % quantile of the magnitude of white noise alone is √(ln 100) ≈ 2.1 of its deviation.
_LARGEST_SHARE = 0.5
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
            f"got {noise_std}: leave it out to have it estimated"
        )


def noise_of(
    noise_std: NoiseStd | None,
    solver: Solver,
    measurement: Measurement,
    scale: Tensor,
    gain: Tensor,
) -> Tensor | None:
    """Noise of a k-space sample of each slice, ``(batch,)``; logs where it is from.

    A level that was given is taken as it is. Otherwise, for solvers that take noise and were given
    none, it is ``√(σ² − 4d²)`` of the noise σ that the scanner measured, or else that the scan
    shows, and the solver's default d, at least d: up to twice the default the default itself serves
    better than the true level, since the solver stops early and the prior has errors of its own
    (``benchmarks.solvers.noise_default``); far above it is σ. It is at most half of the image's
    scale, which is what an image of nothing but noise has. With fewer than four coils, where part
    of what is estimated is signal and aliasing is the larger error, σ is half of the estimate. A
    slice that shows nothing of its noise gets the default. DDNM, whose default is no noise, stays
    that: with noise it is another method.

    Args:
        noise_std: as in the pipeline's call, in the units of the scan.
        solver: that runs.
        measurement: y, divided by ``gain``.
        scale: 99 % quantile of each image, ``(batch,)``.
        gain: what k-space was divided by, ``(batch or 1,)``.

    Returns:
        In the units of ``measurement``; ``None`` where the solver's own settings stay.
    """
    kspace, empty = measurement.kspace, measurement.empty.tolist()
    if noise_std is not None and not isinstance(noise_std, str):
        found = torch.as_tensor(noise_std, dtype=torch.float32, device=kspace.device).flatten()
        return _logged(found.expand(len(kspace)) / gain, scale, gain, ["given"] * len(kspace))
    default = getattr(solver, "default_noise_std", None)
    if noise_std is None and (not default or getattr(solver, "noise_std", None) is not None):
        return None
    levels: list[Tensor] = []
    sources: list[str | None] = []
    for index, its_scale in enumerate(scale):
        if empty[index]:
            level, source = its_scale, None
        elif noise_std is not None:
            level = estimate_noise_std(*_slice(measurement, index))[0]
            level = level.clamp(min=torch.finfo(torch.float32).tiny)
            source = "estimated from the scan"
        else:
            level, source = _default_level(solver, measurement, index, its_scale, gain)
        levels.append(level)
        sources.append(source)
    return _logged(torch.stack(levels), scale, gain, sources)


def _default_level(
    solver: Solver, measurement: Measurement, index: int, scale: Tensor, gain: Tensor
) -> tuple[Tensor, str]:
    """Level of one slice where none is given, and what it comes from; see :func:`noise_of`."""
    default: float = solver.default_noise_std  # type: ignore[attr-defined]
    name = type(solver).__name__
    lower = default * scale
    if measurement.noise_std is not None:
        sigma = measurement.noise_std[index] / gain[min(index, len(gain) - 1)]
        source = "measured by the scanner"
    else:
        share = 0.5 if measurement.kspace.shape[1] < ENOUGH_COILS else 1.0
        try:
            sigma = share * estimate_noise_std(*_slice(measurement, index))[0]
        except InputError:
            return lower, f"{name}'s default, since too few samples show it"
        source = "estimated from the scan"
    level = scale * ((sigma / scale).square() - (2 * default) ** 2).clamp(min=0).sqrt()
    if not bool(level > lower):
        return lower, f"{name}'s default, no less"
    return level.minimum(_LARGEST_SHARE * scale).maximum(lower), source


def _slice(measurement: Measurement, index: int) -> tuple[Tensor, Tensor]:
    """K-space and mask of one slice, each with a batch of 1."""
    mask = measurement.mask
    return measurement.kspace[index : index + 1], mask[index : index + 1] if len(mask) > 1 else mask


def _logged(
    noise_std: Tensor, scale: Tensor, gain: Tensor, sources: Sequence[str | None]
) -> Tensor:
    """The levels themselves, after a line that says what they are and where from.

    Slices without a source are left out of the line.
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
        logger.info("noise of a k-space sample: %s", "; ".join(lines))
    return noise_std


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
