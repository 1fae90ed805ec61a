"""Warm starts: initialize the diffusion from an image estimate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike, as_tensor
from ctxrecon.baselines import BASELINES
from ctxrecon.checks import check_number
from ctxrecon.errors import InputError
from ctxrecon.fourier import complex_to_channels
from ctxrecon.inference.batches import scatter_slices
from ctxrecon.loading.components import reconstructor_components
from ctxrecon.measurement import Measurement
from ctxrecon.operators import combine_sets
from ctxrecon.solvers import (
    DDS,
    SOLVERS,
    DiffusionSolver,
    PnPADMM,
    Solver,
    make_solver,
    parse_solver,
)

StartingImage: TypeAlias = "ArrayLike | str | Callable[[Measurement], Any]"
"""Array, name of a method, or pipeline or function that computes an image of a measurement."""

SAMPLER = DDS()
"""Default solver for several samples."""

NETWORK = "network"
"""Name of the shipped reconstruction network as the source of the starting image."""

_STRENGTH = 0.3

ESTIMATORS = tuple(name for name, kind in SOLVERS.items() if kind.deterministic)
"""Names of the deterministic solvers, whose image can be a starting image."""


def choose_solver(
    solver: Solver | str | None, image: StartingImage | None, num_samples: int
) -> tuple[DiffusionSolver, StartingImage | None]:
    """Return the requested solver, or the default, and the starting image.

    The default for one sample is :class:`~ctxrecon.solvers.PnPADMM`, which is deterministic; for
    several samples it is :class:`~ctxrecon.solvers.DDS`, started from the PnP-ADMM image.
    """
    if solver is not None:
        return parse_solver(solver) if isinstance(solver, str) else make_solver(solver), image
    if num_samples == 1 and image is None:
        return PnPADMM(), None
    return SAMPLER, "pnp_admm" if image is None else image


def check_samples(solver: DiffusionSolver, num_samples: int, batch_size: int | None) -> None:
    """Validate that the solver supports several samples and batches, if requested.

    Raises:
        InputError: If it does not.
    """
    if solver.couples_batch and (num_samples > 1 or batch_size is not None):
        raise InputError(
            f"{solver.name} takes the slices of a volume in one batch: draw one sample at a time, "
            "and leave batch_size out"
        )
    if solver.deterministic and num_samples > 1:
        raise InputError(
            f"{solver.name} is deterministic, so {num_samples} samples would be identical: choose "
            f"a solver such as DDS, started from its image by image={ESTIMATORS[0]!r}"
        )


def check_warm_start(
    image: StartingImage | None, strength: float | None, solver: DiffusionSolver
) -> None:
    """Validate the starting image and its strength, and that the solver uses them.

    Raises:
        InputError: If the image is unknown, the strength is out of range or given without an image,
            or the solver ignores them.
    """
    if strength is not None:
        check_number("strength", strength, above=0, most=1)
    if image is None:
        if strength is not None:
            raise InputError("strength applies to a starting image: pass image, or omit strength")
        return
    if solver.starts_from_data:
        raise InputError(
            f"{solver.name} starts from the measurement and ignores image: leave image out, or "
            "choose a solver such as DDS"
        )
    makers = (*BASELINES, NETWORK, *ESTIMATORS)
    if isinstance(image, Tensor | np.ndarray) or callable(image):
        return
    if isinstance(image, str) and image in makers:
        return
    known = ", ".join(makers)
    if isinstance(image, str):
        raise InputError(f"unknown image {image!r}: expected an array or one of {known}")
    raise InputError(
        f"expected the image to start from as an array or one of {known}, got "
        f"{type(image).__name__}"
    )


def remaining_timesteps(timesteps: Sequence[int], strength: float | None) -> list[int]:
    """Return the last fraction ``strength`` of the timesteps, the least noisy; at least one."""
    strength = _STRENGTH if strength is None else strength
    return list(timesteps)[-max(round(strength * len(timesteps)), 1) :]


def starting_image(image: StartingImage, measurement: Measurement) -> Tensor:
    """Return the starting image, complex64 ``(batch, [sets ·] ny, nx)``, in scan units.

    A single image is distributed among several sets of coil maps like the zero-filled image.

    Args:
        image: Complex image ``(batch or 1, ny, nx)`` or ``(ny, nx)``, the name of a baseline,
            :data:`NETWORK`, or a function that computes it from a measurement.
        measurement: Measurement to reconstruct.

    Raises:
        InputError: If the image has the wrong shape or type or is not finite.
    """
    batch, (ny, nx) = len(measurement), measurement.image_shape
    given: Any = image
    if callable(image):
        made = image(measurement)
        given = getattr(made, "images", made)
    elif isinstance(image, str):
        filled = measurement.filled
        images = _made(image, measurement[filled]) if len(filled) else []
        like = measurement.y.new_zeros((batch, *measurement.operator.domain_shape[1:]))
        return scatter_slices(images, filled, like)
    start = as_tensor(given, "the image to start from")
    if start.ndim == 2:
        start = start[None]
    if not start.is_complex() or tuple(start.shape) not in {(1, ny, nx), (batch, ny, nx)}:
        raise InputError(
            f"expected a complex image to start from of shape {(batch, ny, nx)}, got "
            f"{start.dtype} of shape {tuple(start.shape)}"
        )
    start = start.to(measurement.y.device, torch.complex64)
    if not bool(torch.isfinite(torch.view_as_real(start)).all()):
        raise InputError("the image to start from contains NaN or infinite values")
    return _among_sets(start.expand(batch, -1, -1), measurement)


def _among_sets(image: Tensor, measurement: Measurement) -> Tensor:
    """Distribute the image ``(batch, ny, nx)`` among the sets of maps, stacked along the rows."""
    ny = image.shape[1]
    zero_filled = measurement.operator.adjoint(measurement.y)
    if zero_filled.shape[1] == ny:
        return image
    sets = zero_filled.unflatten(1, (-1, ny))
    together = combine_sets(sets)
    shares = torch.where(together.abs()[:, None] > 0, sets / together[:, None], 0)
    return (image[:, None] * shares).flatten(1, 2)


def _made(image: str, measurement: Measurement) -> list[Tensor]:
    """Return batches of starting images from a baseline or the shipped network."""
    if image != NETWORK:
        return [BASELINES[image](measurement.operator, measurement.y)]
    network = reconstructor_components()["reconstructor"].to(measurement.y.device)
    images = []
    for number in range(len(measurement)):
        one = measurement[number]
        found = network(one.operator, one.y).images
        if one.coil_maps is not None:
            seen = (one.coil_maps != 0).any(dim=-3)
            found = torch.where(seen if seen.ndim == 3 else seen.flatten(1, 2), found, 0)
        images.append(found)
    return images


def noised_image(x_0: Tensor, alpha_bar: float, noise: Tensor) -> Tensor:
    """Return ``x_t = √ᾱ_t x_0 + √(1−ᾱ_t) z``, ``(batch · each, 2, ny, nx)``.

    Args:
        x_0: Image of shape ``(batch, ny, nx)``, complex64.
        alpha_bar: ``ᾱ_t``.
        noise: Noise z of shape ``(batch · each, 2, ny, nx)``, ordered by image.
    """
    signal = math.sqrt(alpha_bar) * complex_to_channels(x_0)
    each = len(noise) // len(x_0)
    return signal.repeat_interleave(each, dim=0) + math.sqrt(1 - alpha_bar) * noise
