"""SeqMRI's sampler: lines in stages, each chosen based on the samples acquired so far."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor
from torch.nn.functional import softplus

from ctxrecon.errors import check_counts
from ctxrecon.masks.budget import Generators, Shape, draw_batch
from ctxrecon.masks.learned.adaptive import AdaptiveSampler, Measure, StagedMask
from ctxrecon.masks.learned.base import check_slope
from ctxrecon.masks.learned.relaxation import (
    ExactChoice,
    draw_uniform,
    rescale,
    straight_through,
)


class SequentialSampler(AdaptiveSampler):
    """The center, then T stages of equally many positions, chosen based on the current image.

    Yin et al., "End-to-end sequential sampling and reconstruction for MRI", ML4H 2021. In each
    stage a network scores the remaining positions. Their probabilities are rescaled to the share
    of the stage, and exactly that many positions are drawn. In training, the gradient is
    straight-through and reaches earlier stages through the image. The paper computes the scores
    by fully connected layers over all of k-space, or by a U-Net on it; here they are computed by
    :class:`~ctxrecon.masks.learned.adaptive.PositionScore`.

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: Grid size divided by the number of samples, center included.
        stages: Number of stages T.
        lines: If true, select whole lines along ``ny``; otherwise single samples.
        center_fraction: Share that is always sampled, greater than 0, see
            :class:`~ctxrecon.masks.learned.base.MaskNetwork`.
        width: Number of features of the network.
        slope: Slope s of the straight-through gradient.

    Raises:
        InputError: If the shape or budget is invalid, the slope is not positive, or ``stages`` or
            ``width`` is below 1.

    Example:
        >>> import torch
        >>> from ctxrecon.masks.learned import SequentialSampler
        >>> sampler = SequentialSampler((16, 16), acceleration=4, stages=2, center_fraction=0.125)
        >>> measure = lambda mask: torch.ones(1, 16, 16, dtype=torch.complex64)
        >>> staged = sampler(measure)
        >>> [int(stage[0, 0, 0].sum()) for stage in staged.stages]
        [2, 1, 1]
    """

    @register_to_config
    def __init__(
        self,
        shape: Shape,
        acceleration: float,
        stages: int = 4,
        lines: bool = True,
        center_fraction: float | None = None,
        width: int = 16,
        slope: float = 12.0,
    ) -> None:
        super().__init__(shape, acceleration, lines, center_fraction, width)
        check_counts(stages=stages)
        check_slope(slope)
        self.stages, self.slope = stages, slope

    def stage_counts(self, acceleration: float | None = None) -> list[int]:
        """Return the number of positions of each stage, the center first.

        Positions are divided as evenly as possible, with more in earlier stages. Stages that would
        add nothing are left out.
        """
        budget = self.budget(acceleration)
        each, more = divmod(budget.count - budget.kept, self.stages)
        counts = [each + (stage < more) for stage in range(self.stages)]
        return [budget.kept, *(count for count in counts if count)]

    @torch.no_grad()
    def forward(
        self,
        measure: Measure,
        acceleration: float | None = None,
        generator: Generators = None,
    ) -> StagedMask:
        """Select masks with an exact budget.

        Args:
            measure: Function that reconstructs an image from the current bool mask, called once
                per stage.
            acceleration: Acceleration factor (default: the sampler's own).
            generator: A single generator, used for one stage after another and in each for one
                mask after another, or a list with one generator per mask.

        Returns:
            Bool masks.

        Raises:
            InputError: If the acceleration is impossible, the center is empty, or ``measure``
                returns images of another shape.
        """
        return self.staged(
            [stage.bool() for stage in self._choose(measure, acceleration, generator, torch.bool)]
        )

    def relaxed(
        self,
        measure: Measure,
        acceleration: float | None = None,
        generator: Generators = None,
    ) -> StagedMask:
        """Select the masks of :meth:`forward` with a straight-through gradient, for training.

        Arguments and errors are identical to :meth:`forward`, except that ``measure`` receives
        float32 masks, for :class:`~ctxrecon.operators.WeightedSense`.

        Returns:
            Masks as float32, 0 or 1.
        """
        return self.staged(self._choose(measure, acceleration, generator, torch.float32))

    def _choose(
        self,
        measure: Measure,
        acceleration: float | None,
        generator: Generators,
        dtype: torch.dtype,
    ) -> list[Tensor]:
        """Return ``(batch, positions)`` float32 for each stage."""
        stages = [self.first_stage(acceleration)]
        taken = stages[0]
        for count in self.stage_counts(acceleration)[1:]:
            mask = self.as_mask(taken[:, None])
            image = self.image(measure, mask.to(dtype))
            # Counts are exact, so all masks have equally many positions left.
            left = (taken.expand(len(image), -1) < 0.5).nonzero()[:, 1].view(len(image), -1)
            scores = softplus(self.score(image, mask).float().gather(1, left))
            # Divided by the largest score, as in the paper's code: a sigmoid would saturate.
            preferences = scores / scores.amax(dim=1, keepdim=True).clamp_min(1e-12)
            probabilities = rescale(preferences, count / left.shape[1])
            added = self._draw(probabilities, count, generator)
            stages.append(torch.zeros(len(image), self.positions).to(added).scatter(1, left, added))
            taken = taken + stages[-1]
        return stages

    def _draw(self, probabilities: Tensor, count: int, generator: Generators) -> Tensor:
        """Select exactly ``count`` positions of each row, 0 or 1, straight-through."""
        size = probabilities.shape[1]
        uniform = draw_batch(
            lambda item: draw_uniform((size,), item), len(probabilities), generator
        )
        rows = zip(probabilities.detach().cpu(), uniform[:, 0], strict=True)
        chosen = torch.stack([ExactChoice(each)(tosses, count) for each, tosses in rows])
        device = probabilities.device
        return straight_through(
            probabilities, uniform[:, 0].to(device), self.slope, chosen.to(device)
        )
