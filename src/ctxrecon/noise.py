"""The noise of a measurement, from the measurement itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctxrecon.errors import InputError

_OUTER_SHARE = 0.25
_LEAST_SAMPLES = 16
# The smaller half of a semicircle's mean, in radii from its centre.
_LOWER_HALF = 4 / (3 * math.pi)


def estimate_noise_std(kspace: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation of the noise of a k-space sample, real and imaginary parts together.

    Far from the centre the signal of neighbouring coils is nearly the same, while noise that is
    white over the coils (prewhitened) fills every direction alike. So the variance of the noise is
    the mean of the smaller half of the eigenvalues of the coils' covariance, over the quarter of
    the samples that lies farthest out in units of the half axes. White noise of C coils in N
    samples spreads the eigenvalues by about ``2√(C/N)`` to either side (Marchenko and Pastur),
    which is allowed for. Samples that are exactly zero, as
    zero filling leaves them, do not count. With one coil the signal out there is counted as noise.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex, zero frequency at ``n // 2``.
        mask: ``(batch or 1, 1, ny, nx)`` bool.

    Returns:
        ``(batch,)`` float32, in the units of ``kspace``.

    Raises:
        InputError: fewer than 16 samples for each coil to judge by.
    """
    coils, ny, nx = kspace.shape[1:]
    ky = (torch.arange(ny, device=kspace.device) - ny // 2) / max(ny / 2, 1)
    kx = (torch.arange(nx, device=kspace.device) - nx // 2) / max(nx / 2, 1)
    radius = torch.hypot(ky[:, None], kx[None, :]).flatten()
    found = []
    for samples, sampled in zip(kspace, mask.expand(len(kspace), -1, -1, -1), strict=True):
        where = (sampled.flatten() & (samples != 0).any(dim=0).flatten()).nonzero()[:, 0]
        count = math.ceil(_OUTER_SHARE * len(where))
        if count < _LEAST_SAMPLES * coils:
            raise InputError(
                f"expected at least {_LEAST_SAMPLES * coils} samples far from the centre of "
                f"k-space to tell the noise of {coils} coils by, got {count}: give noise_std"
            )
        outer = samples.flatten(1)[:, where[radius[where].topk(count).indices]]
        variances = torch.linalg.eigvalsh(outer @ outer.mH / count)
        spread = 2 * math.sqrt(coils / count) if coils > 1 else 0.0
        smaller = variances[: max(coils // 2, 1)].mean().clamp(min=0)
        found.append((smaller / (1 - _LOWER_HALF * spread)).sqrt())
    return torch.stack(found).float()
