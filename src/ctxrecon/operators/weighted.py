"""The multi-coil operator under a mask that is being learned."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.operators._checks import check_complex64, check_mask
from ctxrecon.operators._sense import Sense


class WeightedSense(Sense):
    """``A = W F S``: differentiable weights where :class:`CartesianSense` has its mask.

    W is a straight-through mask, 0 or 1 in value, or the mean of random masks. A mask is a
    projection, ``M² = M``, hence W appears once wherever M does:

    * ``forward``: ``W F S x``;
    * ``adjoint``: ``Sᴴ F⁻¹ y``, where y is zero if W is. y carries W already, as what ``forward``
      gives or as ``W k``, the weighted samples of a full measurement k;
    * ``normal``: ``Sᴴ F⁻¹ W F S x``.

    For a binary W values are those of :class:`CartesianSense`. Gradients are those of one factor
    W: ``W²``, with the derivative ``2 W``, would never tell a position that is not sampled what it
    is worth. For probabilities ``W = E M`` these are the expectations of ``M F S x``, ``Aᴴ M k``
    and ``AᴴA x`` over the masks; ``adjoint`` is then the adjoint for the inner product
    ``⟨a, W⁻¹ b⟩`` of k-space, the one in which ``A.H`` and ``A.gram`` are what they say.

    Args:
        weights: ``(batch or 1, 1, ny, nx)`` float32 from 0 to 1, zero frequency at ``n // 2``;
            they are kept as they are, not copied, so that gradients reach them. Whole lines are
            best given as one row, expanded along ``ny``: that makes ``normal`` one-dimensional.
        coil_maps: as in :class:`CartesianSense`.

    Attributes:
        mask: W, what networks find where :class:`CartesianSense` has its mask.

    Raises:
        InputError: weights that are not float32, not of that shape, outside [0, 1] or all zero in
            a batch item; coil maps as in :class:`CartesianSense`.
    """

    def __init__(self, weights: Tensor, coil_maps: Tensor | None = None) -> None:
        _check_weights(weights)
        check_mask(weights.detach() != 0)
        super().__init__(weights, coil_maps, constant_readout=_is_one_row(weights))

    def forward(self, x: Tensor) -> Tensor:
        """``W F S x``: image ``(batch, ny, nx)`` to k-space ``(batch, coils, ny, nx)``."""
        return self.mask * self._coil_spectra(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """``Sᴴ F⁻¹ y`` of a y that carries W: k-space to image ``(batch, ny, nx)``.

        Values of y where W is zero are left out, yet the gradient by y passes there: y is W times
        something, and that product needs it.
        """
        check_complex64(y, self.range_shape, "k-space")
        return self._combined(ifft2c(y - y.detach().masked_fill(self.mask != 0, 0)))

    def squared_norm(self, x: Tensor) -> Tensor:
        """``⟨x, AᴴA x⟩ = Σ W |F S x|²`` of each sample, ``(batch,)``."""
        return (self.mask * self._coil_spectra(x).abs().square()).flatten(1).sum(dim=1)


def _is_one_row(weights: Tensor) -> bool:
    """Whether all rows are equal, for gradients as well: one row that was expanded."""
    if weights.requires_grad:
        return weights.stride(-2) == 0 and not weights.is_leaf
    return bool((weights == weights[..., :1, :]).all())


def _check_weights(weights: Tensor) -> None:
    if not isinstance(weights, Tensor) or weights.dtype != torch.float32:
        came = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise InputError(
            f"expected float32 weights as a torch tensor, got {came}; "
            "for a bool mask use CartesianSense"
        )
    # NaN fails this as well.
    if not bool(((weights >= 0) & (weights <= 1)).all()):
        raise InputError("expected weights between 0 and 1, got others: clamp or rescale them")
