"""Samplers of k-space in training: built from an option, and drawn from for a batch."""

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
    """Give a sampler of the strongest positions the spectrum of the training set, if it has none.

    Args:
        sampler: any sampler; others are left as they are.
        images: gives images ``(batch, n, n)`` of the training set.
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

    Where no centre is asked for and the sampler's own is too small to estimate coil maps from, it
    keeps the smallest one that suffices; this is logged.

    Args:
        text: a name of :data:`~ctxrecon.masks.learned.SAMPLERS` or of a fixed mask, with options.
        resolution: n of the masks ``(n, n)``.
        acceleration: the value of ``--acceleration``.
        default_acceleration: where neither it nor the text gives one, of samplers that do not serve
            a range of ratios.
        center_fraction: the value of ``--center_fraction``.
        num_coils: of the scans, whose coil maps are estimated from the centre.
        contrasts: of a sampler with a mask for each contrast.

    Raises:
        InputError: an unknown sampler, or options that do not belong together.
    """
    name, options = split_options(text)
    if name in MASKS:
        name, text = "fixed", f"fixed:mask={text}"
    settled: dict[str, Any] = {"shape": (resolution, resolution)}
    if center_fraction is not None:
        settled["center_fraction"] = center_fraction
    serves_ratios = "ratios" in options or name == "pattern_generator"
    if serves_ratios and acceleration is not None:
        raise InputError(f"{name} serves a range of ratios: leave --acceleration out")
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
        torch.set_rng_state(state)  # for the same weights
        sampler = build_from_text("--sampler", text, SAMPLERS, settled)
        logger.info(
            "the sampler keeps a centre of --center_fraction %g for the coil maps",
            settled["center_fraction"],
        )
    return sampler


def calibration(sampler: MaskNetwork) -> Tensor:
    """The centre that every mask of the sampler takes, ``(1, 1, ny, nx)`` bool."""
    acceleration = None
    if sampler.acceleration is None:  # the smallest centre of all ratios
        assert sampler.ratios is not None
        acceleration = 1 / min(sampler.ratios)
    return sampler.as_mask(sampler.budget(acceleration).center)[None, None]


def middle_acceleration(sampler: MaskNetwork) -> float | None:
    """The acceleration to validate at: of the middle ratio, or ``None`` for the sampler's own."""
    if sampler.acceleration is not None:
        return None
    assert sampler.ratios is not None
    return 2 / sum(sampler.ratios)


def draw_training_masks(
    sampler: Any, generators: Sequence[torch.Generator], device: torch.device
) -> Tensor:
    """Draw a mask for each sample of a batch, differentiable in the sampler's weights.

    A sampler that serves a range of ratios draws a ratio for each mask as well, so that the
    gradient of a step is a mean over ratios (InfoMRI, algorithm 2).

    Args:
        sampler: with a method ``relaxed``, see :meth:`~ctxrecon.masks.learned.Sampler.relaxed`.
        generators: one for each sample, so that its mask does not depend on the batch.
        device: of the masks.

    Returns:
        ``(batch, 1, ny, nx)`` float32, 0 or 1; from a sampler with a mask for each contrast
        ``(batch, contrasts, 1, ny, nx)``.
    """
    accelerations: list[float] | float | None = None
    if sampler.ratios is not None:
        accelerations = [sampler.draw_acceleration(generator) for generator in generators]
        if len(set(accelerations)) == 1:  # probabilities are computed once
            accelerations = accelerations[0]
    drawn: Tensor = sampler.relaxed(accelerations, len(generators), list(generators))
    return drawn.to(device)
