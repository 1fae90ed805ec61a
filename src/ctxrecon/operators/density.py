"""How densely a trajectory samples k-space: weights that make up for it, and what it covers."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.fourier import fft2c
from ctxrecon.operators.non_cartesian import NonCartesianSense

_ITERATIONS = 15


def density_compensation(trajectory: Tensor, shape: tuple[int, int]) -> Tensor:
    """The area of k-space that each sample of a trajectory stands for, at most that of one cell.

    ``w ← w / C w`` (Pipe and Menon, Magn. Reson. Med. 41, 179, 1999), 15 times, where C convolves
    with ``sinc²`` along both axes, 1 at the sample itself and zero at the other points of the
    Cartesian grid. So weights are 1 on that grid, and 1 for a sample that is alone: where k-space
    is undersampled they do not make up for what is missing, and data weights mean what they mean
    for an undersampled Cartesian scan.

    Args:
        trajectory: ``(shots·samples, 2)`` real, ``(k_y, k_x)`` in radians per pixel.
        shape: ``(ny, nx)`` of the images.

    Returns:
        ``(shots·samples,)`` float32, positive, for :class:`NonCartesianSense`.

    Raises:
        InputError: a trajectory that :class:`NonCartesianSense` refuses.
    """
    spread = _spreading(trajectory, shape)
    weights = torch.ones(1, 1, len(trajectory), dtype=torch.complex64)
    for _ in range(_ITERATIONS):
        weights = weights / spread(spread.H(weights)).real
    return weights[0, 0].real


def coverage(trajectory: Tensor, weights: Tensor, shape: tuple[int, int]) -> Tensor:
    """How much of each cell of the Cartesian grid samples cover, ``(ny, nx)`` real.

    ``C w`` at the points of the grid: about 1 where the sampling is dense enough, 0.4 in the
    middle of gaps of 1.3 cells, 0 far from all samples.

    Args:
        trajectory: ``(shots·samples, 2)`` real, ``(k_y, k_x)`` in radians per pixel.
        weights: of :func:`density_compensation`.
        shape: ``(ny, nx)`` of the images.
    """
    spread = _spreading(trajectory, shape)
    images = spread.coil_maps[:, 0] * spread.H(weights[None, None].to(torch.complex64))
    ny, nx = shape
    return fft2c(images)[0, ny % 2 :: 2, nx % 2 :: 2].real


def _spreading(trajectory: Tensor, shape: tuple[int, int]) -> NonCartesianSense:
    """``A`` with ``A Aᴴ = C``: the transform of ``sinc²`` is a triangle over twice the image."""
    ny, nx = (1 - (torch.arange(2 * n) - n).abs() / n for n in shape)
    root = 2 * (ny[:, None] * nx).sqrt()
    return NonCartesianSense(trajectory, root[None, None].to(torch.complex64))
