"""What all samplers provide: masks of an exact budget, and masks to train with."""

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
"""Share of each axis of the box that masks of single samples keep by default."""
_REMEMBERED = 32


@dataclass(frozen=True)
class Budget:
    """How much an acceleration allows.

    Attributes:
        count: lines or samples, the centre included.
        center: ``(positions,)`` bool, what is always kept.
    """

    count: int
    center: Tensor

    @property
    def kept(self) -> int:
        """Lines or samples of the centre."""
        return int(self.center.sum())

    @property
    def ratio(self) -> float:
        """r: share of the positions that is taken."""
        return self.count / len(self.center)


@lru_cache(maxsize=64)
def mask_budget(
    shape: Shape, lines: bool, center_fraction: float | None, acceleration: float
) -> Budget:
    """The budget of the other masks of ``ctxrecon.masks`` at this acceleration.

    Args:
        shape: ``(ny, nx)``.
        lines: whether a position is a line along ``ny``, or a single sample.
        center_fraction: as in ``uniform1d`` or ``variable_density2d``; ``None`` for their default.
        acceleration: positions over those taken.

    Raises:
        InputError: as the masks named.
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
    """A network that chooses positions of k-space: lines, or single samples.

    Args:
        shape: ``(ny, nx)``.
        acceleration: used where none is given in a call; ``None`` if one has to be.
        lines: whether whole lines along ``ny`` are chosen, along ``nx``, or single samples.
        center_fraction: what is always kept, as part of the budget: that share of the lines, or a
            box with that share of each axis. ``None`` for the defaults of the other masks,
            ``0.32 / acceleration`` of the lines or 0.08 of each axis.

    Raises:
        InputError: a shape that is not two positive integers; a budget that is impossible at the
            acceleration given.
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
        """Number of positions to choose from: ``nx`` lines, or ``ny nx`` samples."""
        ny, nx = self.shape
        return nx if self.lines else ny * nx

    def budget(self, acceleration: float | None = None) -> Budget:
        """What this acceleration, or the network's own, allows.

        Raises:
            InputError: an acceleration below 1 or so high that nothing, or not even the centre, is
                left; none given to a network that has none.
        """
        return mask_budget(self.shape, self.lines, self.center_fraction, self.resolve(acceleration))

    def resolve(self, acceleration: float | None) -> float:
        """This acceleration, or the network's own.

        Raises:
            InputError: none given to a network that has none.
        """
        acceleration = self.acceleration if acceleration is None else acceleration
        if acceleration is None:
            raise InputError(f"this {type(self).__name__} has no acceleration of its own: give one")
        return float(acceleration)

    def _serve(self, ratios: tuple[float, float]) -> None:
        """Serve a range of ratios r in place of one acceleration.

        Raises:
            InputError: ratios that are not ``0 < r_min ≤ r_max ≤ 1``, or impossible budgets.
        """
        if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1] <= 1:
            raise InputError(f"expected ratios (r_min, r_max) within (0, 1], got {ratios}")
        self.ratios = (float(ratios[0]), float(ratios[1]))
        for ratio in self.ratios:
            self.budget(1 / ratio)

    def draw_acceleration(self, generator: torch.Generator | None = None) -> float:
        """``1 / r`` for r uniform on its range, to train with; or the one acceleration."""
        if self.ratios is None:
            assert self.acceleration is not None
            return self.acceleration
        low, high = self.ratios
        return 1 / (low + (high - low) * float(draw_uniform((1,), generator)))

    def each_acceleration(
        self, acceleration: float | Sequence[float] | None, batch_size: int
    ) -> list[float | None]:
        """The acceleration of all masks, alone, or that of each.

        Raises:
            InputError: a sequence of another length than the batch.
        """
        if not isinstance(acceleration, Sequence):
            return [acceleration]
        if len(acceleration) != batch_size:
            raise InputError(
                f"expected one acceleration or {batch_size}, one for each mask, got "
                f"{len(acceleration)}"
            )
        return list(acceleration)

    def warn_outside_range(self, acceleration: float | None) -> None:
        """Log a warning where an acceleration lies outside the range of training."""
        if self.ratios is None:
            return
        (low, high), asked = self.ratios, 1 / self.resolve(acceleration)
        if not low - 0.5 / self.positions <= asked <= high + 0.5 / self.positions:
            logger.warning(
                "acceleration %.3g lies outside the range of training, %.3g to %.3g: neither the "
                "masks nor the network were made for it",
                1 / asked,
                1 / high,
                1 / low,
            )

    def as_mask(self, chosen: Tensor) -> Tensor:
        """``(..., positions)`` as masks ``(..., ny, nx)``; lines are views of one row."""
        if self.lines:
            return chosen[..., None, :].expand(*chosen.shape[:-1], *self.shape)
        return chosen.unflatten(-1, self.shape)


