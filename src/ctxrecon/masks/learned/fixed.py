"""Masks that are not learned, called as the learned ones are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.masks import MASKS, make_mask
from ctxrecon.masks.budget import Generators, Shape, item_generators
from ctxrecon.masks.learned.base import CENTER_2D, MaskNetwork
from ctxrecon.masks.learned.spectrum import kspace_energy, spectrum_mask

SPECTRUM = ("spectrum1d", "spectrum2d")
"""Masks by the strongest lines, or samples, of images that :meth:`FixedMasks.fit` is given."""


class FixedMasks(MaskNetwork):
    """One of ``ctxrecon.masks.MASKS``, drawn anew in every call: what samplers are held against.

    Or "spectrum1d" or "spectrum2d": the positions of the largest mean energy of a training set
    (:func:`~ctxrecon.masks.learned.spectrum_mask`), the same in every call. The training script
    gives them the first scans that it trains with, and the checkpoint keeps their spectrum.

    With several contrasts all of them get one mask, "RM-S" of JoJoNet.

    Args:
        shape: ``(ny, nx)``.
        acceleration: size of the grid over the number of samples, centre included; ``None`` with
            ``ratios``.
        mask: its name, a key of ``MASKS`` or one of :data:`SPECTRUM`.
        center_fraction: see :class:`~ctxrecon.masks.learned.base.MaskNetwork`.
        ratios: range of the share of k-space that is sampled, from which each sample of training
            has its own.

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
        if mask not in SPECTRUM:
            mask = MASKS.find(mask)
        if (acceleration is None) == (ratios is None):
            raise InputError("fixed masks have either one acceleration or a range of ratios")
        super().__init__(shape, acceleration, mask.endswith("1d"), center_fraction)
        if ratios is not None:
            self._serve(ratios)
        self.mask = mask
        self.energy: Tensor | None
        self.register_buffer("energy", torch.zeros(self.shape) if mask in SPECTRUM else None)
        # A model without any weights is neither saved nor placed on a device.
        self.placeholder = nn.Parameter(torch.zeros(1), requires_grad=False)

    @property
    def lacks_spectrum(self) -> bool:
        """Whether images have to be given to :meth:`fit` before masks can be drawn."""
        return self.energy is not None and not bool(self.energy.any())

    def fit(self, images: Tensor) -> None:
        """Take the spectrum of a mask by the strongest positions from images.

        Args:
            images: ``(batch, ny, nx)`` of the sampler's shape, real or complex; those of different
                intensity count by their energy.

        Raises:
            InputError: images of another shape or without signal, or a mask that needs none.
        """
        if self.energy is None:
            raise InputError(f"{self.mask} masks have no spectrum: leave the images out")
        if tuple(images.shape[1:]) != self.shape:
            raise InputError(
                f"expected images (batch, {self.shape[0]}, {self.shape[1]}), got "
                f"{tuple(images.shape)}"
            )
        self.energy.copy_(kspace_energy(images))
        if self.lacks_spectrum:
            raise InputError("images without signal have no spectrum: give others")

    def forward(
        self,
        acceleration: float | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """As :meth:`~ctxrecon.masks.learned.base.Sampler.forward`."""
        self.warn_outside_range(acceleration)
        fraction = self.center_fraction
        if fraction is None and not self.lines:
            fraction = CENTER_2D  # radial masks have none of their own
        if self.energy is not None:
            return self._strongest(self.resolve(acceleration), fraction, batch_size, generator)
        return make_mask(
            self.mask,
            self.shape,
            self.resolve(acceleration),
            fraction,
            batch_size=batch_size,
            generator=generator,
        )

    def _strongest(
        self, acceleration: float, fraction: float | None, batch_size: int, generator: Generators
    ) -> Tensor:
        """The mask of the spectrum, as often as asked for."""
        if self.lacks_spectrum:
            raise InputError(
                f"{self.mask} has no spectrum yet: give the images of a training set to fit()"
            )
        assert self.energy is not None
        mask = spectrum_mask(self.energy, acceleration, fraction, lines=self.lines)
        return mask.repeat(len(item_generators(batch_size, generator)), 1, 1, 1)

    def relaxed(
        self,
        acceleration: float | Sequence[float] | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """The same masks as 0 and 1, float32 on the CPU, without a gradient.

        Each may have an acceleration of its own.
        """
        each = self.each_acceleration(acceleration, batch_size)
        if len(each) == 1:
            return self(each[0], batch_size, generator).float()
        items = item_generators(batch_size, generator)
        masks = [self(one, 1, item and [item]) for one, item in zip(each, items, strict=True)]
        return torch.cat(masks).float()
