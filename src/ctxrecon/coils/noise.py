"""The noise of a measurement, from the measurement itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.operators import NonCartesianSense

_OUTER_SHARE = 0.25
_LEAST_SAMPLES = 16
_LEAST_LINES = 8
ENOUGH_COILS = 4
"""With fewer independent coils no direction is free of signal."""
# Of the largest eigenvalue: below it a direction is a linear combination of other coils.
_RANK_TOLERANCE = 1e-12
# The smaller half of a semicircle's mean, in radii from its centre.
_LOWER_HALF = 4 / (3 * math.pi)
# Power of an image with edges falls with this power of the radius in k-space.
_EDGE_EXPONENT = 3
_QUIET_SHARE, _QUIET_NORMAL_QUANTILE = 0.1, -1.2816


def estimate_noise_std(kspace: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation of the noise of a k-space sample, real and imaginary parts together.

    Far from the centre the signal of neighbouring coils is nearly the same, while noise that is
    white over the coils (prewhitened) fills every direction alike. So the variance of the noise is
    the mean of the smaller half of the eigenvalues of the coils' covariance, over the quarter of
    the samples that lies farthest out in units of the half axes. White noise of C coils in N
    samples spreads the eigenvalues by about ``2√(C/N)`` to either side (Marchenko and Pastur),
    which is allowed for. Samples that are exactly zero, as zero filling leaves them, and coils that
    are linear combinations of others do not count.

    With fewer than four independent coils signal fills even the weakest direction. There, where
    readouts are complete, the power of the quietest tenth of the pixels along the readout counts,
    which is air if the field of view is larger than the object; an image that fills it looks
    noisier than it is. Where readouts have gaps it is the power far out less what falls with the
    third power of the radius, as that of edges does; this may miss noise altogether.

    Args:
        kspace: ``(batch, coils, ny, nx)`` complex, zero frequency at ``n // 2``.
        mask: ``(batch or 1, 1, ny, nx)`` bool.

    Returns:
        ``(batch,)`` float32, in the units of ``kspace``.

    Raises:
        InputError: fewer than 16 samples for each coil to judge by.
    """
    ny, nx = kspace.shape[2:]
    ky = (torch.arange(ny, device=kspace.device) - ny // 2) / max(ny / 2, 1)
    kx = (torch.arange(nx, device=kspace.device) - nx // 2) / max(nx / 2, 1)
    return _estimate(kspace, mask, torch.hypot(ky[:, None], kx[None, :]).flatten())


def estimate_noise_along(operator: NonCartesianSense, y: Tensor) -> Tensor:
    """The same of ``y = A x + n`` along a trajectory, the root of its mean square over the samples.

    Samples are judged before their weights, by which the noise of ``y`` varies.

    Args:
        operator: ``A``.
        y: ``(batch, coils, shots·samples)`` complex64, weighted as :meth:`compensate` does.

    Returns:
        ``(batch,)`` float32, in the units of ``y``.

    Raises:
        InputError: fewer than 16 samples for each coil to judge by.
    """
    weights = operator.density_compensation
    weights = torch.ones(y.shape[-1]) if weights is None else weights
    weights = weights.to(y.device)
    radius = operator.trajectory.norm(dim=1).to(y.device)
    # As one column, which has no readouts along which anything could be transformed.
    samples = torch.where(weights > 0, y / weights.sqrt(), 0)[..., None]
    everywhere = torch.ones(1, 1, *samples.shape[2:], dtype=torch.bool, device=y.device)
    return _estimate(samples, everywhere, radius) * weights.mean().sqrt()


def _estimate(kspace: Tensor, mask: Tensor, radius: Tensor) -> Tensor:
    """The noise of each slice, for samples at these distances from the centre, flattened."""
    found = []
    for samples, sampled in zip(kspace, mask.expand(len(kspace), -1, -1, -1), strict=True):
        # The squares of very large or small units would leave the range of floats.
        unit = samples.abs().amax()
        present = sampled[0] & (samples != 0).any(dim=0)
        found.append(unit * _variance(samples / unit, present, radius).sqrt())
    return torch.stack(found).float()


def _variance(samples: Tensor, present: Tensor, radius: Tensor) -> Tensor:
    """Variance of the noise of one slice ``(coils, ny, nx)``, of which ``present`` was measured."""
    coils = len(samples)
    where = present.flatten().nonzero()[:, 0]
    count = math.ceil(_OUTER_SHARE * len(where))
    if count < _LEAST_SAMPLES * coils:
        raise InputError(
            f"expected at least {_LEAST_SAMPLES * coils} samples far from the centre of "
            f"k-space to tell the noise of {coils} coils by, got {count}: give noise_std"
        )
    outwards = where[radius[where].topk(2 * count).indices]
    outer, middle = outwards[:count], outwards[count:]
    far = samples.flatten(1)[:, outer].to(torch.complex128)
    variances, directions = torch.linalg.eigh(far @ far.mH / count)
    independent = int((variances > _RANK_TOLERANCE * variances[-1]).sum())
    weak = slice(coils - independent, coils - independent + max(independent // 2, 1))
    variance = variances[weak].mean()
    if independent < ENOUGH_COILS:
        projected = torch.einsum(
            "cw,cyx->wyx", directions[:, weak].conj().to(samples.dtype), samples
        )
        power = projected.abs().square().mean(dim=0).flatten()
        quiet = _quietest_pixels(projected, present)
        if quiet is None:
            quiet = _without_edges(power[middle], radius[middle], power[outer], radius[outer])
        variance = quiet.to(variance.dtype)
    spread = 2 * math.sqrt(independent / count) if independent > 1 else 0.0
    return variance / (1 - _LOWER_HALF * spread)


def _without_edges(near: Tensor, near_radius: Tensor, far: Tensor, far_radius: Tensor) -> Tensor:
    """``σ²`` of ``σ² + a r^−3`` through the mean powers at two distances from the centre."""
    near_edges = (near_radius**-_EDGE_EXPONENT).mean()
    far_edges = (far_radius**-_EDGE_EXPONENT).mean()
    contrast = near_edges - far_edges
    if not contrast > 0:
        return far.mean()
    constant = (far.mean() * near_edges - near.mean() * far_edges) / contrast
    return constant.clamp(min=0).minimum(far.mean())


def _quietest_pixels(samples: Tensor, present: Tensor) -> Tensor | None:
    """Noise variance from the quietest pixels along the readout; ``None`` if readouts have gaps.

    Args:
        samples: ``(directions, ny, nx)`` complex.
        present: ``(ny, nx)`` bool.
    """
    nx = present.shape[1]
    read = present.any(dim=1)  # the rest is zero filling
    lines = present[read].all(dim=0).nonzero()[:, 0]
    lines = lines[(lines - nx // 2).abs().argsort(descending=True)[: (len(lines) + 1) // 2]]
    if len(lines) < _LEAST_LINES:
        return None
    # Only magnitudes count, so the transform need not be centred.
    pixels = torch.fft.ifft(samples[:, read][:, :, lines], dim=1, norm="ortho")
    power = pixels.abs().square().mean(dim=(0, 2))
    # The mean of so many exponential variables is a gamma variable (Wilson and Hilferty, 1931).
    values = len(samples) * len(lines)
    expected = (1 - 1 / (9 * values) + _QUIET_NORMAL_QUANTILE / (3 * math.sqrt(values))) ** 3
    return power.quantile(_QUIET_SHARE) / expected
