"""Masks of the strongest samples of a known spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks.learned.base import mask_budget


def kspace_energy(images: Tensor) -> Tensor:
    """Return the mean of ``|F x|²`` over the images, ``(ny, nx)`` float64.

    Args:
        images: Real or complex images ``(batch, ny, nx)``.

    Raises:
        InputError: If the images have another shape.
    """
    if images.ndim != 3 or len(images) == 0:
        raise InputError(f"expected images (batch, ny, nx), got shape {tuple(images.shape)}")
    return fft2c(images.to(torch.complex64)).abs().double().square().mean(dim=0)


def spectrum_mask(
    energy: Tensor,
    acceleration: float,
    center_fraction: float | None = None,
    *,
    lines: bool = True,
) -> Tensor:
    """Select the positions with the highest mean energy (InfoMRI's spectrum-based baseline).

    After Vellagoundar and Machireddy, Magn Reson Imaging 33:635 (2015). The mask is
    deterministic; among equal energies the first position is selected.

    Args:
        energy: Real energy ``(ny, nx)``, such as :func:`kspace_energy` of a training set, with the
            zero frequency at ``n // 2``.
        acceleration: Grid size divided by the number of samples, center included.
        center_fraction: Share that is always sampled, as in ``uniform1d`` or, for single samples,
            ``variable_density2d``.
        lines: If true, select whole lines along ``ny`` by their summed energy; otherwise single
            samples.

    Returns:
        Mask ``(1, 1, ny, nx)``, bool, ``True`` where sampled.

    Raises:
        InputError: If the energy is not a real image, is negative or not finite, or the
            acceleration or center is impossible.

    Example:
        >>> import torch
        >>> from ctxrecon.masks.learned import kspace_energy, spectrum_mask
        >>> energy = kspace_energy(torch.rand(4, 32, 32))
        >>> int(spectrum_mask(energy, acceleration=4)[0, 0, 0].sum())
        8
    """
    if energy.ndim != 2 or energy.is_complex():
        raise InputError(
            f"expected `energy` as a real (ny, nx), got {energy.dtype} {tuple(energy.shape)}: "
            "use kspace_energy on images"
        )
    if not bool((torch.isfinite(energy) & (energy >= 0)).all()):
        raise InputError("`energy` has negative, NaN or infinite values: compute it again")
    ny, nx = energy.shape
    budget = mask_budget((ny, nx), lines, center_fraction, float(acceleration))
    strength = (energy.double().sum(dim=0) if lines else energy.double().flatten()).cpu()
    strength = strength.masked_fill(budget.center, torch.inf)
    chosen = torch.zeros_like(budget.center)
    chosen[torch.argsort(strength, descending=True, stable=True)[: budget.count]] = True
    return (chosen.expand(ny, nx) if lines else chosen.view(ny, nx))[None, None].contiguous()
