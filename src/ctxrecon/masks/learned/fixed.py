"""Masks that are not learned, called as the learned ones are."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.masks import MASKS, make_mask
from ctxrecon.masks.budget import Generators, Shape
from ctxrecon.masks.learned.base import CENTER_2D, MaskNetwork


class FixedMasks(MaskNetwork):
    """One of ``ctxrecon.masks.MASKS``, drawn anew in every call: what samplers are held against.

    With several contrasts all of them get one mask, "RM-S" of JoJoNet.

    Args:
        shape: ``(ny, nx)``.
        acceleration: size of the grid over the number of samples, centre included; ``None`` with
            ``ratios``.
        mask: its name.
        center_fraction: see :class:`~ctxrecon.masks.learned.base.MaskNetwork`.
        ratios: range of the share of k-space that is sampled, from which each step of training
            draws.

    Raises:
        InputError: also for an unknown name, and without either acceleration or ratios.
    """

    @register_to_config
    def __init__(
        self,
        shape: Shape,
        acceleration: float | None = None,
        mask: str = "uniform1d",
        center_fraction: float | None = None,
        ratios: tuple[float, float] | None = None,
    ) -> None:
        mask = MASKS.find(mask)
        if (acceleration is None) == (ratios is None):
            raise InputError("fixed masks have either one acceleration or a range of ratios")
        super().__init__(shape, acceleration, mask.endswith("1d"), center_fraction)
        if ratios is not None:
            self._serve(ratios)
        self.mask = mask
        # A model without any weights is neither saved nor placed on a device.
        self.placeholder = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(
        self,
        acceleration: float | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """As :meth:`~ctxrecon.masks.learned.base.Sampler.forward`."""
        fraction = self.center_fraction
        if fraction is None and not self.lines:
            fraction = CENTER_2D  # radial masks have none of their own
        return make_mask(
            self.mask,
            self.shape,
            self.resolve(acceleration),
            fraction,
            batch_size=batch_size,
            generator=generator,
        )

    def relaxed(
        self,
        acceleration: float | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """The same masks as 0 and 1, float32 on the CPU, without a gradient."""
        return self(acceleration, batch_size, generator).float()
