"""Cheap checks of a measurement for the most common violations of the conventions.

K-space is ``(batch, coils, ny, nx)`` with zero frequency at ``n // 2``, and the center of its
images is at ``n // 2``, too. The mask is ``True`` where k-space was measured, and coil maps have
``Σ_c |S_c|² = 1``. Suspicious data cause a warning with the remedy, impossible data an error.
"""

from __future__ import annotations

import logging

from torch import Tensor

from ctxrecon.plausibility import _coil_axis, _coil_maps, _kspace, _mask
from ctxrecon.plausibility._report import Finding

logger = logging.getLogger(__name__)


def check_conventions(kspace: Tensor, mask: Tensor, coil_maps: Tensor | None = None) -> None:
    """Warn if a measurement seems to follow another convention.

    Slices are counted from 0. The cost is a few passes over k-space.

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex64, including samples outside
            the mask.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool.
        coil_maps: Coil maps of shape ``(batch or 1, [sets,] coils, ny, nx)``, complex64, if they
            were given.

    Raises:
        InputError: If the mask does not fit the k-space at all.

    Example:
        >>> import torch
        >>> from ctxrecon.plausibility import check_conventions
        >>> mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
        >>> mask[..., ::2] = True
        >>> kspace = mask * torch.ones(1, 4, 32, 32, dtype=torch.complex64)
        >>> check_conventions(kspace, ~mask)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        ctxrecon.errors.InputError: k-space of slice 0 is zero everywhere inside the mask
    """
    energy = _kspace.Energy.of(kspace)
    sampled = mask[:, 0]
    findings = _mask.check_mask(energy.nonzero, energy.energy, sampled)
    findings += _mask.check_faint(energy.energy, sampled)
    features = _kspace.describe(kspace, sampled & energy.nonzero, energy.energy)
    about_kspace = _kspace.classify(features, (kspace.shape[2], kspace.shape[3]))
    findings += about_kspace
    if not about_kspace:
        findings += _mask.check_center(energy.energy, sampled)
    if coil_maps is not None:
        one_set = coil_maps.ndim == 4
        findings += _coil_maps.check_scale(coil_maps if one_set else coil_maps[:, 0])
        if one_set and not about_kspace:
            findings += _coil_maps.check_fit(kspace, sampled, coil_maps, energy.energy)
    _warn(findings, len(kspace))


def check_coil_axis(kspace: Tensor) -> None:
    """Warn if the coil axis seems to be at another position, before shapes are compared.

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex64.

    Raises:
        InputError: If the energy is distributed over the coils as over an axis of k-space, or if
            there are more coils than any array has.

    Example:
        >>> import torch
        >>> from ctxrecon.plausibility import check_coil_axis
        >>> kspace = torch.ones(1, 320, 16, 16, dtype=torch.complex64)
        >>> check_coil_axis(kspace)  # doctest: +IGNORE_EXCEPTION_DETAIL
        Traceback (most recent call last):
        ...
        ctxrecon.errors.InputError: expected k-space (batch, coils, ny, nx), got 320 coils
    """
    _warn(_coil_axis.check_coil_axis(kspace), len(kspace))


def _warn(findings: list[Finding], batch: int) -> None:
    for finding in findings:
        logger.warning("%s", finding.sentence(batch))


__all__ = ["check_coil_axis", "check_conventions"]
