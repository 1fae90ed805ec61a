"""SeqMRI's sampler: lines in stages, each chosen by what has been acquired."""

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
    """The centre, then T stages of as many lines each, chosen by the image so far.

    Yin et al., "End-to-end sequential sampling and reconstruction for MRI", ML4H 2021. In each
    stage a network scores the positions that are left; their probabilities are rescaled to the
    stage's share, and exactly that many are drawn. In training the gradient is straight-through,
    and reaches earlier stages through the image. The paper scores by fully connected layers over
    all of k-space, or a U-Net on it; here it is
    :class:`~ctxrecon.masks.learned.adaptive.PositionScore`.

    Args:
        shape: ``(ny, nx)``.
        acceleration: size of the grid over the number of samples, centre included.
        stages: T.
        lines: whether whole lines along ``ny`` are chosen, or single samples.
        center_fraction: see :class:`~ctxrecon.masks.learned.base.MaskNetwork`; not 0.
        width: features of the network.
        slope: s of the straight-through gradient.

    Raises:
        InputError: also for a slope that is not positive, and stages or a width below 1.
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
        """Positions of each stage, the centre first; as equal as can be, the earlier ones larger.

        Stages that would add nothing are left out.
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
        """Choose masks of the exact budget.

        Args:
            measure: gives the image for the mask so far, bool; it is called once a stage.
            acceleration: by default the sampler's own.
            generator: one, drawn from stage after stage and in each from mask after mask, or a list
                with one for each mask.

        Returns:
            Masks, bool.

        Raises:
            InputError: an impossible acceleration, an empty centre, or images of another shape.
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
        """The same masks to train with, with a straight-through gradient.

        Arguments and errors are those of :meth:`forward`, but that ``measure`` gets float32 masks,
        for :class:`~ctxrecon.operators.WeightedSense`.

        Returns:
            Masks, float32, 0 or 1.
        """
        return self.staged(self._choose(measure, acceleration, generator, torch.float32))

    def _choose(
        self,
        measure: Measure,
        acceleration: float | None,
        generator: Generators,
        dtype: torch.dtype,
    ) -> list[Tensor]:
        """``(batch, positions)`` float32 of each stage."""
        stages = [self.first_stage(acceleration)]
        taken = stages[0]
        for count in self.stage_counts(acceleration)[1:]:
            mask = self.as_mask(taken[:, None])
            image = self.image(measure, mask.to(dtype))
            # Exact counts: as many are left in each mask.
            left = (taken.expand(len(image), -1) < 0.5).nonzero()[:, 1].view(len(image), -1)
            scores = softplus(self.score(image, mask).float().gather(1, left))
            # By the largest, as the paper's code does: a sigmoid would saturate.
            preferences = scores / scores.amax(dim=1, keepdim=True).clamp_min(1e-12)
            probabilities = rescale(preferences, count / left.shape[1])
            added = self._draw(probabilities, count, generator)
            stages.append(torch.zeros(len(image), self.positions).to(added).scatter(1, left, added))
            taken = taken + stages[-1]
        return stages

    def _draw(self, probabilities: Tensor, count: int, generator: Generators) -> Tensor:
        """Exactly ``count`` of each row, 0 or 1, straight-through."""
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
