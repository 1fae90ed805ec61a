"""Quality of parameter maps, such as T2* maps, with and without their background.

With the background a map is evaluated like an image. Without it only the object counts, since maps
are noise where there is no signal, in the reference as well. Errors are averaged over the object's
pixels only; an average over the whole slice with zeros outside would add
``10 log₁₀(pixels/object)`` dB.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.metrics.image import ArrayLike, check_images, psnr, ssim, structural_similarity

_BORDER = 3
"""Border in pixels that SSIM's 7×7 window excludes on each side."""


def foreground_psnr(prediction: ArrayLike, reference: ArrayLike, foreground: ArrayLike) -> Tensor:
    """Compute the PSNR of each slice over the foreground, in dB.

    The peak is the reference's maximum in the foreground.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import foreground_psnr
        >>> reference = torch.ones(1, 8, 8)
        >>> foreground_psnr(0.9 * reference, reference, reference > 0).round()
        tensor([20.])

    Args:
        prediction: Map of shape ``(batch, ny, nx)``, NumPy or torch.
        reference: Ground-truth map of the same shape, in the same units.
        foreground: Mask of the object of shape ``(batch, ny, nx)``, bool.

    Returns:
        Values of shape ``(batch,)``, float32; infinite for equal maps.

    Raises:
        InputError: If the maps are not valid for :func:`~ctxrecon.metrics.psnr`, or the foreground
            has another shape or type or is empty.
    """
    p, r, inside = _checked(prediction, reference, foreground)
    slices = [
        psnr(a[where][None, None], b[where][None, None])
        for a, b, where in zip(p, r, inside, strict=True)
    ]
    return torch.cat(slices)


def foreground_ssim(prediction: ArrayLike, reference: ArrayLike, foreground: ArrayLike) -> Tensor:
    """Compute the SSIM of each slice, averaged over the foreground.

    Both maps are set to zero outside the foreground, for the windows that extend beyond it; the
    data range is the reference's maximum inside. Arguments, result and errors are those of
    :func:`foreground_psnr` and :func:`~ctxrecon.metrics.ssim`; a border of 3 pixels is excluded.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import foreground_ssim
        >>> reference = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> foreground_ssim(reference, reference, reference > 0)
        tensor([1.])
    """
    p, r, inside = _checked(prediction, reference, foreground)
    if min(p.shape[-2:]) <= 2 * _BORDER:
        raise InputError(
            f"expected maps of at least {2 * _BORDER + 1} pixels along each axis for SSIM, got "
            f"{tuple(p.shape[-2:])}"
        )
    p, r = p * inside, r * inside
    similarity = structural_similarity(p, r, r.amax(dim=(-2, -1), keepdim=True))
    counted = inside[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
    pixels = counted.sum(dim=(-2, -1))
    if not bool(pixels.all()):
        raise InputError(
            f"the foreground of slice {int((pixels == 0).nonzero()[0])} lies within {_BORDER} "
            "pixels of the border, where SSIM is not defined: leave it out"
        )
    return ((similarity * counted).sum(dim=(-2, -1)) / pixels).float()


def map_metrics(
    prediction: ArrayLike, reference: ArrayLike, foreground: ArrayLike
) -> dict[str, Tensor]:
    """Compute PSNR and SSIM of each slice, as in the columns BG and NBG of JoJoNet's table II.

    Arguments and errors are those of :func:`foreground_psnr` and :func:`foreground_ssim`.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import map_metrics
        >>> reference = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> list(map_metrics(reference, reference, reference > 0))
        ['psnr_bg', 'ssim_bg', 'psnr_nbg', 'ssim_nbg']

    Returns:
        ``psnr_bg`` and ``ssim_bg`` of the whole maps, ``psnr_nbg`` and ``ssim_nbg`` of the
        foreground, each ``(batch,)`` float32.
    """
    return {
        "psnr_bg": psnr(prediction, reference),
        "ssim_bg": ssim(prediction, reference),
        "psnr_nbg": foreground_psnr(prediction, reference, foreground),
        "ssim_nbg": foreground_ssim(prediction, reference, foreground),
    }


def _checked(
    prediction: ArrayLike, reference: ArrayLike, foreground: ArrayLike
) -> tuple[Tensor, Tensor, Tensor]:
    p, r = check_images(prediction, reference)
    inside = torch.as_tensor(foreground)
    if inside.dtype != torch.bool or inside.shape != p.shape:
        raise InputError(
            f"expected a boolean foreground of the maps' shape {tuple(p.shape)}, got "
            f"{inside.dtype} of shape {tuple(inside.shape)}"
        )
    inside = inside.to(p.device)
    empty = ~((r > 0) & inside).flatten(1).any(dim=1)
    if bool(empty.any()):
        raise InputError(
            f"the reference of slice {int(empty.nonzero()[0])} is zero in the foreground, or the "
            "foreground is empty: leave the slice out"
        )
    return p, r, inside
