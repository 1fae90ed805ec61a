"""Low-resolution acquisition of an image, for super-resolution."""

from __future__ import annotations

from numbers import Integral

from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.operators._checks import check_complex64
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import freeze
from ctxrecon.operators.crop import Crop


class SuperResolution(LinearOperator):
    r"""Low-resolution acquisition that covers a ``factor`` times smaller part of k-space.

    .. math::

        A = F_s^H\, C\, F, \qquad A A^H = I

    ``F`` is the centered orthonormal FFT of the full image, ``C`` the crop of k-space to its center
    and ``F_s`` the FFT of the small image, as in an MRI acquisition at lower resolution. Block
    averages, the usual model for photographs, would weight and alias high frequencies that were
    never measured. White noise in k-space becomes white noise of equal standard deviation in the
    small image, while a constant image of ``c`` becomes ``factor · c``: scale images from other
    sources accordingly.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import SuperResolution
        >>> operator = SuperResolution((1, 16, 16), 2)
        >>> operator(torch.ones(1, 16, 16, dtype=torch.complex64)).shape
        torch.Size([1, 8, 8])

    Args:
        shape: Shape ``(batch, ny, nx)`` of the full image.
        factor: Ratio of the voxel sizes along both axes, a divisor of ``ny`` and ``nx``.

    Raises:
        InputError: If the factor is not a positive integer or does not divide the shape.
    """

    _batched = ("_crop",)

    factor: int
    _crop: Crop

    def __init__(self, shape: tuple[int, int, int], factor: int) -> None:
        if not isinstance(factor, Integral) or factor < 1:
            raise InputError(f"expected a positive integer as factor, got {factor!r}")
        sizes = tuple(shape)
        if len(sizes) != 3 or any(size % factor for size in sizes[1:]):
            raise InputError(
                f"expected a shape (batch, ny, nx) with ny and nx multiples of {factor}, "
                f"got {sizes}; compose the operator with Crop for other sizes"
            )
        small = (sizes[1] // int(factor), sizes[2] // int(factor))
        freeze(self, factor=int(factor), _crop=Crop(sizes, small))

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, ny, nx)``."""
        return self._crop.domain_shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, ny / factor, nx / factor)``."""
        return self._crop.range_shape

    def forward(self, x: Tensor) -> Tensor:
        """Return the small image ``F_sᴴ C F x``."""
        check_complex64(x, self.domain_shape, "an image")
        return ifft2c(self._crop.forward(fft2c(x)))

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``Fᴴ Cᴴ F_s y``, the small image interpolated by zero filling."""
        check_complex64(y, self.range_shape, "a low-resolution image")
        return ifft2c(self._crop.adjoint(fft2c(y)))

    def normal(self, x: Tensor) -> Tensor:
        """Return ``Fᴴ CᴴC F x``, ``(batch, ny, nx)``; the FFTs of the small image cancel."""
        check_complex64(x, self.domain_shape, "an image")
        return ifft2c(self._crop.normal(fft2c(x)))
