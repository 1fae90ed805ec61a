"""The Cartesian multi-coil MRI operator ``A = M F S``."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.fourier import ifft2c
from ctxrecon.operators._checks import check_complex64, check_mask
from ctxrecon.operators._sense import Sense


class CartesianSense(Sense):
    r"""Cartesian multi-coil (SENSE) operator ``A = M F S``.

    .. math::

        (A x)_c = M\, F\, (S_c \odot x), \qquad
        A^H y = \sum_c \bar{S}_c \odot F^{-1} M y_c

    with the sampling mask M, the centered orthonormal 2-D FFT F and the coil maps :math:`S_c`; it
    is the forward operator of ContextMRI (arXiv:2501.04284).

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        >>> mask[..., ::2] = True
        >>> operator = CartesianSense(mask, torch.full((1, 4, 8, 8), 0.5, dtype=torch.complex64))
        >>> operator(torch.ones(1, 8, 8, dtype=torch.complex64)).shape
        torch.Size([1, 4, 8, 8])

    Args:
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool, ``True`` where sampled, zero
            frequency at ``n // 2``.
        coil_maps: Coil maps of shape ``(batch or 1, coils, ny, nx)``, complex64, or ``None`` for a
            single coil of sensitivity 1, whose k-space is ``(batch, 1, ny, nx)``.

    Raises:
        InputError: If the mask is not bool, has the wrong shape or is empty, the coil maps are not
            complex64, have the wrong shape or are not finite, or the devices differ.
    """

    def __init__(self, mask: Tensor, coil_maps: Tensor | None = None) -> None:
        check_mask(mask)
        constant_readout = bool((mask == mask[..., :1, :]).all())
        super().__init__(mask.clone(), coil_maps, constant_readout=constant_readout)

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``M F S``, from image ``(batch, ny, nx)`` to k-space ``(batch, coils, ny, nx)``."""
        return torch.where(self.mask, self._coil_spectra(x), 0)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``Sᴴ F⁻¹ M``, from k-space ``(batch, coils, ny, nx)`` to an image."""
        check_complex64(y, self.range_shape, "k-space")
        return self._combined(ifft2c(torch.where(self.mask, y, 0)))

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``‖M F S x‖²`` of each sample, ``(batch,)``, half the FFTs of :meth:`normal`."""
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
