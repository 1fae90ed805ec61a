"""Sinc interpolation of images to a finer pixel grid."""

from __future__ import annotations

import math

from torch import Tensor

from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.operators._checks import check_complex64
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import freeze
from ctxrecon.operators.crop import Crop


class SincInterpolation(LinearOperator):
    r"""Sinc interpolation of an image to more pixels of the same field of view.

    .. math::

        U = \sqrt{\frac{N_y N_x}{n_y n_x}}\; F^H C^H F_s, \qquad
        U^H U = \frac{N_y N_x}{n_y n_x}\, I

    ``F_s`` is the centered orthonormal FFT of the small image, ``Cᴴ`` fills k-space with zeros and
    ``Fᴴ`` is the inverse FFT of the full image. The factor preserves pixel values: constant images
    keep their value.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import SincInterpolation
        >>> operator = SincInterpolation((1, 16, 16), (8, 8))
        >>> operator(torch.ones(1, 8, 8, dtype=torch.complex64)).shape
        torch.Size([1, 16, 16])

    Args:
        shape: Shape ``(batch, NY, NX)`` of the full image.
        small: Shape ``(ny, nx)`` of the image to interpolate.

    Raises:
        InputError: If ``small`` does not fit inside ``shape``.
    """

    _batched = ("_crop",)

    _crop: Crop

    def __init__(self, shape: tuple[int, int, int], small: tuple[int, int]) -> None:
        freeze(self, _crop=Crop(shape, small))

    @property
    def ratio(self) -> float:
        """Number of pixels of the full image per pixel of the small one, ``NY NX / (ny nx)``."""
        return math.prod(self.range_shape[1:]) / math.prod(self.domain_shape[1:])

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, ny, nx)``."""
        return self._crop.range_shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, NY, NX)``."""
        return self._crop.domain_shape

    def forward(self, x: Tensor) -> Tensor:
        """Interpolate the small image to the full grid."""
        check_complex64(x, self.domain_shape, "a small image")
        return ifft2c(self._crop.adjoint(fft2c(x))) * math.sqrt(self.ratio)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return the low frequencies of the full image, times ``NY NX / (ny nx)``."""
        check_complex64(y, self.range_shape, "an image")
        return ifft2c(self._crop.forward(fft2c(y))) * math.sqrt(self.ratio)
