"""Mask samplers in training: construction from an option, and masks of a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ctxrecon.coils.calibration import MIN_CALIBRATION
from ctxrecon.errors import InputError
from ctxrecon.masks import MASKS
from ctxrecon.masks.learned import SAMPLERS, FixedMasks, MaskNetwork
from ctxrecon.options import split_options
from ctxrecon.training.options import build_from_text
from ctxrecon.training.scans import check_calibration

logger = logging.getLogger(__name__)


def fit_spectrum(sampler: Any, images: Callable[[], Tensor]) -> None:
    """Fit the spectrum of a "spectrum1d" or "spectrum2d" sampler to the training set if missing.

    Args:
        sampler: Sampler; other kinds are left unchanged.
        images: Function that returns images ``(batch, n, n)`` of the training set.
    """
    if isinstance(sampler, FixedMasks) and sampler.lacks_spectrum:
        sampler.fit(images())


def build_sampler(
    text: str,
    resolution: int,
    *,
    acceleration: float | None,
    default_acceleration: float,
    center_fraction: float | None,
    num_coils: int,
    contrasts: int = 1,
) -> Any:
    """Build a sampler with new weights from the value of ``--sampler``.

    If no center is requested and the sampler's default is too small for coil-map estimation, the
    smallest sufficient center is used; this is logged.

    Args:
        text: Name from :data:`~ctxrecon.masks.learned.SAMPLERS` or of a fixed mask, with options.
        resolution: Size n of the masks ``(n, n)``.
        acceleration: Value of ``--acceleration``.
        default_acceleration: Acceleration used if neither the option nor the text specifies one,
            for samplers without a range of ratios.
        center_fraction: Value of ``--center_fraction``.
        num_coils: Number of coils of the scans, whose coil maps are estimated from the center.
        contrasts: Number of contrasts, for a sampler with a mask for each.

    Raises:
        InputError: If the sampler is unknown, or options contradict each other.
    """
    name, options = split_options(text)
    if name in MASKS:
        name, text = "fixed", f"fixed:mask={text}"
    settled: dict[str, Any] = {"shape": (resolution, resolution)}
    if center_fraction is not None:
        settled["center_fraction"] = center_fraction
    serves_ratios = "ratios" in options or name == "pattern_generator"
    if serves_ratios and acceleration is not None:
        raise InputError(f"{name} covers a range of ratios: omit --acceleration")
    if acceleration is not None:
        settled["acceleration"] = acceleration
    elif not serves_ratios and "acceleration" not in options:
        settled["acceleration"] = default_acceleration
    if name == "per_contrast" and "contrasts" not in options:
        settled["contrasts"] = contrasts

    state = torch.get_rng_state()
    sampler = build_from_text("--sampler", text, SAMPLERS, settled)
    if center_fraction is not None or "center_fraction" in options:
        return sampler
    try:
        check_calibration(calibration(sampler), num_coils, "the sampler")
    except InputError:
        settled["center_fraction"] = MIN_CALIBRATION / resolution
        torch.set_rng_state(state)  # to draw the same weights
        sampler = build_from_text("--sampler", text, SAMPLERS, settled)
        logger.info(
            "the sampler uses --center_fraction %g, which coil-map estimation needs",
            settled["center_fraction"],
        )
    return sampler


def calibration(sampler: MaskNetwork) -> Tensor:
    """Return the center contained in every mask of the sampler, ``(1, 1, ny, nx)`` bool."""
    acceleration = None
    if sampler.acceleration is None:  # the smallest center of all ratios
        assert sampler.ratios is not None
        acceleration = 1 / min(sampler.ratios)
    return sampler.as_mask(sampler.budget(acceleration).center)[None, None]


def middle_acceleration(sampler: MaskNetwork) -> float | None:
    """Return the acceleration of the middle ratio, or ``None`` for the sampler's own."""
    if sampler.acceleration is not None:
        return None
    assert sampler.ratios is not None
    return 2 / sum(sampler.ratios)


def draw_training_masks(
    sampler: Any, generators: Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """Draw a mask for each sample of a batch, differentiable in the sampler's weights.

    A sampler with a range of ratios also draws a ratio for each mask, so that the gradient of a
    step is averaged over ratios (InfoMRI, algorithm 2).

    Args:
        sampler: Sampler with a method ``relaxed``, see
            :meth:`~ctxrecon.masks.learned.Sampler.relaxed`.
        generators: One generator per sample, so that its mask does not depend on the batch.
        device: Device of the masks.

    Returns:
        Masks ``(batch, 1, ny, nx)``, float32, 0 or 1; a sampler with a mask for each contrast
        returns ``(batch, contrasts, 1, ny, nx)``.
    """
    accelerations: list[float] | float | None = None
    if sampler.ratios is not None:
        accelerations = [sampler.draw_acceleration(generator) for generator in generators]
        if len(set(accelerations)) == 1:  # probabilities are computed once
            accelerations = accelerations[0]
    drawn: Tensor = sampler.relaxed(accelerations, len(generators), list(generators))
    return drawn.to(device)
