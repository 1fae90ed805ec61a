"""Base classes of samplers: masks with an exact budget, and relaxed masks for training."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.masks.budget import (
    Generators,
    Shape,
    center_slice,
    check_shape,
    draw_batch,
    item_generators,
)
from ctxrecon.masks.learned.relaxation import (
    ExactChoice,
    draw_uniform,
    rescale,
    straight_through,
)
from ctxrecon.masks.lines import line_budget
from ctxrecon.masks.points import point_budget

logger = logging.getLogger(__name__)

CENTER_2D = 0.08
"""Default side of the fully sampled box of 2-D masks, as a share of each axis."""
_REMEMBERED = 32


@dataclass(frozen=True)
class Budget:
    """Number of positions that an acceleration factor allows.

    Attributes:
        count: Number of lines or samples, center included.
        center: Positions that are always sampled, ``(positions,)`` bool.
    """

    count: int
    center: Tensor

    @property
    def kept(self) -> int:
        """Number of lines or samples in the center."""
        return int(self.center.sum())

    @property
    def ratio(self) -> float:
        """Sampling ratio r, the share of the positions that is sampled."""
        return self.count / len(self.center)


@lru_cache(maxsize=64)
def mask_budget(
    shape: Shape, lines: bool, center_fraction: float | None, acceleration: float
) -> Budget:
    """Return the budget that the masks of ``ctxrecon.masks`` have at an acceleration.

    Args:
        shape: Grid size ``(ny, nx)``.
        lines: If true, a position is a line along ``ny``; otherwise a single sample.
        center_fraction: Fully sampled share of the lines, or of each axis for single samples.
            ``None`` for the default of ``uniform1d`` or ``variable_density2d``.
        acceleration: Number of positions divided by the number of sampled ones.

    Raises:
        InputError: If the shape, acceleration or fraction is invalid, or the center exceeds the
            budget.
    """
    if lines:
        count, width = line_budget(shape[1], acceleration, center_fraction)
        center = torch.zeros(shape[1], dtype=torch.bool, device="cpu")
        center[center_slice(shape[1], width)] = True
        return Budget(count, center)
    fraction = CENTER_2D if center_fraction is None else center_fraction
    _, count, box = point_budget(shape, acceleration, fraction)
    return Budget(count, box.flatten())


class MaskNetwork(ModelMixin, ConfigMixin):
    """Network that selects k-space positions: lines or single samples.

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: Default acceleration of calls that specify none. If ``None``, every call has
            to specify one.
        lines: If true, select whole lines along ``ny``; otherwise single samples.
        center_fraction: Share that is always sampled, as part of the budget: a share of the lines,
            or a box with this share of each axis. ``None`` for the defaults of ``ctxrecon.masks``,
            ``0.32 / acceleration`` of the lines or 0.08 of each axis.

    Raises:
        InputError: If the shape is not two positive integers, or the budget is impossible at the
            given acceleration.
    """

    def __init__(
        self,
        shape: Shape,
        acceleration: float | None,
        lines: bool,
        center_fraction: float | None,
    ) -> None:
        super().__init__()
        self.shape = check_shape(shape)
        self.acceleration, self.lines, self.center_fraction = acceleration, lines, center_fraction
        self.ratios: tuple[float, float] | None = None
        if acceleration is not None:
            self.budget(acceleration)

    @property
    def positions(self) -> int:
        """Number of positions to select from: ``nx`` lines, or ``ny nx`` samples."""
        ny, nx = self.shape
        return nx if self.lines else ny * nx

    def budget(self, acceleration: float | None = None) -> Budget:
        """Return the budget at an acceleration (default: the network's own).

        Raises:
            InputError: If the acceleration is below 1 or so high that nothing, or not even the
                center, is left, or if none is given and the network has no default.
        """
        return mask_budget(self.shape, self.lines, self.center_fraction, self.resolve(acceleration))

    def resolve(self, acceleration: float | None) -> float:
        """Return the acceleration, or the network's default if it is ``None``.

        Raises:
            InputError: If none is given and the network has no default.
        """
        acceleration = self.acceleration if acceleration is None else acceleration
        if acceleration is None:
            raise InputError(f"this {type(self).__name__} has no default acceleration: specify one")
        return float(acceleration)

    def _serve(self, ratios: tuple[float, float]) -> None:
        """Support a range of sampling ratios r in place of a single acceleration.

        Raises:
            InputError: If the ratios are not ``0 < r_min ≤ r_max ≤ 1``, or a budget is impossible.
        """
        if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1] <= 1:
            raise InputError(f"expected `ratios` (r_min, r_max) within (0, 1], got {ratios}")
        self.ratios = (float(ratios[0]), float(ratios[1]))
        for ratio in self.ratios:
            self.budget(1 / ratio)

    def draw_acceleration(self, generator: torch.Generator | None = None) -> float:
        """Draw ``1 / r`` with r uniform on the range of ratios, or return the one acceleration."""
        if self.ratios is None:
            assert self.acceleration is not None
            return self.acceleration
        low, high = self.ratios
        return 1 / (low + (high - low) * float(draw_uniform((1,), generator)))

    def each_acceleration(
        self, acceleration: float | Sequence[float] | None, batch_size: int
    ) -> list[float | None]:
        """Return the accelerations of a batch: a single one for all masks, or one per mask.

        Raises:
            InputError: If the length of a sequence differs from the batch size.
        """
        if not isinstance(acceleration, Sequence):
            return [acceleration]
        if len(acceleration) != batch_size:
            raise InputError(
                f"expected one acceleration or {batch_size}, one per mask, got {len(acceleration)}"
            )
        return list(acceleration)

    def warn_outside_range(self, acceleration: float | None) -> None:
        """Log a warning if an acceleration lies outside the range used in training."""
        if self.ratios is None:
            return
        (low, high), asked = self.ratios, 1 / self.resolve(acceleration)
        if not low - 0.5 / self.positions <= asked <= high + 0.5 / self.positions:
            logger.warning(
                "acceleration %.3g lies outside the range used in training, %.3g to %.3g: neither "
                "the masks nor the network were trained for it",
                1 / asked,
                1 / high,
                1 / low,
            )

    def as_mask(self, chosen: Tensor) -> Tensor:
        """Convert ``(..., positions)`` to masks ``(..., ny, nx)``; lines are views of one row."""
        if self.lines:
            return chosen[..., None, :].expand(*chosen.shape[:-1], *self.shape)
        return chosen.unflatten(-1, self.shape)


class Sampler(MaskNetwork):
    """Trainable distribution of masks.

    ``sampler(acceleration=8, generator=g)`` draws masks with an exact budget. :meth:`relaxed` draws
    masks for training: independent decisions ``u ≤ p`` with a straight-through gradient, whose
    *expected* budget is exact.

    In evaluation mode the probabilities are computed once per acceleration. They are recomputed
    after ``train()``, ``eval()``, an optimizer step, loading a checkpoint or moving the network to
    another device. Call ``eval()`` after changing weights through ``parameter.data``.

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: Default acceleration of calls that specify none, or ``None``.
        lines: If true, select whole lines along ``ny``; otherwise single samples.
        center_fraction: Share that is always sampled, see :class:`MaskNetwork`.
        slope: Slope s of the straight-through gradient; 12 in the code of LOUPE.

    Raises:
        InputError: If the shape or budget is invalid, or the slope is not positive.
    """

    def __init__(
        self,
        shape: Shape,
        acceleration: float | None,
        lines: bool,
        center_fraction: float | None,
        slope: float,
    ) -> None:
        super().__init__(shape, acceleration, lines, center_fraction)
        check_slope(slope)
        self.slope = slope
        self._known: dict[tuple[object, ...], tuple[list[ExactChoice], list[int]]] = {}

    @abstractmethod
    def preferences(self, ratio: float) -> Tensor:
        """Return the probabilities before rescaling, ``(rows, positions)`` float32 in [0, 1].

        Rows are masks that are drawn together, one per contrast.

        Args:
            ratio: Sampling ratio r, the share of the positions that is sampled.
        """

    def expected_counts(self, budget: Budget) -> Tensor:
        """Return the expected number of positions of each row, ``(rows,)`` float64."""
        return torch.full((1,), float(budget.count), dtype=torch.float64)

    def counts(self, budget: Budget) -> list[int]:
        """Return the number of positions of each row in a mask with an exact budget."""
        return [budget.count]

    def arrange(self, chosen: Tensor) -> Tensor:
        """Convert ``(batch, rows, positions)`` to masks ``(batch, 1, ny, nx)``."""
        return self.as_mask(chosen)

    def forward(
        self,
        acceleration: float | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """Draw masks with an exact budget.

        Uses the same random numbers as :meth:`relaxed`, with the threshold shifted until the count
        is exact (:class:`~ctxrecon.masks.learned.relaxation.ExactChoice`).

        Args:
            acceleration: Grid size divided by the number of samples, center included (default: the
                sampler's own).
            batch_size: Number of masks, drawn independently.
            generator: A single generator, used for one mask after another, or a list with one
                generator per mask.

        Returns:
            Masks of shape ``(batch_size, 1, ny, nx)``, bool on the CPU, ``True`` where sampled. A
            sampler of several contrasts returns ``(batch_size, contrasts, 1, ny, nx)``.

        Raises:
            InputError: If the acceleration, batch size or number of generators is invalid.
        """
        self.warn_outside_range(acceleration)
        choices, counts = self._choices(acceleration)

        def draw(item: torch.Generator | None) -> Tensor:
            uniform = draw_uniform((len(choices), self.positions), item)
            rows = zip(choices, uniform, counts, strict=True)
            return torch.stack([choice(tosses, count) for choice, tosses, count in rows])

        return self.arrange(draw_batch(draw, batch_size, generator)[:, 0]).contiguous()

    def relaxed(
        self,
        acceleration: float | Sequence[float] | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """Draw masks for training: ``u ≤ p``, with the gradient of ``σ_s(p − u)``.

        Args:
            acceleration: A single acceleration, or one per mask (default: the sampler's own).
            batch_size: Number of masks, drawn independently.
            generator: A single generator, used for one mask after another, or a list with one
                generator per mask.

        Returns:
            Masks with the shape of :meth:`forward`, float32 on the sampler's device, 0 or 1, for
            :class:`~ctxrecon.operators.WeightedSense`.

        Raises:
            InputError: If an acceleration, the batch size or the number of generators is invalid.
        """
        items = item_generators(batch_size, generator)
        each = self.each_acceleration(acceleration, batch_size)
        probabilities = torch.stack([self._rescaled(one) for one in each])
        known = probabilities.detach().cpu().expand(batch_size, -1, -1)
        tosses = torch.stack([self._tosses(p, item) for p, item in zip(known, items, strict=True)])
        tosses = tosses.to(probabilities.device)
        return self.arrange(straight_through(probabilities, tosses, self.slope))

    def probabilities(self, acceleration: float | None = None) -> Tensor:
        """Return the sampling probability of each position, which is 1 in the center.

        The probabilities sum to the budget and are differentiable.

        Args:
            acceleration: Acceleration factor (default: the sampler's own).

        Returns:
            Probabilities ``(1, 1, ny, nx)`` float32. A sampler of several contrasts returns
            ``(1, contrasts, 1, ny, nx)``.

        Raises:
            InputError: If the acceleration is invalid.
        """
        return self.arrange(self._rescaled(acceleration)[None])

    def train(self, mode: bool = True) -> Sampler:
        """Set the training mode like ``torch.nn.Module.train`` and clear the cache."""
        self._known.clear()
        return super().train(mode)

    def _rescaled(self, acceleration: float | None, counts: Tensor | None = None) -> Tensor:
        """Return probabilities ``(rows, positions)`` whose sums equal the requested counts."""
        budget = self.budget(acceleration)
        preferences = self.preferences(budget.ratio)
        device = preferences.device
        if counts is None:
            counts = self.expected_counts(budget)
        outside = (~budget.center).nonzero()[:, 0].to(device)
        ratio = (counts.to(device) - budget.kept) / max(len(outside), 1)
        free = rescale(preferences[:, outside], ratio[:, None])
        return torch.ones_like(preferences).index_copy(1, outside, free)

    def _tosses(self, probabilities: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw u of one mask, ``(rows, positions)`` on the CPU; repeat if a row is empty."""
        if not bool(torch.isfinite(probabilities).all()):  # the loop would never end
            raise InputError(
                "the sampler's probabilities are not finite: training has diverged, lower the "
                "learning rate"
            )
        while True:
            uniform = draw_uniform(tuple(probabilities.shape), generator)
            if bool((uniform <= probabilities).any(dim=-1).all()):
                return uniform

    @torch.no_grad()
    def _choices(self, acceleration: float | None) -> tuple[list[ExactChoice], list[int]]:
        """Return an exact choice for each row and its count, cached in evaluation mode."""
        acceleration = self.resolve(acceleration)
        weights = tuple(
            (value.data_ptr(), 0 if value.is_inference() else value._version)
            for value in self.parameters()
        )
        known = self._known.get((acceleration, weights))
        if known is None:
            counts = self.counts(self.budget(acceleration))
            exact = self._rescaled(acceleration, torch.tensor(counts, dtype=torch.float64))
            known = [ExactChoice(row) for row in exact.cpu()], counts
            if not self.training:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[acceleration, weights] = known
        return known


def check_slope(slope: float) -> None:
    """Validate that the slope s of the straight-through gradient is positive."""
    if not slope > 0:
        raise InputError(f"expected a positive `slope`, got {slope}")
