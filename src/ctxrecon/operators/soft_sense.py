"""Operators with several sets of coil maps: ``A = M F Σ_k S_k``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.operators._checks import check_coil_maps, check_complex64, check_mask
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import freeze
from ctxrecon.operators.cartesian import CartesianSense
from ctxrecon.operators.weighted import WeightedSense


class SoftSense(LinearOperator):
    r"""Cartesian operator with several sets of coil maps, each with its own image (soft SENSE).

    .. math::

        A x = M F \sum_k S_k x_k

    Soft SENSE is part of ESPIRiT (Uecker et al., Magn Reson Med 71:990, 2014). If the field of view
    is smaller than the object, a pixel holds signal of two places with different sensitivities,
    which a single set of maps cannot describe.

    The images of the sets are stacked along the rows of one image ``(batch, sets · ny, nx)``: set
    ``k`` has the rows ``k · ny`` to ``(k + 1) · ny``. The domain is thus that of an ordinary image,
    and solvers for one set work unchanged, with all sets as one unknown. :meth:`images` separates
    the sets, and :meth:`combine` combines them into one image.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import SoftSense
        >>> mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
        >>> operator = SoftSense(mask, torch.ones(1, 2, 4, 8, 8, dtype=torch.complex64))
        >>> operator.domain_shape, operator.range_shape
        ((1, 16, 8), (1, 4, 8, 8))

    Args:
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool, ``True`` where sampled, zero
            frequency at ``n // 2``.
        coil_maps: Coil maps of shape ``(batch or 1, sets, coils, ny, nx)``, complex64.

    Raises:
        InputError: If the mask is not bool, has the wrong shape or is empty, the coil maps are not
            complex64, have the wrong shape or are not finite, or the devices differ.
    """

    _batched = ("mask", "coil_maps", "_shifted_mask")

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
    def batch_size(self) -> int:
        """Batch size of the mask or the coil maps, whichever is larger."""
        return max(len(self.mask), len(self.coil_maps))

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, sets · ny, nx)``."""
        ny, nx = self.mask.shape[-2:]
        return (self.batch_size, self.coil_maps.shape[1] * ny, nx)

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, coils, ny, nx)``."""
        return (self.batch_size, *self.coil_maps.shape[2:])

    @property
    def device(self) -> torch.device:
        """Device of the mask and the coil maps."""
        return self.mask.device

    def images(self, x: Tensor) -> Tensor:
        """Return the image of each set, ``(batch, sets, ny, nx)``, from ``x`` in the domain."""
        check_complex64(x, self.domain_shape, "an image with the sets stacked along its rows")
        return x.unflatten(1, (self.coil_maps.shape[1], -1))

    def combine(self, x: Tensor) -> Tensor:
        """Combine the sets of ``x`` into an image ``(batch, ny, nx)``; see :func:`combine_sets`."""
        return combine_sets(self.images(x))

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``M F Σ_k S_k``, from ``(batch, sets · ny, nx)`` to ``(batch, coils, ny, nx)``."""
        return torch.where(self.mask, fft2c(self._coil_images(x)), 0)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``S_kᴴ F⁻¹ M``, from ``(batch, coils, ny, nx)`` to ``(batch, sets · ny, nx)``."""
        check_complex64(y, self.range_shape, "k-space")
        return self._combined(ifft2c(torch.where(self.mask, y, 0)))

    def normal(self, x: Tensor) -> Tensor:
        """Apply ``AᴴA``, with the mask shifted once and without shifts of the images.

        ``F⁻¹ M F`` is a circular convolution, which commutes with shifts of the image.
        """
        spectrum = torch.where(self._shifted_mask, torch.fft.fft2(self._coil_images(x)), 0)
        return self._combined(torch.fft.ifft2(spectrum))

    def coil_gram(self, x: Tensor) -> Tensor:
        """Return ``SᴴS x``, of the shape of ``x``: ``AᴴA x`` for full sampling."""
        return self._combined(self._coil_images(x))

    def _coil_images(self, x: Tensor) -> Tensor:
        return (self.coil_maps * self.images(x)[:, :, None]).sum(dim=1)

    def _combined(self, coil_images: Tensor) -> Tensor:
        return (self.coil_maps.conj() * coil_images[:, None]).sum(dim=2).flatten(1, 2)


def image_shape(operator: LinearOperator) -> tuple[int, int]:
    """Return ``(ny, nx)`` of one image of an operator's domain, for any number of sets of maps."""
    _, rows, nx = operator.domain_shape
    sets = operator.coil_maps.shape[1] if isinstance(operator, SoftSense) else 1
    return rows // sets, nx


