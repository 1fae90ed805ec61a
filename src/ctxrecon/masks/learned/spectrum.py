"""The mask of the strongest samples of known spectra."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks.learned.base import mask_budget


def kspace_energy(images: Tensor) -> Tensor:
    """Mean over the images of ``|F x|²``, ``(ny, nx)`` float64.

    Args:
        images: ``(batch, ny, nx)``, real or complex.

    Raises:
        InputError: images of another shape.
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
    """The positions of the highest mean energy: InfoMRI's spectrum-based baseline.

    After Vellagoundar and Machireddy, Magn Reson Imaging 33:635 (2015). The mask is always the
    same; of equal energies the first position is taken.

    Args:
        energy: ``(ny, nx)`` real, such as :func:`kspace_energy` of a training set; the zero
            frequency lies at ``n // 2``.
        acceleration: size of the grid over the number of samples, centre included.
        center_fraction: what is always kept, as in ``uniform1d`` or, for single samples,
            ``variable_density2d``.
        lines: whether whole lines along ``ny`` are chosen, by their summed energy, or single
            samples.

    Returns:
        ``(1, 1, ny, nx)`` bool, ``True`` where sampled.

    Raises:
        InputError: an energy that is not a real image, is negative or not finite; an impossible
            acceleration or centre.
    """
    if energy.ndim != 2 or energy.is_complex():
        raise InputError(
            f"expected the energy as a real (ny, nx), got {energy.dtype} {tuple(energy.shape)}: "
            "use kspace_energy on images"
        )
    if not bool((torch.isfinite(energy) & (energy >= 0)).all()):
        raise InputError("the energy has negative, NaN or infinite values: compute it again")
    ny, nx = energy.shape
    budget = mask_budget((ny, nx), lines, center_fraction, float(acceleration))
    strength = (energy.double().sum(dim=0) if lines else energy.double().flatten()).cpu()
    strength = strength.masked_fill(budget.center, torch.inf)
    chosen = torch.zeros_like(budget.center)
    chosen[torch.argsort(strength, descending=True, stable=True)[: budget.count]] = True
    return (chosen.expand(ny, nx) if lines else chosen.view(ny, nx))[None, None].contiguous()
