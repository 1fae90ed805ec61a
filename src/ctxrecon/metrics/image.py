"""Image quality of magnitude images: PSNR, SSIM, NMSE, SNR, HFEN, sharpness.

Images are not rescaled: a prediction in other units than its reference counts as wrong. The data
range is the reference's maximum, per slice or over the volume. Report the aggregation together with
the numbers, since it changes a PSNR by several decibels.
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
    r"""Compute the peak signal-to-noise ratio in dB.

    .. math::

        \mathrm{PSNR} = 10 \log_{10} \frac{\max(|r|)^2}{\operatorname{mean}((|p| - |r|)^2)}

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import psnr
        >>> psnr(torch.full((1, 8, 8), 0.9), torch.ones(1, 8, 8)).round()
        tensor([20.])

    Args:
        prediction: Image of shape ``(batch, ny, nx)``, complex or real, NumPy or torch; its
            magnitude is used.
        reference: Ground truth of the same shape, in the same units.
        aggregation: ``"slice"`` computes maximum and mean per slice, ``"volume"`` over the whole
            batch as one volume.

    Returns:
        Values of shape ``(batch,)``, float32, or a scalar for ``"volume"``; infinite for equal
        images.

    Raises:
        InputError: If shapes differ or are not ``(batch, ny, nx)``, values are not finite, the
            reference is zero, or the aggregation is unknown.
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
    """Compute the normalized mean squared error ``‖|p| - |r|‖² / ‖|r|‖²``.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import nmse
        >>> nmse(torch.zeros(1, 8, 8), torch.ones(1, 8, 8))
        tensor([1.])

    Arguments and errors are those of :func:`psnr`; the result is 0 for equal images.
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
    """Compute the signal-to-noise ratio in dB, ``10 log10(‖|r|‖² / ‖|p| - |r|‖²)``.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import snr
        >>> snr(torch.full((1, 8, 8), 0.9), torch.ones(1, 8, 8)).round()
        tensor([20.])

    Arguments, result and errors are those of :func:`psnr`.
    """
    return -10.0 * torch.log10(nmse(prediction, reference, aggregation=aggregation))


def ssim(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> Tensor:
    r"""Compute the structural similarity (Wang et al. 2004) with a uniform 7×7 window.

    .. math::

        \mathrm{SSIM} = \frac{(2 \mu_p \mu_r + c_1)(2 \sigma_{pr} + c_2)}
            {(\mu_p^2 + \mu_r^2 + c_1)(\sigma_p^2 + \sigma_r^2 + c_2)}

    It follows the convention of fastMRI and of scikit-image's defaults: K1 = 0.01, K2 = 0.03,
    sample covariances, a border of 3 pixels excluded from the mean, and the reference's maximum as
    data range. Arguments, result and errors are those of :func:`psnr`; ``"volume"`` is the mean
    over slices with the range of the volume.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import ssim
        >>> image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> ssim(image, image)
        tensor([1.])

    Raises:
        InputError: If the images are smaller than the window, or not valid for :func:`psnr`.
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
    """Compute the SSIM map, which is differentiable and 6 pixels shorter along each axis.

    Args:
        p: Magnitudes of the prediction, ``(batch, ny, nx)``.
        r: Magnitudes of the reference, ``(batch, ny, nx)``.
        data_range: Data range of each slice, ``(batch, 1, 1)``.
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
    r"""Compute the high-frequency error norm with a Laplacian of Gaussian L.

    .. math::

        \mathrm{HFEN} = \bigl\| L |p| - L |r| \bigr\| \,/\, \bigl\| L |r| \bigr\|

    Ravishankar and Bresler, IEEE Trans Med Imaging 30:1028 (2011): the filter has 15×15 pixels and
    a standard deviation of 1.5 pixels. It measures the accuracy of edges and fine detail. Arguments
    and errors are those of :func:`psnr`; the result is 0 for equal images.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import hfen
        >>> image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> hfen(image, image)
        tensor([0.])
    """
    p, r = _magnitudes(prediction, reference, aggregation)
    radius = torch.arange(_LOG_SIZE, dtype=torch.float64, device=p.device) - _LOG_SIZE // 2
    square = (radius[:, None].square() + radius.square()) / (2 * _LOG_SIGMA**2)
    kernel = (square - 1) * torch.exp(-square)
    kernel -= kernel.mean()
    # FFTs, since a direct convolution would need 225 times the memory.
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
    """Compute the ratio of total variations, ``‖∇|p|‖₁ / ‖∇|r|‖₁``.

    Below 1 the prediction is smoother than its reference; above 1 it has edges, noise or texture
    that the reference lacks. Use it together with :func:`hfen`, which measures whether edges are in
    place. Arguments and errors are those of :func:`psnr`; the result is 1 for equal images.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import sharpness
        >>> image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> sharpness(image / 2, image)
        tensor([0.5000])
    """
    p, r = _magnitudes(prediction, reference, aggregation)
    found, wanted = _total_variation(p), _total_variation(r)
    if aggregation == "volume":
        found, wanted = found.sum(), wanted.sum()
    return (found / wanted).float()


def _total_variation(image: Tensor) -> Tensor:
    """Return the total variation of each slice, ``(batch,)``."""
    vertical, horizontal = (image.diff(dim=axis).abs().sum(dim=(-2, -1)) for axis in (-2, -1))
    return vertical + horizontal


def image_metrics(
    prediction: ArrayLike, reference: ArrayLike, *, aggregation: Aggregation = "slice"
) -> dict[str, Tensor]:
    """Compute all image metrics of this module, by name.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import image_metrics
        >>> image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> list(image_metrics(image, image))
        ['psnr', 'ssim', 'nmse', 'snr', 'hfen', 'sharpness']

    Arguments and errors are those of :func:`psnr` and :func:`ssim`.
    """
    functions = (psnr, ssim, nmse, snr, hfen, sharpness)
    return {
        function.__name__: function(prediction, reference, aggregation=aggregation)
        for function in functions
    }


def check_images(prediction: ArrayLike, reference: ArrayLike) -> tuple[Tensor, Tensor]:
    """Validate two images and return their magnitudes ``(batch, ny, nx)``, float64.

    Raises:
        InputError: If shapes differ or are not ``(batch, ny, nx)``, or values are not finite.
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
            raise InputError(f"the {name} contains NaN or infinite values")
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
