"""Where a diffusion starts from when it does not start from noise: an estimate of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ctxrecon.baselines import BASELINES
from ctxrecon.errors import InputError
from ctxrecon.fourier import complex_to_channels
from ctxrecon.pipelines.inputs import ArrayLike, Measurement
from ctxrecon.solvers import DDS, SOLVERS, PnPADMM, Solver, make_solver

SAMPLER = DDS()
"""Draws samples where no solver is named."""

NETWORK = "network"
"""The network that comes with the package, as the maker of the image."""

ESTIMATORS = tuple(name for name, kind in SOLVERS.items() if getattr(kind, "deterministic", False))
"""Solvers whose image, the same each time, others may start from."""


def choose_solver(
    solver: Solver | str | None, image: ArrayLike | str | None, num_samples: int
) -> tuple[Solver, ArrayLike | str | None]:
    """The solver that was asked for, or the default, and the image to start from.

    The default for one image is :class:`~ctxrecon.solvers.PnPADMM`, an estimate that draws
    nothing; for several samples it is :class:`~ctxrecon.solvers.DDS`, started from that estimate.
    """
    if solver is not None:
        return make_solver(solver), image
    if num_samples == 1 and image is None:
        return PnPADMM(), None
    return SAMPLER, "pnp_admm" if image is None else image


def check_warm_start(image: ArrayLike | str | None, strength: float, solver: Solver) -> None:
    """Refuse a start that is not known, or that the solver would not look at.

    Raises:
        InputError: for each, in a sentence of its own.
    """
    if not 0 < strength <= 1:
        raise InputError(f"expected strength above 0 and up to 1, got {strength}")
    if image is None:
        return
    if getattr(solver, "starts_from_data", False):
        raise InputError(
            f"{type(solver).__name__} starts from the measurement whatever the image: leave image "
            "out, or take a solver such as DDS"
        )
    makers = (*BASELINES, NETWORK, *ESTIMATORS)
    if isinstance(image, str) and image not in makers:
        known = ", ".join(makers)
        raise InputError(f"unknown image {image!r}: expected an array or one of {known}")


def remaining_timesteps(timesteps: Sequence[int], strength: float) -> list[int]:
    """The last ``strength`` of the timesteps, one at least: the least noisy ones."""
    return list(timesteps)[-max(round(strength * len(timesteps)), 1) :]


def starting_image(image: ArrayLike | str, measurement: Measurement) -> Tensor:
    """The image to start from, ``(batch, ny, nx)`` complex64, in the units of the scan.

    Args:
        image: complex ``(batch or 1, ny, nx)`` or ``(ny, nx)``, the name of a baseline to
            compute it by, or :data:`NETWORK`.
        measurement: whose image it is.

    Raises:
        InputError: an image of another shape or kind, or one that is not finite.
    """
    kspace = measurement.kspace
    if isinstance(image, str) and image == NETWORK:
        # It imports the pipelines, which import this.
        from ctxrecon.pipelines.loading import load_reconstructor

        network = load_reconstructor(device=kspace.device)
        network.set_progress_bar_config(disable=True)
        output: Any = network(kspace, measurement.mask, coil_maps=measurement.coil_maps)
        return output.images
    if isinstance(image, str):
        return BASELINES[image](kspace, measurement.mask, measurement.coil_maps)
    batch, _, ny, nx = kspace.shape
    start = torch.as_tensor(image)
    if start.ndim == 2:
        start = start[None]
    if not start.is_complex() or tuple(start.shape) not in {(1, ny, nx), (batch, ny, nx)}:
        raise InputError(
            f"expected a complex image to start from of shape {(batch, ny, nx)}, got "
            f"{start.dtype} of shape {tuple(start.shape)}"
        )
    start = start.to(kspace.device, torch.complex64)
    if not bool(torch.isfinite(torch.view_as_real(start)).all()):
        raise InputError("the image to start from holds NaN or infinite values")
    return start.expand(batch, -1, -1)


def noised_image(x_0: Tensor, alpha_bar: float, noise: Tensor) -> Tensor:
    """``x_t = √ᾱ_t x_0 + √(1−ᾱ_t) z``, ``(batch · each, 2, ny, nx)``.

    Args:
        x_0: ``(batch, ny, nx)`` complex64.
        alpha_bar: ``ᾱ_t``.
        noise: z, ``(batch · each, 2, ny, nx)``, that of one image after the other.
    """
    signal = math.sqrt(alpha_bar) * complex_to_channels(x_0)
    each = len(noise) // len(x_0)
    return signal.repeat_interleave(each, dim=0) + math.sqrt(1 - alpha_bar) * noise
