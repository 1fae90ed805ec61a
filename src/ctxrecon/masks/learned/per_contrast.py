"""JoJoNet's sampler: a mask and a share of the scan time for each contrast."""

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
    """Sampler ``p^c = rescale_{α_c}(σ_t(w^c))`` with a mask for each of C contrasts.

    Zhao et al., "JoJoNet", equations (2) and (3). The sampled share of k-space of contrast c is

        ``α_c = C α e^{v_c} / Σ_i e^{v_i}``,

    with α = 1 / acceleration and v learned or 0. Equation (3) lacks the factor C, without which
    the *sum* of the shares would be α. With it their mean is α, and the total number of lines of
    all contrasts is the same as with equal shares. A share below that of the center, or above 1,
    is set to that bound and the others are multiplied by a common factor, so that the mean stays α
    (:func:`~ctxrecon.masks.learned.relaxation.water_fill`). The gradient with respect to v is that
    of the formula, also for a share at a bound.

    Masks have the contrast axis before the coil axis: ``(batch, contrasts, 1, ny, nx)``.

    Args:
        shape: Grid size ``(ny, nx)``.
        contrasts: Number of contrasts C.
        acceleration: Grid size divided by the number of samples of a contrast, averaged over the
            contrasts, center included.
        shared: If true, all contrasts have the same mask (LM-S in the paper); otherwise each has
            its own (LM-I).
        learn_split: If true, v is learned.
        lines: If true, select whole lines along ``ny``; otherwise single samples.
        center_fraction: Share of each contrast that is always sampled, see
            :class:`~ctxrecon.masks.learned.base.MaskNetwork`; 20 lines in the paper.
        slope: Slope of the straight-through gradient.

    Raises:
        InputError: If the shape or budget is invalid, ``contrasts`` is below 1, or both ``shared``
            and ``learn_split`` are set.

    Example:
        >>> from ctxrecon.masks.learned import PerContrastSampler
        >>> sampler = PerContrastSampler((32, 32), contrasts=2, acceleration=4)
        >>> sampler().shape, sampler.line_counts()
        (torch.Size([1, 2, 1, 32, 32]), [8, 8])
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
            raise InputError(
                "a shared mask has a single acceleration: omit `shared` or `learn_split`"
            )
        self.contrasts, self.rows = contrasts, 1 if shared else contrasts
        self.weights = initial_weights(self.rows, self.positions)
        self.split = nn.Parameter(torch.zeros(contrasts)) if learn_split else None

    def preferences(self, ratio: float) -> Tensor:
        """Return ``σ_t(w^c)`` of shape ``(contrasts or 1, positions)``."""
        return as_probabilities(self.weights)

    def shares(self, acceleration: float | None = None) -> Tensor:
        """Return the shares α_c, ``(contrasts,)`` float64, differentiable.

        Their mean is α up to half a line.

        Args:
            acceleration: Average acceleration factor (default: the sampler's own).

        Raises:
            InputError: If the acceleration is impossible.
        """
        budget = self.budget(acceleration)
        return self.expected_counts(budget).expand(self.contrasts) / self.positions

    def line_counts(self, acceleration: float | None = None) -> list[int]:
        """Return the number of lines or samples of each contrast in an exact mask.

        Their sum is C times the number of a single contrast at this acceleration. Arguments and
        errors are identical to :meth:`shares`.
        """
        counts = self.counts(self.budget(acceleration))
        return counts * (self.contrasts // len(counts))

    def accelerations(self, acceleration: float | None = None) -> list[float]:
        """Return the acceleration of each contrast that results from :meth:`line_counts`."""
        return [self.positions / count for count in self.line_counts(acceleration)]

    def expected_counts(self, budget: Budget) -> Tensor:
        """Return ``n α_c`` of shape ``(rows,)``, float64."""
        if self.split is None:
            return torch.full((self.rows,), float(budget.count), dtype=torch.float64)
        weights = torch.softmax(self.split.double(), dim=0).cpu()
        return water_fill(weights, budget.count, max(budget.kept, 1), self.positions)

    def counts(self, budget: Budget) -> list[int]:
        """Round the expected counts to whole numbers with the same sum."""
        expected = self.expected_counts(budget).detach()
        return largest_remainder(expected, self.rows * budget.count)

    def arrange(self, chosen: Tensor) -> Tensor:
        """Convert ``(batch, rows, positions)`` to masks ``(batch, contrasts, 1, ny, nx)``."""
        masks = self.as_mask(chosen)[:, :, None]
        return masks.expand(-1, self.contrasts, -1, -1, -1)
