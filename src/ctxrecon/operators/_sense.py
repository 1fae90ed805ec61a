"""Base class of the Cartesian multi-coil operators: coil maps, FFT and k-space weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from ctxrecon.fourier import fft2c
from ctxrecon.operators._checks import check_coil_maps, check_complex64
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import freeze

_NEGLIGIBLE = 1e-6
"""Threshold relative to the largest sum of squares of coil maps, a few float32 roundings."""


class Sense(LinearOperator):
    """``A = W F S``: coil maps, centered orthonormal 2-D FFT, real weights of the samples.

    Subclasses define the meaning of W and with it ``forward`` and ``adjoint``. As for a mask, for
    which ``W² = W``, they share ``AᴴA = Sᴴ F⁻¹ W F S``, with W applied once.

    Args:
        weights: W, ``(batch or 1, 1, ny, nx)``, bool or float32, zero frequency at ``n // 2``.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64, or ``None`` for a single coil of
            sensitivity 1.
        constant_readout: Whether W is constant along ``ny``, which makes ``normal``
            one-dimensional.

    Raises:
        InputError: If the coil maps are not complex64, have the wrong shape or are not finite.
    """

    _batched = ("mask", "coil_maps", "_weights")

    mask: Tensor
    coil_maps: Tensor | None
    _weights: Tensor
    _axes: tuple[int, ...]

    def __init__(
        self, weights: Tensor, coil_maps: Tensor | None, *, constant_readout: bool
    ) -> None:
        if coil_maps is not None:
            check_coil_maps(coil_maps, weights)
            coil_maps = coil_maps.clone(memory_format=torch.contiguous_format)
        # AᴴA = Sᴴ F⁻¹ W F S. With F = P ℱ P⁻¹ (P the centering shift, ℱ the plain FFT) and
        # D = P⁻¹ W P the weights shifted once, F⁻¹ W F = P (ℱ⁻¹ D ℱ) P⁻¹. The bracket is a circular
        # convolution, which commutes with every circular shift: P cancels, for odd sizes too.
        # Along a constant readout the FFTs cancel as well.
        axes = (-1,) if constant_readout else (-2, -1)
        rows = weights[..., :1, :] if constant_readout else weights
        # `normal` uses unscaled forward FFTs only, conj(ℱ⁻¹ v) = ℱ conj(v) / n: scale and
        # conjugation are folded into the weights, interleaved for real and imaginary parts.
        shifted = torch.fft.ifftshift(rows, dim=(-2, -1)).float()
        shifted = shifted / math.prod(weights.shape[axis] for axis in axes)
        freeze(
            self,
            mask=weights,
            coil_maps=coil_maps,
            _weights=torch.stack([shifted, -shifted], dim=-1).flatten(-2),
            _axes=axes,
        )

    @property
    def batch_size(self) -> int:
        """Batch size of the mask or the coil maps, whichever is larger."""
        return max(len(self.mask), 1 if self.coil_maps is None else len(self.coil_maps))

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, ny, nx)``."""
        return (self.batch_size, *self.mask.shape[-2:])

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, coils, ny, nx)``."""
        coils = 1 if self.coil_maps is None else self.coil_maps.shape[1]
        return (self.batch_size, coils, *self.mask.shape[-2:])

    @property
    def device(self) -> torch.device:
        """Device of the mask and the coil maps."""
        return self.mask.device

    def normal(self, x: Tensor) -> Tensor:
        """Return ``Sᴴ F⁻¹ W F S x``, ``(batch, ny, nx)``, without shifts, by 1-D FFTs if exact."""
        check_complex64(x, self.domain_shape, "an image")
        if self._in_one_stack(x):
            convolved = torch.fft.fftn(self._weighted_spectrum(x), dim=self._axes)
            weighted_by_maps = convolved if self.coil_maps is None else self.coil_maps * convolved
            return weighted_by_maps.sum(dim=1).conj_physical()
        conjugate = torch.zeros_like(x, memory_format=torch.contiguous_format)
        for item, image in enumerate(x):
            for maps, spectrum in self._weighted_spectra(item, image):
                convolved = torch.fft.fftn(spectrum, dim=self._axes)
                for coil_map, coil_image in zip(maps, convolved, strict=True):
                    conjugate[item].addcmul_(coil_map, coil_image)
        return conjugate.conj_physical_()

    def coil_gram(self, x: Tensor) -> Tensor:
        """Return ``SᴴS x = Σ_c |S_c|² x``, ``(batch, ny, nx)``: ``AᴴA x`` for full sampling."""
        return x if self.coil_maps is None else self.coil_maps.abs().square().sum(dim=1) * x

    @property
    def _fft_size(self) -> int:
        return math.prod(self.mask.shape[axis] for axis in self._axes)

    def _coil_spectra(self, x: Tensor) -> Tensor:
        """Return ``F S x``, ``(batch, coils, ny, nx)``."""
        check_complex64(x, self.domain_shape, "an image")
        return fft2c(x[:, None] if self.coil_maps is None else self.coil_maps * x[:, None])

    def _combined(self, coil_images: Tensor) -> Tensor:
        """Return ``Sᴴ`` of coil images, ``(batch, ny, nx)``."""
        if self.coil_maps is None:
            return coil_images[:, 0]
        return (self.coil_maps.conj() * coil_images).sum(dim=1)

    def _in_one_stack(self, x: Tensor) -> bool:
        """Return whether to process all coils at once: on a GPU, with gradients, or one coil."""
        if self.coil_maps is None or x.device.type != "cpu":
            return True
        tensors = (x, self.coil_maps, self.mask)
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)

    def _weighted_spectrum(self, x: Tensor) -> Tensor:
        """Return ``D conj(ℱ(S_c x)) / n``; ``conj(AᴴA x)`` is the sum of ``S_c ℱ`` of it."""
        coil_images = x[:, None] if self.coil_maps is None else self.coil_maps * x[:, None]
        spectrum = torch.view_as_real(torch.fft.fftn(coil_images, dim=self._axes))
        return torch.view_as_complex(spectrum * self._weights.unflatten(-1, (-1, 2)))

    def _weighted_spectra(self, item: int, image: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield maps and spectra of one sample, one coil per thread at a time to stay in cache."""
        all_maps = self._virtual_maps[item % len(self._virtual_maps)]
        weights = self._weights[item % len(self._weights), 0]
        step = min(torch.get_num_threads(), len(all_maps))
        buffer = torch.empty_like(all_maps[:step])
        for maps in all_maps.split(step):
            coil_images = torch.mul(maps, image, out=buffer[: len(maps)])
            spectrum = torch.fft.fftn(coil_images, dim=self._axes)
            spectrum.view(torch.float32).mul_(weights)
            yield maps, spectrum

    @cached_property
    def _virtual_maps(self) -> Tensor:
        """Coil maps with the same ``AᴴA`` but fewer coils, where that is exact.

        With a constant readout each row is a separate problem, and a unitary mixing of its coils
        does not change ``AᴴA`` (geometric coil compression: Zhang et al., MRM 69, 571, 2013). After
        rotation to the row's principal coils, the last ones are dropped. That changes ``AᴴA`` by at
        most the largest dropped ``Σ_c |S_c|²`` at any pixel (Schur's bound for Hadamard products),
        which is kept below the rounding error of complex64.
        """
        assert self.coil_maps is not None
        maps = self.coil_maps.detach()
        if len(self._axes) > 1:
            return maps
        rows = maps.transpose(1, 2)
        precise = rows.to(torch.complex128)
        _, principal = torch.linalg.eigh(precise @ precise.mH)
        rotated = (principal.mH.to(maps.dtype) @ rows).transpose(1, 2)
        left_out = rotated.abs().square().cumsum(dim=1).amax(dim=(0, 2, 3))
        superfluous = int((left_out <= _NEGLIGIBLE * left_out[-1]).sum())
        return rotated[:, superfluous:].contiguous() if 0 < superfluous < maps.shape[1] else maps