class EachSet(LinearOperator):
    """Operator that applies an image operator to the image of each set of coil maps.

    The images are stacked along the rows, as in the domain of :class:`SoftSense`.

    Example:
        >>> from ctxrecon.operators import Crop, EachSet
        >>> EachSet(Crop((1, 8, 8), (4, 4)), 2).range_shape
        (1, 8, 4)

    Args:
        each: Operator from ``(batch, NY, NX)`` to ``(batch, ny, nx)``.
        sets: Number of sets.
    """

    _batched = ("each",)

    each: LinearOperator
    sets: int

    def __init__(self, each: LinearOperator, sets: int) -> None:
        freeze(self, each=each, sets=sets)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, sets · NY, NX)``."""
        batch, ny, nx = self.each.domain_shape
        return (batch, self.sets * ny, nx)

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, sets · ny, nx)``."""
        batch, ny, nx = self.each.range_shape
        return (batch, self.sets * ny, nx)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the operator to each image."""
        return _each(self.each.forward, x, self.sets)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoint to each image."""
        return _each(self.each.adjoint, y, self.sets)


def _each(apply: Callable[[Tensor], Tensor], stacked: Tensor, sets: int) -> Tensor:
    images = stacked.unflatten(1, (sets, -1)).flatten(0, 1)
    return apply(images).unflatten(0, (-1, sets)).flatten(1, 2)


MaskedSense: TypeAlias = "CartesianSense | WeightedSense"
"""``A = M F S`` with one set of coil maps, with a mask or differentiable weights."""

SenseOperator: TypeAlias = "MaskedSense | SoftSense"
"""``A = M F S`` with one or several sets of coil maps, the operators that networks accept."""


def sense_operator(mask: Tensor, coil_maps: Tensor | None) -> CartesianSense | SoftSense:
    """Return the measurement operator ``A = M F S`` for one or several sets of coil maps.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import sense_operator
        >>> sense_operator(torch.ones(1, 1, 8, 8, dtype=torch.bool), None)
        CartesianSense((1, 8, 8) -> (1, 1, 8, 8))

    Args:
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool.
        coil_maps: Coil maps, complex64, of shape ``(batch or 1, coils, ny, nx)`` for
            :class:`CartesianSense` or ``(batch or 1, sets, coils, ny, nx)`` for :class:`SoftSense`;
            ``None`` for a single coil of sensitivity 1.

    Raises:
        InputError: If mask or coil maps are invalid.
    """
    if coil_maps is not None and coil_maps.ndim == 5:
        return SoftSense(mask, coil_maps)
    return CartesianSense(mask, coil_maps)


def combine_sets(images: Tensor) -> Tensor:
    """Combine the images of several sets of orthonormal coil maps into one.

    The magnitude ``√Σ_k |x_k|²`` is that seen by all coils together; the phase is that of
    ``Σ_k |x_k| x_k``, mostly that of the stronger image. Where only one image is non-zero, it is
    the result.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import combine_sets
        >>> combine_sets(torch.ones(1, 2, 4, 4)).shape
        torch.Size([1, 4, 4])

    Args:
        images: Images, or their standard deviations, of shape ``(batch, sets, ny, nx)``, complex or
            real.

    Returns:
        Combined image of shape ``(batch, ny, nx)`` and the same type.
    """
    magnitudes = images.abs()
    phases = (magnitudes * images).sum(dim=1).sgn()
    combined = torch.linalg.vector_norm(magnitudes, dim=1) * phases
    alone = (magnitudes > 0).sum(dim=1) <= 1
    return torch.where(alone, images.sum(dim=1), combined)
