"""Fixed (not learned) masks behind the interface of the learned samplers."""

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
"""Masks of the strongest lines or samples of the images passed to :meth:`FixedMasks.fit`."""


class FixedMasks(MaskNetwork):
    """One of ``ctxrecon.masks.MASKS``, redrawn in every call: the baseline of learned samplers.

    The masks "spectrum1d" and "spectrum2d" are the positions with the largest mean energy of a
    training set (:func:`~ctxrecon.masks.learned.spectrum_mask`) and identical in every call. The
    training script fits them to its first scans, and the checkpoint stores their spectrum.

    All contrasts of a multi-contrast scan share one mask ("RM-S" of JoJoNet).

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: Grid size divided by the number of samples, center included; ``None`` if
            ``ratios`` are given.
        mask: Mask name, a key of ``MASKS`` or one of :data:`SPECTRUM`.
        center_fraction: Share that is always sampled, see
            :class:`~ctxrecon.masks.learned.base.MaskNetwork`.
        ratios: Range of the sampled share of k-space, from which a ratio is drawn for each
            training sample.

    Raises:
        InputError: If the shape or budget is invalid, the name is unknown, or not exactly one of
            ``acceleration`` and ``ratios`` is given.

    Example:
        >>> from ctxrecon.masks.learned import FixedMasks
        >>> sampler = FixedMasks((32, 32), acceleration=4, mask="uniform1d")
        >>> masks = sampler(batch_size=2)
        >>> masks.shape, int(masks[0, 0, 0].sum())
        (torch.Size([2, 1, 32, 32]), 8)
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
            raise InputError("expected either `acceleration` or `ratios` for fixed masks")
        super().__init__(shape, acceleration, mask.endswith("1d"), center_fraction)
        if ratios is not None:
            self._serve(ratios)
        self.mask = mask
        self.energy: Tensor | None
        self.register_buffer("energy", torch.zeros(self.shape) if mask in SPECTRUM else None)
        # A model without weights can be neither saved nor placed on a device.
        self.placeholder = nn.Parameter(torch.zeros(1), requires_grad=False)

    @property
    def lacks_spectrum(self) -> bool:
        """``True`` if images have to be passed to :meth:`fit` before masks can be drawn."""
        return self.energy is not None and not bool(self.energy.any())

    def fit(self, images: Tensor) -> None:
        """Compute the spectrum of a "spectrum1d" or "spectrum2d" mask from images.

        Args:
            images: Real or complex images ``(batch, ny, nx)`` of the sampler's shape. They are
                weighted by their energy.

        Raises:
            InputError: If the images have another shape or no signal, or the mask needs none.
        """
        if self.energy is None:
            raise InputError(f"{self.mask} masks have no spectrum: omit the images")
        if tuple(images.shape[1:]) != self.shape:
            raise InputError(
                f"expected images (batch, {self.shape[0]}, {self.shape[1]}), got "
                f"{tuple(images.shape)}"
            )
        self.energy.copy_(kspace_energy(images))
        if self.lacks_spectrum:
            raise InputError("expected images with signal to compute the spectrum, got only zeros")

    def forward(
        self,
        acceleration: float | None = None,
        batch_size: int = 1,
        generator: Generators = None,
    ) -> Tensor:
        """Draw masks as :meth:`~ctxrecon.masks.learned.base.Sampler.forward` does."""
        self.warn_outside_range(acceleration)
        fraction = self.center_fraction
        if fraction is None and not self.lines:
            fraction = CENTER_2D  # radial masks have no center by default
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
        """Return ``batch_size`` copies of the spectrum mask."""
        if self.lacks_spectrum:
            raise InputError(
                f"{self.mask} has no spectrum yet: pass the images of a training set to fit()"
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
        """Return the masks of :meth:`forward` as 0 and 1, float32 on the CPU, without a gradient.

        Args:
            acceleration: A single acceleration, or one per mask (default: the sampler's own).
            batch_size: Number of masks, drawn independently.
            generator: A single generator, used for one mask after another, or a list with one
                generator per mask.
        """
        each = self.each_acceleration(acceleration, batch_size)
        if len(each) == 1:
            return self(each[0], batch_size, generator).float()
        items = item_generators(batch_size, generator)
        masks = [self(one, 1, item and [item]) for one, item in zip(each, items, strict=True)]
        return torch.cat(masks).float()
