"""Estimation of the noise level from the measurement itself."""

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
"""Smallest number of independent coils for which some directions are free of signal."""
# Relative to the largest eigenvalue; directions below it are combinations of other coils.
_RANK_TOLERANCE = 1e-12
# Mean of the lower half of a semicircle, in radii from its center
_LOWER_HALF = 4 / (3 * math.pi)
# The power of images with edges falls with this power of the k-space radius.
_EDGE_EXPONENT = 3
_QUIET_SHARE, _QUIET_NORMAL_QUANTILE = 0.1, -1.2816


def estimate_noise_std(kspace: Tensor, mask: Tensor) -> Tensor:
    """Estimate the noise standard deviation of a complex k-space sample.

    Far from the center the signals of neighboring coils are nearly equal, while noise that is white
    over the coils (prewhitened) fills all directions. The noise variance is therefore the mean of
    the smaller half of the eigenvalues of the coil covariance, over the outermost quarter of the
    samples (distances in units of the half axes). White noise of C coils in N samples spreads the
    eigenvalues by about ``2√(C/N)`` to either side (Marchenko and Pastur), which is corrected for.
    Exact zeros, as from zero filling, and coils that are linear combinations of others are ignored.

    With fewer than four independent coils, even the weakest direction contains signal. If readouts
    are complete, the power of the quietest tenth of the pixels along the readout is used, which is
    air if the field of view is larger than the object; images that fill it appear noisier than they
    are. If readouts have gaps, the outer power minus a part that falls with the third power of the
    radius, as edges do, is used, which may underestimate the noise.

    Args:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex, zero frequency at ``n // 2``.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool.

    Returns:
        Standard deviation of shape ``(batch,)``, float32, real and imaginary parts together, in the
        units of ``kspace``.

    Raises:
        InputError: If there are fewer than 16 outer samples per coil.
    """
    ny, nx = kspace.shape[2:]
    ky = (torch.arange(ny, device=kspace.device) - ny // 2) / max(ny / 2, 1)
    kx = (torch.arange(nx, device=kspace.device) - nx // 2) / max(nx / 2, 1)
    return _estimate(kspace, mask, torch.hypot(ky[:, None], kx[None, :]).flatten())


def estimate_noise_along(operator: NonCartesianSense, y: Tensor) -> Tensor:
    """Estimate the noise of ``y = A x + n`` along a trajectory, as a root mean square over samples.

    The estimate uses samples without their weights, since the noise of ``y`` varies with these.

    Args:
        operator: Operator ``A``.
        y: Samples of shape ``(batch, coils, shots·samples)``, complex64, weighted by the operator's
            ``compensate``.

    Returns:
        Standard deviation of shape ``(batch,)``, float32, in the units of ``y``.

    Raises:
        InputError: If there are fewer than 16 outer samples per coil.
    """
    weights = operator.density_compensation
    weights = torch.ones(y.shape[-1]) if weights is None else weights
    weights = weights.to(y.device)
    radius = operator.trajectory.norm(dim=1).to(y.device)
    # As a single column, which has no readouts to transform along
    samples = torch.where(weights > 0, y / weights.sqrt(), 0)[..., None]
    everywhere = torch.ones(1, 1, *samples.shape[2:], dtype=torch.bool, device=y.device)
    return _estimate(samples, everywhere, radius) * weights.mean().sqrt()


def _estimate(kspace: Tensor, mask: Tensor, radius: Tensor) -> Tensor:
    """Estimate the noise of each slice; ``radius`` holds flattened distances from the center."""
    found = []
    for samples, sampled in zip(kspace, mask.expand(len(kspace), -1, -1, -1), strict=True):
        # Scaled, because squares of very large or small units exceed the range of floats
        unit = samples.abs().amax()
        present = sampled[0] & (samples != 0).any(dim=0)
        found.append(unit * _variance(samples / unit, present, radius).sqrt())
    return torch.stack(found).float()


def _variance(samples: Tensor, present: Tensor, radius: Tensor) -> Tensor:
    """Return the noise variance of a slice ``(coils, ny, nx)`` with the measured ``present``."""
    coils = len(samples)
    where = present.flatten().nonzero()[:, 0]
    count = math.ceil(_OUTER_SHARE * len(where))
    if count < _LEAST_SAMPLES * coils:
        raise InputError(
            f"expected at least {_LEAST_SAMPLES * coils} samples far from the center of k-space "
            f"to estimate the noise of {coils} coils, got {count}: pass noise_std"
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
    """Return ``σ²`` of ``σ² + a r^−3`` from mean powers at two distances from the center."""
    near_edges = (near_radius**-_EDGE_EXPONENT).mean()
    far_edges = (far_radius**-_EDGE_EXPONENT).mean()
    contrast = near_edges - far_edges
    if not contrast > 0:
        return far.mean()
    constant = (far.mean() * near_edges - near.mean() * far_edges) / contrast
    return constant.clamp(min=0).minimum(far.mean())


def _quietest_pixels(samples: Tensor, present: Tensor) -> Tensor | None:
    """Return the noise variance of the quietest pixels along the readout, ``None`` with gaps.

    Args:
        samples: Samples of shape ``(directions, ny, nx)``, complex.
        present: Measured samples of shape ``(ny, nx)``, bool.
    """
    nx = present.shape[1]
    read = present.any(dim=1)  # other rows are zero filling
    lines = present[read].all(dim=0).nonzero()[:, 0]
    lines = lines[(lines - nx // 2).abs().argsort(descending=True)[: (len(lines) + 1) // 2]]
    if len(lines) < _LEAST_LINES:
        return None
    # Only magnitudes are used, so the transform need not be centered.
    pixels = torch.fft.ifft(samples[:, read][:, :, lines], dim=1, norm="ortho")
    power = pixels.abs().square().mean(dim=(0, 2))
    # A mean of exponential variables has a gamma distribution (Wilson and Hilferty, 1931).
    values = len(samples) * len(lines)
    expected = (1 - 1 / (9 * values) + _QUIET_NORMAL_QUANTILE / (3 * math.sqrt(values))) ** 3
    return power.quantile(_QUIET_SHARE) / expected
