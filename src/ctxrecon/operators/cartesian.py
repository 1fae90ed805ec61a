"""The Cartesian multi-coil MRI operator ``A = M F S``."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.fourier import ifft2c
from ctxrecon.operators._checks import check_complex64, check_mask
from ctxrecon.operators._sense import Sense


class CartesianSense(Sense):
    """``A = M F S``: coil maps, centred orthonormal 2-D FFT, sampling mask.

    Args:
        mask: ``(batch or 1, 1, ny, nx)`` bool, ``True`` where sampled, zero frequency at
            ``n // 2``.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64, or ``None`` for a single coil
            of sensitivity 1, whose k-space is ``(batch, 1, ny, nx)``.

    Raises:
        InputError: a mask that is not bool, not of that shape or empty; coil maps that are not
            complex64, not of that shape or not finite; the two on different devices.
    """

    def __init__(self, mask: Tensor, coil_maps: Tensor | None = None) -> None:
        check_mask(mask)
        constant_readout = bool((mask == mask[..., :1, :]).all())
        super().__init__(mask.clone(), coil_maps, constant_readout=constant_readout)

    def forward(self, x: Tensor) -> Tensor:
        """``M F S x``: image ``(batch, ny, nx)`` to k-space ``(batch, coils, ny, nx)``."""
        return torch.where(self.mask, self._coil_spectra(x), 0)

    def adjoint(self, y: Tensor) -> Tensor:
        """``Sᴴ F⁻¹ M y``: k-space ``(batch, coils, ny, nx)`` to image ``(batch, ny, nx)``."""
        check_complex64(y, self.range_shape, "k-space")
        return self._combined(ifft2c(torch.where(self.mask, y, 0)))

    def squared_norm(self, x: Tensor) -> Tensor:
        """``‖M F S x‖²`` of each sample, ``(batch,)``: half the FFTs of :meth:`normal`."""
        check_complex64(x, self.domain_shape, "an image")
        if self._in_one_stack(x):
            weighted = torch.view_as_real(self._weighted_spectrum(x))
            return weighted.square().flatten(1).sum(dim=1) * self._fft_size
        total = torch.zeros(len(x), dtype=torch.float32)
        for item, image in enumerate(x):
            for _, spectrum in self._weighted_spectra(item, image):
                values = spectrum.view(torch.float32).flatten()
                total[item] += torch.dot(values, values)
        return total * self._fft_size
