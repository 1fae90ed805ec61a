"""Base of samplers that adapt to the measurement: stages, and a network that scores positions."""

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
"""Function from the current mask to the image reconstructed from its samples.

The mask has shape ``(batch, 1, ny, nx)``, initially ``(1, 1, ny, nx)`` with the center only. The
image has shape ``(batch, ny, nx)``, complex64.
"""


@dataclass(frozen=True)
class StagedMask:
    """Mask that was chosen in stages.

    Attributes:
        mask: All sampled positions, ``(batch, 1, ny, nx)``.
        stages: Positions added by each stage, ``(batch, 1, ny, nx)`` each. The first stage is the
            center.
    """

    mask: Tensor
    stages: tuple[Tensor, ...]

    @property
    def so_far(self) -> tuple[Tensor, ...]:
        """Positions sampled by the end of each stage; the last entry is the mask."""
        taken = [self.stages[0]]
        for stage in self.stages[1:]:
            taken.append(taken[-1] + stage)
        return tuple(taken)


class AdaptiveSampler(MaskNetwork):
    """Network that selects the next samples based on the current reconstruction.

    The first four arguments are described in
    :class:`~ctxrecon.masks.learned.base.MaskNetwork`. The center must not be empty, since the
    first image is reconstructed from it.

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: Default acceleration of calls that specify none, or ``None``.
        lines: If true, select whole lines along ``ny``; otherwise single samples.
        center_fraction: Share that is always sampled, greater than 0.
        width: Number of features of the network.

    Raises:
        InputError: If the shape or budget is invalid, or the width is below 1.
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
        """Return the center, ``(1, positions)`` float32 on the network's device.

        Raises:
            InputError: If the acceleration is impossible, or the center is empty.
        """
        budget = self.budget(acceleration)
        if budget.kept == 0:
            raise InputError(
                "expected a center to reconstruct the first image from, got none: raise "
                "`center_fraction`"
            )
        return budget.center.float()[None].to(self.device)

    def image(self, measure: Measure, mask: Tensor) -> Tensor:
        """Return the image that ``measure`` reconstructs from the mask.

        Raises:
            InputError: If the image is not complex or not of the sampler's shape.
        """
        image = measure(mask)
        if not image.is_complex() or tuple(image.shape[1:]) != self.shape:
            raise InputError(
                f"expected `measure` to return complex images (batch, {self.shape[0]}, "
                f"{self.shape[1]}), got {image.dtype} {tuple(image.shape)}"
            )
        return image

    def staged(self, chosen: list[Tensor]) -> StagedMask:
        """Build a staged mask from the positions ``(batch, positions)`` of each stage."""
        chosen = [stage.expand(len(chosen[-1]), -1) for stage in chosen]
        total = torch.stack(chosen).sum(dim=0).to(chosen[0].dtype)
        stages = tuple(self.as_mask(stage[:, None]) for stage in chosen)
        return StagedMask(self.as_mask(total[:, None]), stages)


class PositionScore(nn.Module):
    """Score of each position, computed from the current image and mask as a sum of three terms.

    * Neighboring k-space: three convolutions over the k-space of the image, whose values v enter
      as ``v log(1 + |v|) / |v|``, and over the mask. For lines, the features are averaged along
      the line before the last convolution.
    * Image content: three convolutions of stride 2 over the image, averaged to 4 by 4, and two
      fully connected layers.
    * A bias for each position.

    Args:
        positions: Number of scores.
        lines: If true, score lines along ``ny``; otherwise single samples.
        width: Number of features.
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
            # Its bias is the bias of each position.
            nn.Linear(4 * width, positions),
        )

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return scores ``(batch, positions)``.

        Args:
            image: Current image ``(batch, ny, nx)``, complex64, of arbitrary intensity.
            mask: Current mask ``(batch or 1, 1, ny, nx)``, float32.
        """
        scale = image.detach().abs().flatten(1).mean(dim=1)[:, None, None]
        image = image / torch.where(scale > 0, scale, torch.ones_like(scale))
        kspace = fft2c(image)
        magnitude = kspace.abs().clamp_min(1e-6)
        known = complex_to_channels(kspace * (torch.log1p(magnitude) / magnitude))
        dtype = next(self.parameters()).dtype
        seen = torch.cat([known, mask.expand(len(known), -1, -1, -1)], dim=1).to(dtype)
        # Autocast would round the scores, so that the selected lines would depend on it.
        with torch.autocast(image.device.type, enabled=False):
            features = self.beside(seen)
            if self.lines:
                features = features.mean(dim=-2)
            shown = self.shown(complex_to_channels(image).to(dtype))
            return self.last(features).flatten(1) + shown
