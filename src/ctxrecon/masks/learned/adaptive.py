"""What samplers that look at the measurement share: stages, and a network that scores positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ctxrecon.errors import InputError, check_counts
from ctxrecon.fourier import complex_to_channels, fft2c
from ctxrecon.masks.budget import Shape
from ctxrecon.masks.learned.base import MaskNetwork

Measure: TypeAlias = "Callable[[Tensor], Tensor]"
"""From the mask so far to the image that its samples give.

The mask is ``(batch, 1, ny, nx)``, at first ``(1, 1, ny, nx)`` with the centre alone; the image is
``(batch, ny, nx)`` complex64.
"""


@dataclass(frozen=True)
class StagedMask:
    """A mask that was chosen in stages.

    Attributes:
        mask: ``(batch, 1, ny, nx)``, all that is sampled.
        stages: what each stage added, ``(batch, 1, ny, nx)`` each; the first one is the centre.
    """

    mask: Tensor
    stages: tuple[Tensor, ...]

    @property
    def so_far(self) -> tuple[Tensor, ...]:
        """All that was sampled at the end of each stage; the last one is the mask."""
        taken = [self.stages[0]]
        for stage in self.stages[1:]:
            taken.append(taken[-1] + stage)
        return tuple(taken)


class AdaptiveSampler(MaskNetwork):
    """A network that chooses what to sample next by the image so far.

    The first four arguments are those of :class:`~ctxrecon.masks.learned.base.MaskNetwork`;
    the centre may not be empty, since the first image comes from it.

    Args:
        width: features of the network.

    Raises:
        InputError: also for a width below 1.
    """

    def __init__(
        self,
        shape: Shape,
        acceleration: float | None,
        lines: bool,
        center_fraction: float | None,
        width: int,
    ) -> None:
        super().__init__(shape, acceleration, lines, center_fraction)
        check_counts(width=width)
        self.score = PositionScore(self.positions, lines, width)

    def first_stage(self, acceleration: float | None) -> Tensor:
        """The centre, ``(1, positions)`` float32 on the network's device.

        Raises:
            InputError: an impossible acceleration, or an empty centre.
        """
        budget = self.budget(acceleration)
        if budget.kept == 0:
            raise InputError(
                "expected a centre to take the first image from, got none: raise center_fraction"
            )
        return budget.center.float()[None].to(self.device)

    def image(self, measure: Measure, mask: Tensor) -> Tensor:
        """What ``measure`` gives for the mask.

        Raises:
            InputError: an image that is not complex or not of the sampler's shape.
        """
        image = measure(mask)
        if not image.is_complex() or tuple(image.shape[1:]) != self.shape:
            raise InputError(
                f"expected measure to give complex images (batch, {self.shape[0]}, "
                f"{self.shape[1]}), got {image.dtype} {tuple(image.shape)}"
            )
        return image

    def staged(self, chosen: list[Tensor]) -> StagedMask:
        """Masks from ``(batch, positions)`` of each stage."""
        chosen = [stage.expand(len(chosen[-1]), -1) for stage in chosen]
        total = torch.stack(chosen).sum(dim=0).to(chosen[0].dtype)
        stages = tuple(self.as_mask(stage[:, None]) for stage in chosen)
        return StagedMask(self.as_mask(total[:, None]), stages)


class PositionScore(nn.Module):
    """A score of each position, from the image so far and the mask: the sum of three.

    * What lies beside it: three convolutions over the k-space of the image, whose values v enter
      as ``v log(1 + |v|) / |v|``, and the mask. For lines, features are averaged along the line
      before the last one.
    * What the image shows: three convolutions of stride 2 over the image, averaged to 4 by 4, and
      two fully connected layers.
    * A bias of the position.

    Args:
        positions: number of scores.
        lines: whether they are of lines along ``ny``, or of single samples.
        width: features.
    """

    def __init__(self, positions: int, lines: bool, width: int) -> None:
        super().__init__()
        self.lines = lines
        self.beside = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.last = (nn.Conv1d if lines else nn.Conv2d)(width, 1, 3, padding=1)
        self.shown = nn.Sequential(
            nn.Conv2d(2, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * width, 4 * width),
            nn.ReLU(),
            # Its bias is that of the position.
            nn.Linear(4 * width, positions),
        )

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """``(batch, positions)``.

        Args:
            image: ``(batch, ny, nx)`` complex64, of any intensity.
            mask: ``(batch or 1, 1, ny, nx)`` float32.
        """
        scale = image.detach().abs().flatten(1).mean(dim=1)[:, None, None]
        image = image / torch.where(scale > 0, scale, torch.ones_like(scale))
        kspace = fft2c(image)
        magnitude = kspace.abs().clamp_min(1e-6)
        known = complex_to_channels(kspace * (torch.log1p(magnitude) / magnitude))
        dtype = next(self.parameters()).dtype
        seen = torch.cat([known, mask.expand(len(known), -1, -1, -1)], dim=1).to(dtype)
        # Autocast would round the scores, and other lines would be chosen without it.
        with torch.autocast(image.device.type, enabled=False):
            features = self.beside(seen)
            if self.lines:
                features = features.mean(dim=-2)
            shown = self.shown(complex_to_channels(image).to(dtype))
            return self.last(features).flatten(1) + shown
