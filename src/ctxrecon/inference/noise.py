"""What is known of the measurement's noise: given to the solver, compared with the residual."""

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

# The 99 % quantile of the magnitude of white noise alone is √(ln 100) ≈ 2.1 of its deviation.
_LARGEST_SHARE = 0.5
# Maps that are a little off, or too few iterations, do not make so much.
_LARGEST_RATIO = 2.0


def check_noise(
    noise_std: NoiseLevel | None, slices: int, solver: DiffusionSolver, image: object = None
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
    takes_noise = solver.default_noise_std is not None
    if isinstance(noise_std, str) and noise_std == "auto" and solver.weight_is_open:
        return
    if not takes_noise and (first is None or first.default_noise_std is None):
        raise InputError(
            f"{solver.name} knows nothing of noise: leave noise_std out, or take a "
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
    noise_std: NoiseLevel | None,
    solver: DiffusionSolver,
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
    """Level of one slice where none is given, and what it comes from; see :func:`noise_of`."""
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
            return lower, f"{name}'s default, since too few samples show it"
        source = "estimated from the scan"
    level = scale * ((sigma / scale).square() - (2 * default) ** 2).clamp(min=0).sqrt()
    if not bool(level > lower):
        return lower, f"{name}'s default, no less"
    return level.minimum(_LARGEST_SHARE * scale).maximum(lower), source


def _estimated(measurement: Measurement, index: int) -> Tensor:
    """Noise of a sample of one slice, as its outer samples show it.

    Raises:
        InputError: data that are not k-space, or too few samples.
    """
    one = measurement[index]
    if isinstance(one.operator, NonCartesianSense):
        return estimate_noise_along(one.operator, one.y)[0]
    if one.mask is None:
        raise InputError(
            "expected noise_std as a number, since the noise of data that are not k-space is not "
            "estimated: give it, or leave it out"
        )
    return estimate_noise_std(one.y, one.mask)[0]


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


def with_noise(solver: DiffusionSolver, noise_std: Tensor | None) -> DiffusionSolver:
    """Return the solver with the noise of the images of a batch, in the units that it works in.

    One that takes no noise stays as it is, as does any for a noise of ``None``.
    """
    if noise_std is None or solver.default_noise_std is None:
        return solver
    return solver.with_noise(noise_std)


def noise_ratio(measurement: Measurement, residual: Tensor, noise_std: Tensor) -> Tensor:
    """``‖A x − y‖ / (σ √m)`` of each slice, m the number of samples: at most 1 if all is well.

    An image of n pixels fits the noise of as many samples, so ``√(1 − n/m)`` is what to expect.

    Args:
        measurement: y.
        residual: ``‖A x − y‖ / ‖y‖``, ``(batch,)``.
        noise_std: σ of a complex sample, ``(batch,)``.
    """
    error = residual * measurement.y.flatten(1).norm(dim=1)
    return error / (noise_std * _samples(measurement).sqrt())


def warn_of_residual(measurement: Measurement, residual: Tensor, noise_std: Tensor) -> None:
    """Log a warning for slices whose data residual the stated noise does not explain.

    Twice as much as the noise has is too much, and half of what an image that fits as much of the
    noise as it can leaves is too little. For the arguments see :func:`noise_ratio`.
    """
    ratios = noise_ratio(measurement, residual, noise_std)
    pixels = math.prod(measurement.image_shape)
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
    y, mask = measurement.y, measurement.mask
    if mask is None:
        return torch.full((len(y),), math.prod(y.shape[1:]), device=y.device).float()
    return (mask.flatten(1).sum(dim=1) * y.shape[1]).expand(len(y)).float()
