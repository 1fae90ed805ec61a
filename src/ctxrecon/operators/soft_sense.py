"""Several sets of coil maps at once: ``A = M F Σ_k S_k``."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.operators._checks import check_coil_maps, check_complex64, check_mask
from ctxrecon.operators.base import LinearOperator, freeze


class SoftSense(LinearOperator):
    """``A x = M F Σ_k S_k x_k``: sets of coil maps with an image each, one measurement.

    Soft-SENSE (Uecker et al., Magn Reson Med 71:990, 2014). Where the field of view is smaller
    than the object, a pixel holds signal of two places with different sensitivities, and no single
    map explains it.

    The images of the sets lie one below the other in one image ``(batch, sets · ny, nx)``: set
    ``k`` has the rows ``k · ny`` to ``(k + 1) · ny``. The domain is thus that of an ordinary image,
    and solvers that are written for one work unchanged, with all sets as one unknown.
    :meth:`images` takes them apart. For the orthonormal maps of
    ``estimate_coil_maps(..., num_maps=2)``, ``root_sum_of_squares(operator.images(x))`` is the
    magnitude that all coils together see.

    Args:
        mask: ``(batch or 1, 1, ny, nx)`` bool, ``True`` where sampled, zero frequency at
            ``n // 2``.
        coil_maps: ``(batch or 1, sets, coils, ny, nx)`` complex64.

    Raises:
        InputError: a mask that is not bool, not of that shape or empty; coil maps that are not
            complex64, not of that shape or not finite; the two on different devices.
    """

    mask: Tensor
    coil_maps: Tensor
    _shifted_mask: Tensor

    def __init__(self, mask: Tensor, coil_maps: Tensor) -> None:
        check_mask(mask)
        if not isinstance(coil_maps, Tensor) or coil_maps.ndim != 5:
            came = tuple(coil_maps.shape) if isinstance(coil_maps, Tensor) else type(coil_maps)
            raise InputError(
                f"expected coil maps (batch or 1, sets, coils, ny, nx), got {came}: "
                "estimate them with num_maps=2, or use CartesianSense for one set"
            )
        check_coil_maps(coil_maps.flatten(1, 2), mask)
        freeze(
            self,
            mask=mask.clone(),
            coil_maps=coil_maps.clone(memory_format=torch.contiguous_format),
            _shifted_mask=torch.fft.ifftshift(mask, dim=(-2, -1)),
        )

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, sets · ny, nx)``."""
        ny, nx = self.mask.shape[-2:]
        return (self._batch, self.coil_maps.shape[1] * ny, nx)

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, coils, ny, nx)``."""
        return (self._batch, *self.coil_maps.shape[2:])

    @property
    def device(self) -> torch.device:
        """Where mask and coil maps live."""
        return self.mask.device

    def images(self, x: Tensor) -> Tensor:
        """The image of each set, ``(batch, sets, ny, nx)``, from ``x`` of the domain."""
        check_complex64(x, self.domain_shape, "an image with the sets one below the other")
        return x.unflatten(1, (self.coil_maps.shape[1], -1))

    def forward(self, x: Tensor) -> Tensor:
        """``M F Σ_k S_k x_k``: ``(batch, sets · ny, nx)`` to ``(batch, coils, ny, nx)``."""
        return fft2c(self._coil_images(x)).masked_fill(~self.mask, 0)

    def adjoint(self, y: Tensor) -> Tensor:
        """``x_k = S_kᴴ F⁻¹ M y``: ``(batch, coils, ny, nx)`` to ``(batch, sets · ny, nx)``."""
        check_complex64(y, self.range_shape, "k-space")
        return self._combined(ifft2c(y.masked_fill(~self.mask, 0)))

    def normal(self, x: Tensor) -> Tensor:
        """``AᴴA x``, with the mask shifted once and no shift of the images.

        ``F⁻¹ M F`` is a circular convolution, with which the shifts of the image commute.
        """
        spectrum = torch.fft.fft2(self._coil_images(x)).masked_fill(~self._shifted_mask, 0)
        return self._combined(torch.fft.ifft2(spectrum))

    @property
    def _batch(self) -> int:
        return max(len(self.mask), len(self.coil_maps))

    def _coil_images(self, x: Tensor) -> Tensor:
        return (self.coil_maps * self.images(x)[:, :, None]).sum(dim=1)

    def _combined(self, coil_images: Tensor) -> Tensor:
        return (self.coil_maps.conj() * coil_images[:, None]).sum(dim=2).flatten(1, 2)
