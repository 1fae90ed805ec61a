"""Whether a measurement keeps the conventions: cheap checks of what is mistaken most often.

K-space ``(batch, coils, ny, nx)`` with its zero frequency at ``n // 2``, of images whose middle is
at ``n // 2`` too; a mask that says what was measured; coil maps with ``Σ_c |S_c|² = 1``. What looks
otherwise is logged as a warning with the remedy, what cannot be meant is refused.
"""

from __future__ import annotations

import logging

from torch import Tensor

from ctxrecon.plausibility import _coil_axis, _coil_maps, _kspace, _mask
from ctxrecon.plausibility._report import Finding

logger = logging.getLogger(__name__)


def check_conventions(kspace: Tensor, mask: Tensor, coil_maps: Tensor | None = None) -> None:
    """Warn of a measurement that looks as if another convention had been meant.

    Slices are counted from 0. The cost is a few passes over k-space.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex64, also outside the mask.
        mask: ``(batch or 1, 1, ny, nx)`` bool.
        coil_maps: ``(batch or 1, [sets,] coils, ny, nx)`` complex64, where they were given.

    Raises:
        InputError: a mask that does not fit k-space at all.
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
    """Warn of coils that look like an axis, before masks and maps are compared with the shape.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex64.

    Raises:
        InputError: coils whose energy is that of an axis of k-space, or more than any array has.
    """
    _warn(_coil_axis.check_coil_axis(kspace), len(kspace))


def _warn(findings: list[Finding], batch: int) -> None:
    for finding in findings:
        logger.warning("%s", finding.sentence(batch))


__all__ = ["check_coil_axis", "check_conventions"]