class Sampler(MaskNetwork):
    """A trainable distribution of masks; see :class:`MaskNetwork` for the first four arguments.

    ``sampler(acceleration=8, generator=g)`` draws masks of an exact budget. :meth:`relaxed` draws
    masks to train with: independent tosses ``u ≤ p`` with a straight-through gradient, whose
    *expected* budget is exact.

    In evaluation mode probabilities are computed once for each acceleration. They are computed
    again after ``train()``, ``eval()``, an optimiser's step, loading or moving; a change through
    ``parameter.data`` alone has to be followed by ``eval()``.

    Args:
        slope: s of the straight-through gradient; 12 in the code of LOUPE.

    Raises:
        InputError: also for a slope that is not positive.
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
        """Probabilities before they are rescaled, ``(rows, positions)`` float32 in [0, 1].

        Rows are masks that are drawn together, one of each contrast.

        Args:
            ratio: r, share of the positions that is taken.
        """

    def expected_counts(self, budget: Budget) -> Tensor:
        """Positions that each row takes on average, ``(rows,)`` float64, differentiable."""
        return torch.full((1,), float(budget.count), dtype=torch.float64)

    def counts(self, budget: Budget) -> list[int]:
        """Positions that each row takes in a mask of an exact budget."""
        return [budget.count]

    def arrange(self, chosen: Tensor) -> Tensor:
        """``(batch, rows, positions)`` as masks ``(batch, 1, ny, nx)``."""
        return self.as_mask(chosen)

    def forward(
        self,
        acceleration: float | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """Draw masks of the exact budget.

        The tosses of :meth:`relaxed`, with the threshold moved until the count is right
        (:class:`~ctxrecon.masks.learned.relaxation.ExactChoice`).

        Args:
            acceleration: size of the grid over the number of samples, centre included; by default
                the sampler's own.
            batch_size: number of masks, drawn independently.
            generator: one, drawn from mask after mask, or a list with one for each mask.

        Returns:
            ``(batch_size, 1, ny, nx)`` bool on the CPU, ``True`` where sampled; with the contrasts
            before the 1 from a sampler of several.

        Raises:
            InputError: an impossible acceleration, batch size or number of generators.
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
        """Draw masks to train with: ``u ≤ p``, with the gradient of ``σ_s(p − u)``.

        Arguments and errors are those of :meth:`forward`, but that each mask may have an
        acceleration of its own.

        Returns:
            As :meth:`forward`, but float32 on the sampler's device, 0 or 1, for
            :class:`~ctxrecon.operators.WeightedSense`.
        """
        items = item_generators(batch_size, generator)
        each = self.each_acceleration(acceleration, batch_size)
        probabilities = torch.stack([self._rescaled(one) for one in each])
        known = probabilities.detach().cpu().expand(batch_size, -1, -1)
        tosses = torch.stack([self._tosses(p, item) for p, item in zip(known, items, strict=True)])
        tosses = tosses.to(probabilities.device)
        return self.arrange(straight_through(probabilities, tosses, self.slope))

    def probabilities(self, acceleration: float | None = None) -> Tensor:
        """The probability of each position, ``(1, 1, ny, nx)`` float32, 1 in the centre.

        With the contrasts in place of the second 1 from a sampler of several, ``(1, C, 1, …)``.

        Their sum over the positions is the budget. Differentiable.

        Args:
            acceleration: by default the sampler's own.

        Raises:
            InputError: an impossible acceleration.
        """
        return self.arrange(self._rescaled(acceleration)[None])

    def train(self, mode: bool = True) -> Sampler:
        """As ``torch.nn.Module.train``; forgets what was computed before."""
        self._known.clear()
        return super().train(mode)

    def _rescaled(self, acceleration: float | None, counts: Tensor | None = None) -> Tensor:
        """Probabilities ``(rows, positions)`` with the mean that the counts ask for."""
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
        """u of one mask, ``(rows, positions)`` on the CPU, drawn again if a row took nothing."""
        while True:
            uniform = draw_uniform(tuple(probabilities.shape), generator)
            if bool((uniform <= probabilities).any(dim=-1).all()):
                return uniform

    @torch.no_grad()
    def _choices(self, acceleration: float | None) -> tuple[list[ExactChoice], list[int]]:
        """A choice for each row and its count, remembered in evaluation mode."""
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
    """Refuse a slope s of the straight-through gradient that is not positive."""
    if not slope > 0:
        raise InputError(f"expected a positive slope, got {slope}")
