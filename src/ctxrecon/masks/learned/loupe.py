"""LOUPE: one learned probability per position."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.masks.budget import Shape
from ctxrecon.masks.learned.base import Sampler

# Slope t of the sigmoid of the probabilities.
_SLOPE = 5.0


class LOUPE(Sampler):
    """Sampler ``p = rescale_r(σ_t(w))`` with one parameter w per line or sample.

    Bahadir et al., IEEE Trans Comput Imaging 6:1139 (2020), with t = 5 and initial probabilities
    uniform on [0.01, 0.99] before rescaling. It is trained for one acceleration; masks at other
    accelerations are drawn from the same w.

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: Grid size divided by the number of samples, center included.
        lines: If true, select whole lines along ``ny``; otherwise single samples.
        center_fraction: Share that is always sampled, see
            :class:`~ctxrecon.masks.learned.base.MaskNetwork`.
        slope: Slope of the straight-through gradient.

    Example:
        >>> from ctxrecon.masks.learned import LOUPE
        >>> sampler = LOUPE((32, 32), acceleration=4)
        >>> masks = sampler(batch_size=2)
        >>> masks.shape, int(masks[0, 0, 0].sum())
        (torch.Size([2, 1, 32, 32]), 8)
    """

    @register_to_config
    def __init__(
        self,
        shape: Shape,
        acceleration: float,
        lines: bool = True,
        center_fraction: float | None = None,
        slope: float = 12.0,
    ) -> None:
        super().__init__(shape, acceleration, lines, center_fraction, slope)
        self.weights = initial_weights(1, self.positions)

    def preferences(self, ratio: float) -> Tensor:
        """Return ``σ_t(w)`` of shape ``(1, positions)``."""
        return as_probabilities(self.weights)


def initial_weights(rows: int, positions: int) -> nn.Parameter:
    """Draw w such that the probabilities are uniform on [0.01, 0.99]."""
    return nn.Parameter(torch.logit(0.01 + 0.98 * torch.rand(rows, positions)) / _SLOPE)


def as_probabilities(weights: Tensor) -> Tensor:
    """Return ``σ_t(w) = 1 / (1 + e^{−t w})`` as float32."""
    return torch.sigmoid(_SLOPE * weights.float())
