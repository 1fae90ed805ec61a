"""Image quality of magnitude images: PSNR, SSIM, NMSE, SNR, HFEN, sharpness.

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
_LOG_SIZE, _LOG_SIGMA = 15, 1.5


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
    per_slice = structural_similarity(p, r, data_range).mean(dim=(-2, -1))
    return (per_slice.mean() if aggregation == "volume" else per_slice).float()


def structural_similarity(p: Tensor, r: Tensor, data_range: Tensor) -> Tensor:
    """The map of SSIM, differentiable; 6 pixels shorter along each axis.

    Args:
        p: magnitudes ``(batch, ny, nx)``.
        r: the reference's.
        data_range: ``(batch, 1, 1)``.
    """
    moments = torch.stack([p, r, p * p, r * r, p * r], dim=1)
    mean_p, mean_r, mean_pp, mean_rr, mean_pr = avg_pool2d(moments, _WINDOW, stride=1).unbind(1)
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    var_p = unbiased * (mean_pp - mean_p * mean_p)
    var_r = unbiased * (mean_rr - mean_r * mean_r)
    covariance = unbiased * (mean_pr - mean_p * mean_r)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_p * mean_r + c1) / (mean_p**2 + mean_r**2 + c1)
    structure = (2 * covariance + c2) / (var_p + var_r + c2)
    return luminance * structure


def hfen(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> Tensor:
    """High-frequency error norm, ``‖L|p| - L|r|‖ / ‖L|r|‖``, L a Laplacian of Gaussian.

    Ravishankar and Bresler, IEEE Trans Med Imaging 30:1028 (2011): 15×15, standard deviation 1.5
    pixels; how well edges and fine detail are where they belong. Arguments, result and errors are
    those of :func:`psnr`; 0 where the two agree.
    """
    p, r = _magnitudes(prediction, reference, aggregation)
    radius = torch.arange(_LOG_SIZE, dtype=torch.float64, device=p.device) - _LOG_SIZE // 2
    square = (radius[:, None].square() + radius.square()) / (2 * _LOG_SIGMA**2)
    kernel = (square - 1) * torch.exp(-square)
    kernel -= kernel.mean()
    # By Fourier transforms: a direct convolution would take 225 times the memory.
    full = [n + _LOG_SIZE - 1 for n in p.shape[-2:]]
    spectrum, middle = torch.fft.rfft2(kernel, s=full), slice(_LOG_SIZE // 2, -(_LOG_SIZE // 2))

    def energy_of_edges(image: Tensor) -> Tensor:
        edges = torch.fft.irfft2(torch.fft.rfft2(image, s=full) * spectrum, s=full)
        return edges[..., middle, middle].square().sum(dim=(-2, -1))

    error, energy = energy_of_edges(p - r), energy_of_edges(r)
    if aggregation == "volume":
        error, energy = error.sum(), energy.sum()
    return (error / energy).sqrt().float()


def sharpness(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> Tensor:
    """``‖∇|p|‖₁ / ‖∇|r|‖₁``: below 1 a prediction is smoother than its reference.

    Above 1 it has edges, noise or texture that the reference has not: beside :func:`hfen`, which
    tells whether they are in place, not instead of it. Arguments, result and errors are those of
    :func:`psnr`; 1 where the two agree.
    """
    p, r = _magnitudes(prediction, reference, aggregation)
    found, wanted = _total_variation(p), _total_variation(r)
    if aggregation == "volume":
        found, wanted = found.sum(), wanted.sum()
    return (found / wanted).float()


def _total_variation(image: Tensor) -> Tensor:
    """Of each slice, ``(batch,)``."""
    vertical, horizontal = (image.diff(dim=axis).abs().sum(dim=(-2, -1)) for axis in (-2, -1))
    return vertical + horizontal


def image_metrics(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> dict[str, Tensor]:
    """All of the above at once, by name.

    Arguments and errors are those of :func:`psnr` and :func:`ssim`.
    """
    functions = (psnr, ssim, nmse, snr, hfen, sharpness)
    return {
        function.__name__: function(prediction, reference, aggregation=aggregation)
        for function in functions
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
