"""Adaptive combination (Walsh): coil maps as eigenvectors of the local coil covariance."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ctxrecon.coils._checks import check_kspace
from ctxrecon.coils._eigenmaps import (
    automatic_crop,
    images_on_grid,
    leading_eigenpair,
    one_set,
    principal_components,
)

_GRID_SIZE = 40
_BLOCK = 3
_CROPPED_ENERGY = 0.005


def walsh(
    calibration: Tensor,
    shape: tuple[int, int],
    *,
    crop: float | Literal["auto"] = "auto",
) -> Tensor:
    r"""Estimate coil maps by adaptive combination (Walsh et al., Magn Reson Med 43:682, 2000).

    The map :math:`S(q)` is the leading eigenvector of the local covariance (for white noise)

    .. math::

        R(q)_{cc'} = \sum_{p \,\mathrm{near}\, q} x_c(p)\, \bar{x}_{c'}(p),

    where :math:`x_c` are the low-resolution images of the calibration data and "near" is a block of
    a thirteenth of the field of view. The phase is that of :func:`ctxrecon.coils.espirit`.

    The method is much cheaper than ESPIRiT and less exact, because it averages over the resolution
    of the calibration data. It suits fast previews with 20 center lines or more.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import walsh
        >>> walsh(torch.ones(1, 4, 16, 16, dtype=torch.complex64), (32, 32)).shape
        torch.Size([1, 4, 32, 32])

    Args:
        calibration: Calibration data of shape ``(batch, coils, cy, cx)``, complex, any scale.
        shape: Shape ``(ny, nx)`` of the maps.
        crop: Threshold of the fraction of local signal explained by the maps, ``λ / tr R``, which
            lies between ``1 / coils`` and 1. Maps are zero below it; 0 disables cropping.
            ``"auto"`` is 0.95, or less where that would remove more than 0.5 % of the energy.

    Returns:
        Coil maps of shape ``(batch, coils, ny, nx)``, complex64, with ``Σ_c |S_c|² = 1`` except
        where cropped.

    Raises:
        InputError: If the calibration data are malformed.
    """
    check_kspace(calibration)
    calibration = calibration.to(torch.complex64)
    # The covariance squares the data: scaling first avoids underflow and overflow.
    calibration = calibration / calibration.abs().amax(dim=(1, 2, 3), keepdim=True)
    grid = (min(shape[0], _GRID_SIZE), min(shape[1], _GRID_SIZE))
    images = images_on_grid(calibration, grid).permute(0, 2, 3, 1)
    energy = (images.real**2 + images.imag**2).sum(dim=-1)
    # R = X Xᴴ, where the columns of X are the samples of the block. XᴴX has the same non-zero
    # eigenvalues, and its size does not grow with the number of coils.
    samples = _blocks(images)
    gram = samples.mH @ samples
    power = gram.diagonal(dim1=-2, dim2=-1).real.sum(dim=-1).clamp_min(1e-30)
    weights, values = leading_eigenpair(gram / power[..., None, None])
    vectors = (samples @ weights[..., None])[..., 0]
    vectors = vectors * (values * power).clamp_min(1e-30).rsqrt()[..., None]
    reference = principal_components(calibration, 1)[..., 0]
    maps, explained = one_set(vectors, values, reference, shape)
    if crop == "auto":
        crops = automatic_crop(energy, values, _CROPPED_ENERGY * energy.sum(dim=(1, 2)))
    else:
        crops = torch.full_like(energy[:, 0, 0], crop)
    return maps * (explained >= crops[:, None, None])[:, None]


def _blocks(images: Tensor) -> Tensor:
    """Return the block around each point of the grid, ``(batch, gy, gx, coils, samples)``."""
    steps = range(-(_BLOCK // 2), _BLOCK // 2 + 1)
    return torch.stack([images.roll((y, x), dims=(1, 2)) for y in steps for x in steps], dim=-1)
