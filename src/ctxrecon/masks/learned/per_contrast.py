"""JoJoNet's sampler: a mask for each contrast, and a share of the scan time for each."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import InputError, check_counts
from ctxrecon.masks.budget import Shape
from ctxrecon.masks.learned.base import Budget, Sampler
from ctxrecon.masks.learned.loupe import as_probabilities, initial_weights
from ctxrecon.masks.learned.relaxation import largest_remainder, water_fill


class PerContrastSampler(Sampler):
    """``p^c = rescale_{α_c}(σ_t(w^c))``, one for each contrast c of C.

    Zhao et al., "JoJoNet", equations (2) and (3). The share of the k-space that contrast c gets is

        ``α_c = C α e^{v_c} / Σ_i e^{v_i}``,

    with α = 1 / acceleration and v learned or 0. Equation (3) lacks the factor C, without which
    the *sum* of the shares would be α; with it their mean is α, and all contrasts together take as
    many lines as with equal shares. A share below that of the centre, or above 1, is set to that
    bound and the others are multiplied by one factor, so that the mean stays α
    (:func:`~ctxrecon.masks.learned.relaxation.water_fill`); the gradient by v is that of the
    formula, also for a share that is at a bound.

    Masks have the contrasts before the axis of the coils: ``(batch, contrasts, 1, ny, nx)``.

    Args:
        shape: ``(ny, nx)``.
        contrasts: C.
        acceleration: size of the grid over the number of samples of a contrast, on average over
            the contrasts, centre included.
        shared: whether all contrasts have one mask (LM-S in the paper), not one each (LM-I).
        learn_split: whether v is learned.
        lines: whether whole lines along ``ny`` are chosen, or single samples.
        center_fraction: of each contrast, see
            :class:`~ctxrecon.masks.learned.base.MaskNetwork`; in the paper 20 lines.
        slope: see :class:`~ctxrecon.masks.learned.base.Sampler`.

    Raises:
        InputError: also for fewer than one contrast, and for a split to be learned of one mask.
    """

    @register_to_config
    def __init__(
        self,
        shape: Shape,
        contrasts: int,
        acceleration: float,
        shared: bool = False,
        learn_split: bool = False,
        lines: bool = True,
        center_fraction: float | None = None,
        slope: float = 12.0,
    ) -> None:
        super().__init__(shape, acceleration, lines, center_fraction, slope)
        check_counts(contrasts=contrasts)
        if shared and learn_split:
            raise InputError("a shared mask has one acceleration: leave out shared or learn_split")
        self.contrasts, self.rows = contrasts, 1 if shared else contrasts
        self.weights = initial_weights(self.rows, self.positions)
        self.split = nn.Parameter(torch.zeros(contrasts)) if learn_split else None

    def preferences(self, ratio: float) -> Tensor:
        """``σ_t(w^c)``, ``(contrasts or 1, positions)``."""
        return as_probabilities(self.weights)

    def shares(self, acceleration: float | None = None) -> Tensor:
        """α_c, ``(contrasts,)`` float64, with the mean α to within half a line; differentiable.

        Args:
            acceleration: by default the sampler's own.

        Raises:
            InputError: an impossible acceleration.
        """
        budget = self.budget(acceleration)
        return self.expected_counts(budget).expand(self.contrasts) / self.positions

    def line_counts(self, acceleration: float | None = None) -> list[int]:
        """Lines, or samples, that an exact mask of each contrast has.

        Their sum is C times what a mask of one contrast has at this acceleration. Arguments and
        errors are those of :meth:`shares`.
        """
        counts = self.counts(self.budget(acceleration))
        return counts * (self.contrasts // len(counts))

    def accelerations(self, acceleration: float | None = None) -> list[float]:
        """Acceleration of each contrast, by :meth:`line_counts`."""
        return [self.positions / count for count in self.line_counts(acceleration)]

    def expected_counts(self, budget: Budget) -> Tensor:
        """``n α_c``, ``(rows,)`` float64."""
        if self.split is None:
            return torch.full((self.rows,), float(budget.count), dtype=torch.float64)
        weights = torch.softmax(self.split.double(), dim=0).cpu()
        return water_fill(weights, budget.count, max(budget.kept, 1), self.positions)

    def counts(self, budget: Budget) -> list[int]:
        """Whole numbers next to them, with the same sum."""
        expected = self.expected_counts(budget).detach()
        return largest_remainder(expected, self.rows * budget.count)

    def arrange(self, chosen: Tensor) -> Tensor:
        """``(batch, rows, positions)`` as masks ``(batch, contrasts, 1, ny, nx)``."""
        masks = self.as_mask(chosen)[:, :, None]
        return masks.expand(-1, self.contrasts, -1, -1, -1)
