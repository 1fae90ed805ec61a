"""InfoMRI's sampler: one network for all sampling ratios."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import InputError, check_counts
from ctxrecon.masks.budget import Generators, Shape
from ctxrecon.masks.learned.base import Sampler


class PatternGenerator(Sampler):
    """Sampler ``p = rescale_r(σ(MLP([E, r 1])))`` with a position embedding E, for every ratio r.

    The pattern generation network of InfoMRI, section III-C, equations (13) to (17). The MLP has
    one hidden layer and processes one position at a time (1×1 convolutions). Its input r is scaled
    to −1 to 1 over the range of ratios, an affine map that the first layer could represent as
    well. In training, each sample has its own r, drawn from this range
    (:meth:`draw_acceleration`), and the decisions ``m_i ~ Bernoulli(p_i)`` of :meth:`relaxed` are
    repeated until ``|mean(m) − r| ≤ τ``.

    The published network is ``embedding=1, width=16, center_fraction=0, exact=False``: one number
    per position, 16.4 k parameters at 128², no fully sampled center, and rejection sampling at
    inference as in training.

    Args:
        shape: Grid size ``(ny, nx)``.
        ratios: Range of r in training. Other accelerations can be requested, with a warning.
        lines: If true, select whole lines along ``ny``; otherwise single samples.
        center_fraction: Share that is always sampled, see
            :class:`~ctxrecon.masks.learned.base.MaskNetwork`.
        embedding: Number of features of E.
        width: Width of the hidden layer.
        tolerance: Tolerance τ of the sampled share in training.
        slope: Slope of the straight-through gradient.
        exact: If true, masks at inference have exactly the budget; otherwise their share of
            samples is within τ of it.

    Raises:
        InputError: If the shape or budget is invalid, the ratios are not
            ``0 < r_min ≤ r_max ≤ 1``, a width is below 1, or the tolerance is negative.

    Example:
        >>> from ctxrecon.masks.learned import PatternGenerator
        >>> sampler = PatternGenerator((32, 32), ratios=(1 / 8, 1 / 2)).eval()
        >>> masks = sampler(acceleration=4, batch_size=2)
        >>> masks.shape, int(masks[0, 0, 0].sum())
        (torch.Size([2, 1, 32, 32]), 8)
    """

    @register_to_config
    def __init__(
        self,
        shape: Shape,
        ratios: tuple[float, float] = (1 / 32, 1 / 2),
        lines: bool = True,
        center_fraction: float | None = None,
        embedding: int = 4,
        width: int = 32,
        tolerance: float = 0.01,
        slope: float = 12.0,
        exact: bool = True,
    ) -> None:
        super().__init__(shape, None, lines, center_fraction, slope)
        check_counts(embedding=embedding, width=width)
        if not tolerance >= 0:
            raise InputError(f"expected a `tolerance` of at least 0, got {tolerance}")
        self._serve(ratios)
        self._middle = (ratios[0] + ratios[1]) / 2
        self._half = max((ratios[1] - ratios[0]) / 2, 5e-4)
        self.tolerance, self.exact = tolerance, exact
        self.embeddings = nn.Parameter(torch.randn(embedding, self.positions))
        self.network = nn.Sequential(
            nn.Conv1d(embedding + 1, width, 1), nn.ReLU(), nn.Conv1d(width, 1, 1)
        )

    def preferences(self, ratio: float) -> Tensor:
        """Return ``σ(MLP([E, r 1]))`` of shape ``(1, positions)``."""
        # Scaled to the magnitude of E: an unscaled ratio of a few percent has almost no effect.
        known = (ratio - self._middle) / self._half
        features = torch.cat([self.embeddings, torch.full_like(self.embeddings[:1], known)])
        # Autocast would round the probabilities, so that masks would depend on it.
        with torch.autocast(features.device.type, enabled=False):
            return torch.sigmoid(self.network(features[None])[0].float())

    def forward(
        self,
        acceleration: float | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """Draw masks with an exact budget, or by rejection sampling (see `Sampler.forward`)."""
        if self.exact:
            return super().forward(acceleration, batch_size, generator)
        self.warn_outside_range(acceleration)
        with torch.no_grad():
            return self.relaxed(acceleration, batch_size, generator).cpu().bool().contiguous()

    def _tosses(self, probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
        """Repeat the draw until the number of positions is within the tolerance."""
        ratio = probabilities.mean()
        while True:
            uniform = super()._tosses(probabilities, generator)
            taken = (uniform <= probabilities).float().mean()
            # A tolerance finer than the grid is widened to half a position.
            if abs(taken - ratio) <= max(self.tolerance, 0.5 / self.positions):
                return uniform
