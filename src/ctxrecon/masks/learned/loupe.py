"""LOUPE: one probability for each position, learned."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.masks.budget import Shape
from ctxrecon.masks.learned.base import Sampler

# t, of the probabilities' own sigmoid.
_SLOPE = 5.0


class LOUPE(Sampler):
    """``p = rescale_r(σ_t(w))``, w a parameter of each line or sample.

    Bahadir et al., IEEE Trans Comput Imaging 6:1139 (2020), with t = 5, and p uniform on
    [0.01, 0.99] to start with, before it is rescaled. Trained for one acceleration; masks of others
    are drawn from the same w.

    Args:
        shape: ``(ny, nx)``.
        acceleration: size of the grid over the number of samples, centre included.
        lines: whether whole lines along ``ny`` are chosen, or single samples.
        center_fraction: see :class:`~ctxrecon.masks.learned.base.MaskNetwork`.
        slope: see :class:`~ctxrecon.masks.learned.base.Sampler`.
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
        """``σ_t(w)``, ``(1, positions)``."""
        return as_probabilities(self.weights)


def initial_weights(rows: int, positions: int) -> nn.Parameter:
    """w of probabilities that are uniform on [0.01, 0.99]."""
    return nn.Parameter(torch.logit(0.01 + 0.98 * torch.rand(rows, positions)) / _SLOPE)


def as_probabilities(weights: Tensor) -> Tensor:
    """``σ_t(w) = 1 / (1 + e^{−t w})``, float32."""
    return torch.sigmoid(_SLOPE * weights.float())
