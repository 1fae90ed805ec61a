"""Multi-coil operator with differentiable weights, for learned sampling masks."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.operators._checks import check_complex64, check_mask
from ctxrecon.operators._sense import Sense


class WeightedSense(Sense):
    r"""Multi-coil operator with differentiable weights in place of a mask.

    .. math::

        A x = W F S x, \qquad A^H A\, x = S^H F^{-1} W F S\, x

    W is a straight-through mask with values 0 and 1, or the mean of random masks. A mask is a
    projection, ``M² = M``, so W appears once wherever M does:

    * ``forward``: ``W F S x``;
    * ``adjoint``: ``Sᴴ F⁻¹ y``, with y set to zero where W is. y includes W already, as a result of
      ``forward`` or as ``W k``, the weighted samples of a full measurement k;
    * ``normal``: ``Sᴴ F⁻¹ W F S x``.

    For a binary W the values are those of :class:`CartesianSense`. Gradients are those of a single
    factor W, because ``W²`` with derivative ``2 W`` would have no gradient at unsampled positions.
    For probabilities ``W = E M`` the results are the expectations of ``M F S x``, ``Aᴴ M k`` and
    ``AᴴA x`` over the masks. ``adjoint`` is then the adjoint for the k-space inner product
    ``⟨a, W⁻¹ b⟩``, for which ``A.H`` and ``A.gram`` are consistent.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import WeightedSense
        >>> weights = torch.full((1, 1, 8, 8), 0.5)
        >>> WeightedSense(weights)(torch.ones(1, 8, 8, dtype=torch.complex64)).shape
        torch.Size([1, 1, 8, 8])

    Args:
        weights: Weights from 0 to 1 of shape ``(batch or 1, 1, ny, nx)``, float32, zero frequency
            at ``n // 2``. They are not copied, so that gradients reach them. Pass whole lines as
            one row expanded along ``ny``, which makes ``normal`` one-dimensional.
        coil_maps: Coil maps of shape ``(batch or 1, coils, ny, nx)``, complex64, or ``None`` for a
            single coil of sensitivity 1.

    Attributes:
        mask: W, under the name that :class:`CartesianSense` uses for its mask.

    Raises:
        InputError: If the weights are not float32, have the wrong shape, lie outside [0, 1] or are
            all zero in a batch item, or the coil maps are invalid.
    """

    def __init__(self, weights: Tensor, coil_maps: Tensor | None = None) -> None:
        _check_weights(weights)
        check_mask(weights.detach() != 0)
        super().__init__(weights, coil_maps, constant_readout=_is_one_row(weights))

    def forward(self, x: Tensor) -> Tensor:
        """Apply ``W F S``, from image ``(batch, ny, nx)`` to k-space ``(batch, coils, ny, nx)``."""
        return self.mask * self._coil_spectra(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply ``Sᴴ F⁻¹`` to k-space that includes W, and return an image ``(batch, ny, nx)``.

        Values of y where W is zero are dropped, but gradients with respect to y pass there: y is W
        times another factor, whose product rule needs them.
        """
        check_complex64(y, self.range_shape, "k-space")
        return self._combined(ifft2c(y - y.detach().masked_fill(self.mask != 0, 0)))

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``⟨x, AᴴA x⟩ = Σ W |F S x|²`` of each sample, ``(batch,)``."""
        return (self.mask * self._coil_spectra(x).abs().square()).flatten(1).sum(dim=1)


def _is_one_row(weights: Tensor) -> bool:
    """Return whether all rows and their gradients are equal: one row that was expanded."""
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
    # Written so that NaN fails as well
    if not bool(((weights >= 0) & (weights <= 1)).all()):
        raise InputError("expected weights between 0 and 1, got others: clamp or rescale them")
