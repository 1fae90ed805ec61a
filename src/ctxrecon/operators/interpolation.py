"""Images on a finer grid of pixels."""

from __future__ import annotations

import math

from torch import Tensor

from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.operators._checks import check_complex64
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import freeze
from ctxrecon.operators.crop import Crop


class SincInterpolation(LinearOperator):
    """``U = √(NY NX / (ny nx)) Fᴴ Cᴴ F_s``: an image on more pixels of the same field of view.

    ``F_s`` is the centred orthonormal FFT of the small image, ``Cᴴ`` fills k-space with zeros and
    ``Fᴴ`` is the inverse FFT of the full image. The factor keeps the values of pixels: a constant
    image stays what it is. ``UᴴU = (NY NX / (ny nx)) I``.

    Args:
        shape: ``(batch, NY, NX)`` of the full image.
        small: ``(ny, nx)`` of the image that is interpolated.

    Raises:
        InputError: ``small`` does not fit inside ``shape``.
    """

    _batched = ("_crop",)

    _crop: Crop

    def __init__(self, shape: tuple[int, int, int], small: tuple[int, int]) -> None:
        freeze(self, _crop=Crop(shape, small))

    @property
    def ratio(self) -> float:
        """Pixels of the full image for each of the small one, ``NY NX / (ny nx)``."""
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
        """The small image on the pixels of the full one."""
        check_complex64(x, self.domain_shape, "a small image")
        return ifft2c(self._crop.adjoint(fft2c(x))) * math.sqrt(self.ratio)

    def adjoint(self, y: Tensor) -> Tensor:
        """The low frequencies of the full image, times ``NY NX / (ny nx)``."""
        check_complex64(y, self.range_shape, "an image")
        return ifft2c(self._crop.forward(fft2c(y))) * math.sqrt(self.ratio)
