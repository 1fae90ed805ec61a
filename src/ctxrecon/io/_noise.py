"""Noise readouts of an ISMRMRD file: noise level and prewhitening of the coils."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctxrecon.coils import whitening_matrix
from ctxrecon.errors import InputError
from ctxrecon.io._readouts import NOISE, Raw, readouts

logger = logging.getLogger(__name__)


def read_noise(
    path: Path, raw: Raw, chosen: np.ndarray, prewhiten: bool
) -> tuple[float | None, Tensor | None]:
    """Estimate the noise level of the imaging samples and the prewhitening matrix.

    With the noise covariance ``Ψ = L Lᴴ`` and ``σ² = tr Ψ / C``, the matrix ``σ L⁻¹`` keeps the
    units of k-space, and leaves coils with equal, independent noise unchanged. The noise level is
    σ, corrected for bandwidth: noise power is proportional to 1 / dwell time, and the header's
    relative noise bandwidth accounts for the filter of the noise readout (Kellman & McVeigh,
    doi:10.1002/mrm.20713).

    Args:
        path: File name for messages.
        raw: Content of the file.
        chosen: Rows of the imaging readouts.
        prewhiten: Whether to compute the prewhitening matrix.

    Returns:
        Noise standard deviation of an imaging sample, or ``None``, and the matrix
        ``(coils, coils)``, complex64, or ``None``.
    """
    heads = raw.heads
    coils = heads["active_channels"][chosen[0]]
    noise = heads["flags"].astype(np.uint64) & np.uint64(NOISE) != 0
    rows = np.flatnonzero(noise & (heads["active_channels"] == coils))
    if len(rows) < noise.sum():
        logger.warning("%s: noise readouts with other coils than the image's are ignored", path)
    if len(rows) == 0:
        return None, None
    samples = np.concatenate([values for _, values in readouts(path, raw, rows)], axis=1)
    power = float(np.mean(np.abs(samples.astype(np.complex128)) ** 2)) if samples.size else 0.0
    if not (np.isfinite(power) and power > 0):
        logger.warning("%s: its noise readouts are zero or not finite, and are ignored", path)
        return None, None
    noise_std = None
    dwell = float(heads["sample_time_us"][rows[0]])
    imaging_dwell = float(heads["sample_time_us"][chosen[0]])
    if dwell > 0 and imaging_dwell > 0 and np.isfinite(dwell / imaging_dwell):
        bandwidth = raw.header.noise_bandwidth or 1.0
        noise_std = float(np.sqrt(power * dwell / imaging_dwell / bandwidth))
    if not prewhiten:
        return noise_std, None
    try:
        matrix = power**0.5 * whitening_matrix(torch.from_numpy(samples))
    except InputError as error:
        logger.warning("%s: the coils are not prewhitened: %s", path, error)
        return noise_std, None
    level = "unknown" if noise_std is None else f"{noise_std:.3g}"
    logger.info(
        "%s: coils prewhitened with %d noise samples; noise level of a k-space sample: %s",
        path,
        samples.shape[1],
        level,
    )
    return noise_std, matrix.to(torch.complex64)
