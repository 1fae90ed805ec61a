"""Sampling density of trajectories: compensation weights and coverage of k-space."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.fourier import fft2c
from ctxrecon.operators.non_cartesian import NonCartesianSense

_ITERATIONS = 15


def density_compensation(trajectory: Tensor, shape: tuple[int, int]) -> Tensor:
    r"""Compute the k-space area of each sample of a trajectory, at most that of one grid cell.

    The iteration of Pipe and Menon (Magn. Reson. Med. 41, 179, 1999),

    .. math::

        w \leftarrow w / (C w),

    runs 15 times. C is the convolution with ``sinc²`` along both axes, which is 1 at the sample
    itself and 0 at the other points of the Cartesian grid. Weights are therefore 1 on that grid and
    for isolated samples: they do not compensate for undersampling, and data weights have the same
    meaning as for an undersampled Cartesian scan.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import density_compensation
        >>> axis = torch.linspace(-torch.pi, torch.pi, 9)[:-1]
        >>> density_compensation(torch.cartesian_prod(axis, axis), (8, 8)).shape
        torch.Size([64])

    Args:
        trajectory: Real tensor of shape ``(shots·samples, 2)``, ``(k_y, k_x)`` in radians per
            pixel.
        shape: Shape ``(ny, nx)`` of the images.

    Returns:
        Positive weights of shape ``(shots·samples,)``, float32, for :class:`NonCartesianSense`.

    Raises:
        InputError: If the trajectory is not valid for :class:`NonCartesianSense`.
    """
    spread = _spreading(trajectory, shape)
    weights = torch.ones(1, 1, len(trajectory), dtype=torch.complex64)
    for _ in range(_ITERATIONS):
        weights = weights / spread(spread.H(weights)).real
    return weights[0, 0].real


def coverage(trajectory: Tensor, weights: Tensor, shape: tuple[int, int]) -> Tensor:
    """Compute how densely each cell of the Cartesian grid is sampled, real ``(ny, nx)``.

    The result is ``C w`` at the points of the grid: about 1 where the sampling is dense enough, 0.4
    in the middle of gaps of 1.3 cells, and 0 far from all samples.

    Args:
        trajectory: Real tensor of shape ``(shots·samples, 2)``, ``(k_y, k_x)`` in radians per
            pixel.
        weights: Weights from :func:`density_compensation`.
        shape: Shape ``(ny, nx)`` of the images.
    """
    spread = _spreading(trajectory, shape)
    images = spread.coil_maps[:, 0] * spread.H(weights[None, None].to(torch.complex64))
    ny, nx = shape
    return fft2c(images)[0, ny % 2 :: 2, nx % 2 :: 2].real


def _spreading(trajectory: Tensor, shape: tuple[int, int]) -> NonCartesianSense:
    """Return ``A`` with ``A Aᴴ = C``; ``sinc²`` transforms to a triangle over twice the image."""
    ny, nx = (1 - (torch.arange(2 * n) - n).abs() / n for n in shape)
    root = 2 * (ny[:, None] * nx).sqrt()
    return NonCartesianSense(trajectory, root[None, None].to(torch.complex64))
