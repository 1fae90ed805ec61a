"""Image quality of magnitude images: PSNR, SSIM, NMSE, SNR.

Nothing is rescaled: a prediction in other units than its reference is a wrong prediction. The
data range is the reference's maximum, of each slice or of the volume, and the aggregation has to
be named beside the numbers: it alone moves a PSNR by several decibels.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ctxrecon.errors import InputError

Aggregation: TypeAlias = Literal["slice", "volume"]
ArrayLike: TypeAlias = "Tensor | np.ndarray"

_WINDOW = 7
_K1, _K2 = 0.01, 0.03


def psnr(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``10 log10(max(|r|)² / mean((|p| - |r|)²))``.

    Args:
        prediction: ``(batch, ny, nx)`` complex or real, NumPy or torch; its magnitude counts.
        reference: ground truth of the same shape, in the same units.
        aggregation: ``"slice"`` takes maximum and mean over each slice, ``"volume"`` over the
            whole batch, taken as one volume.

    Returns:
        ``(batch,)`` float32, or a scalar for ``"volume"``; infinite where the two agree.

    Raises:
        InputError: for shapes that differ or are not ``(batch, ny, nx)``, NaN or infinite values,
            a reference that is zero, or an unknown aggregation.
    """
    p, r = _magnitudes(prediction, reference, aggregation)
    peak = r.amax(dim=(-2, -1))
    error = (p - r).square().mean(dim=(-2, -1))
    if aggregation == "volume":
        peak, error = peak.amax(), error.mean()
    return (10.0 * torch.log10(peak.square() / error)).float()


def nmse(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> Tensor:
    """Normalised mean squared error ``‖|p| - |r|‖² / ‖|r|‖²``.

    Arguments, result and errors are those of :func:`psnr`; 0 where the two agree.
    """
    p, r = _magnitudes(prediction, reference, aggregation)
    error = (p - r).square().sum(dim=(-2, -1))
    energy = r.square().sum(dim=(-2, -1))
    if aggregation == "volume":
        error, energy = error.sum(), energy.sum()
    return (error / energy).float()


def snr(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> Tensor:
    """Signal-to-noise ratio in dB, ``10 log10(‖|r|‖² / ‖|p| - |r|‖²)``.

    Arguments, result and errors are those of :func:`psnr`.
    """
    return -10.0 * torch.log10(nmse(prediction, reference, aggregation=aggregation))


def ssim(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> Tensor:
    """Structural similarity (Wang et al. 2004) with a uniform 7×7 window.

    The convention of fastMRI and of scikit-image's defaults: K1 = 0.01, K2 = 0.03, sample
    covariances, the border of 3 pixels left out of the mean, data range = the reference's
    maximum. Arguments, result and errors are those of :func:`psnr`; ``"volume"`` is the mean over
    slices with the range of the volume.

    Raises:
        InputError: also for images smaller than the window.
    """
    p, r = _magnitudes(prediction, reference, aggregation)
    if min(p.shape[-2:]) < _WINDOW:
        raise InputError(
            f"expected images of at least {_WINDOW}x{_WINDOW} for SSIM, got {tuple(p.shape[-2:])}"
        )
    data_range = r.amax(dim=(-2, -1), keepdim=True)
    if aggregation == "volume":
        data_range = data_range.amax().expand_as(data_range)
    moments = torch.stack([p, r, p * p, r * r, p * r], dim=1)
    mean_p, mean_r, mean_pp, mean_rr, mean_pr = avg_pool2d(moments, _WINDOW, stride=1).unbind(1)
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    var_p = unbiased * (mean_pp - mean_p * mean_p)
    var_r = unbiased * (mean_rr - mean_r * mean_r)
    covariance = unbiased * (mean_pr - mean_p * mean_r)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_p * mean_r + c1) / (mean_p**2 + mean_r**2 + c1)
    structure = (2 * covariance + c2) / (var_p + var_r + c2)
    per_slice = (luminance * structure).mean(dim=(-2, -1))
    return (per_slice.mean() if aggregation == "volume" else per_slice).float()


def image_metrics(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> dict[str, Tensor]:
    """``psnr``, ``ssim``, ``nmse`` and ``snr`` at once, by name.

    Arguments and errors are those of :func:`psnr` and :func:`ssim`.
    """
    functions = {"psnr": psnr, "ssim": ssim, "nmse": nmse, "snr": snr}
    return {
        name: function(prediction, reference, aggregation=aggregation)
        for name, function in functions.items()
    }


def check_images(prediction: ArrayLike, reference: ArrayLike) -> tuple[Tensor, Tensor]:
    """Magnitudes ``(batch, ny, nx)`` float64 of two images that can be compared.

    Raises:
        InputError: as :func:`psnr`.
    """
    p, r = torch.as_tensor(prediction), torch.as_tensor(reference)
    if p.shape != r.shape:
        raise InputError(
            "expected prediction and reference of one shape, got "
            f"{tuple(p.shape)} and {tuple(r.shape)}"
        )
    if p.ndim != 3 or p.numel() == 0:
        raise InputError(f"expected images (batch, ny, nx), got shape {tuple(p.shape)}")
    p, r = p.abs().double(), r.abs().double()
    for name, image in (("prediction", p), ("reference", r)):
        if not bool(torch.isfinite(image).all()):
            raise InputError(f"the {name} holds NaN or infinite values")
    return p, r.to(p.device)


def _magnitudes(
    prediction: ArrayLike, reference: ArrayLike, aggregation: str
) -> tuple[Tensor, Tensor]:
    if aggregation not in ("slice", "volume"):
        raise InputError(f"expected aggregation 'slice' or 'volume', got {aggregation!r}")
    p, r = check_images(prediction, reference)
    empty = (r == 0).flatten(1).all(dim=1)
    if bool(empty.all()) or (aggregation == "slice" and bool(empty.any())):
        raise InputError(
            f"the reference of slice {int(empty.nonzero()[0])} is zero everywhere: leave it out, "
            "or aggregate over the volume"
        )
    return p, r
