"""InfoMRI's sampler: one network for every sampling ratio."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import InputError, check_counts
from ctxrecon.masks.budget import Generators, Shape
from ctxrecon.masks.learned.base import Sampler


class PatternGenerator(Sampler):
    """``p = rescale_r(σ(MLP([E, r 1])))``, E an embedding of each position, for every ratio r.

    The pattern generation network of InfoMRI, section III-C, equations (13) to (17): the MLP has
    one hidden layer and sees one position at a time (1×1 convolutions); it is given r as −1 to 1
    over its range, an affine map that its first layer could as well have. To train, each sample
    has an r of its own, drawn from that range (:meth:`draw_acceleration`), and the tosses
    ``m_i ~ Bernoulli(p_i)`` of :meth:`relaxed` are repeated until ``|mean(m) − r| ≤ τ``.

    With ``embedding=1, width=16, center_fraction=0, exact=False`` it is that of the publication:
    one number for each position, 16.4 k parameters at 128², nothing that is always sampled, and
    masks by rejection sampling in use as in training.

    Args:
        shape: ``(ny, nx)``.
        ratios: range of r in training. Other accelerations may be asked for as well, with a
            warning.
        lines: whether whole lines along ``ny`` are chosen, or single samples.
        center_fraction: see :class:`~ctxrecon.masks.learned.base.MaskNetwork`.
        embedding: width of E.
        width: of the hidden layer.
        tolerance: τ.
        slope: see :class:`~ctxrecon.masks.learned.base.Sampler`.
        exact: whether masks in use have just the budget; else their share is within τ of it.

    Raises:
        InputError: also for ratios that are not ``0 < r_min ≤ r_max ≤ 1``, widths below 1 and a
            negative tolerance.
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
            raise InputError(f"expected a tolerance of at least 0, got {tolerance}")
        self._serve(ratios)
        self._middle = (ratios[0] + ratios[1]) / 2
        self._half = max((ratios[1] - ratios[0]) / 2, 5e-4)
        self.tolerance, self.exact = tolerance, exact
        self.embeddings = nn.Parameter(torch.randn(embedding, self.positions))
        self.network = nn.Sequential(
            nn.Conv1d(embedding + 1, width, 1), nn.ReLU(), nn.Conv1d(width, 1, 1)
        )

    def preferences(self, ratio: float) -> Tensor:
        """``σ(MLP([E, r 1]))``, ``(1, positions)``."""
        # As wide as E: as a number of some percent it would hardly be learned from.
        known = (ratio - self._middle) / self._half
        features = torch.cat([self.embeddings, torch.full_like(self.embeddings[:1], known)])
        # Autocast would round the probabilities, and other masks would be drawn without it.
        with torch.autocast(features.device.type, enabled=False):
            return torch.sigmoid(self.network(features[None])[0].float())

    def forward(
        self,
        acceleration: float | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """Draw masks of the exact budget, or by rejection sampling; see :meth:`Sampler.forward`."""
        if self.exact:
            return super().forward(acceleration, batch_size, generator)
        self.warn_outside_range(acceleration)
        with torch.no_grad():
            return self.relaxed(acceleration, batch_size, generator).cpu().bool().contiguous()

    def _tosses(self, probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
        """Repeated until as many positions are taken as the tolerance asks for."""
        ratio = probabilities.mean()
        if not bool(torch.isfinite(ratio)):  # no toss would ever be within the tolerance
            raise InputError(
                "the pattern generator's probabilities are not finite: its training has diverged, "
                "lower the learning rate"
            )
        while True:
            uniform = super()._tosses(probabilities, generator)
            taken = (uniform <= probabilities).float().mean()
            # One position may be taken or not where the tolerance is finer than the grid.
            if abs(taken - ratio) <= max(self.tolerance, 0.5 / self.positions):
                return uniform
