"""How pixels become images: shading, the centre of k-space, phase; in batches, on any device.

What is random about an image is drawn beside its pixels, as a recipe of a few numbers, by NumPy on
the CPU. The pixels are made from a batch of recipes in torch, on the device where they are needed.
Recipes are named tuples, which :func:`torch.utils.data.default_collate` makes a batch of.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctxrecon.intensity import magnitude_quantile

_MOST_WAVES = 5
"""Rows and columns of the weights of a recipe's smooth fields."""
_TILE = 1024


class Acquisition(NamedTuple):
    """How one image is taken, or a batch of images; made by :func:`draw_acquisition`.

    Attributes:
        shading: ``(waves, waves)`` weights of the smooth shading that coil combination leaves.
        shading_strength: its largest relative size.
        reach: ``(2,)`` parts of the height over which the signal fades at the top and at the
            bottom, 0 where it does not.
        window: strength of the k-space filter, 0 to 1.
        phase: ``(waves, waves)`` weights of the smooth phase.
        phase_strength: its largest size in radians.
        angle: of the whole image, in radians.
    """

    shading: Any
    shading_strength: Any
    reach: Any
    window: Any
    phase: Any
    phase_strength: Any
    angle: Any

    def shaded(self, fine: Tensor) -> Tensor:
        """``(batch, ny, nx)`` complex pixels under the shading of a coil array."""
        ny, nx = fine.shape[-2:]
        strength = self.shading_strength.view(-1, 1, 1)
        shading = 1 + strength * smooth_fields(self.shading, (ny, nx))
        return fine * shading * _fading(self.reach, ny)[:, :, None]

    def image(self, fine: Tensor, shape: tuple[int, int]) -> Tensor:
        """The complex images ``(batch, *shape)`` of shaded pixels ``(batch, ny, nx)``.

        Each is the inverse Fourier transform of the centre of the fine grid's k-space, as a scanner
        measures it: partial volume and truncation at edges are physical.
        """
        (fine_y, fine_x), (ny, nx) = fine.shape[-2:], shape
        kspace = torch.fft.fftshift(torch.fft.fft2(fine, norm="forward"), dim=(-2, -1))
        y0, x0 = fine_y // 2 - ny // 2, fine_x // 2 - nx // 2
        kspace = kspace[:, y0 : y0 + ny, x0 : x0 + nx]
        kspace = kspace * _raised_cosine(self.window, ny)[:, :, None]
        kspace = kspace * _raised_cosine(self.window, nx)[:, None, :]
        image = torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=(-2, -1)), norm="forward")
        phase = self.phase_strength.view(-1, 1, 1) * smooth_fields(self.phase, shape)
        phase = phase + self.angle.view(-1, 1, 1)
        return image * torch.polar(torch.ones_like(phase), phase)


class Recipe(Protocol):
    """What an image is made from; a named tuple, so that recipes can be collated and moved."""

    def render(self, shape: tuple[int, int]) -> Tensor:
        """The noiseless images of a batch, ``(batch, *shape)`` complex64, of the prior's scale."""


class TissueRecipe(NamedTuple):
    """A phantom image to be made, or a batch of them.

    Attributes:
        labels: ``(ny, nx)`` uint8 tissues.
        signal: ``(tissues,)`` complex64, of each tissue.
        texture: ``(tissues,)`` complex64, standard deviation of the signal inside each tissue.
        offset: ``(2,)`` place of the texture in its tile.
        acquisition: how the image is taken.
        scale: 99 % quantile of the magnitude, or 0 to take that of the image itself.
    """

    labels: Any
    signal: Any
    texture: Any
    offset: Any
    acquisition: Acquisition
    scale: Any

    def render(self, shape: tuple[int, int]) -> Tensor:
        """The noiseless images of a batch by their scale, ``(batch, *shape)`` complex64."""
        return scaled(self.unscaled(shape), self.scale)

    def unscaled(self, shape: tuple[int, int]) -> Tensor:
        """The noiseless images of a batch in the units of the signal equations."""
        count, ny, nx = self.labels.shape
        device = self.labels.device
        tile = _texture_tile_on(device)
        rows = (self.offset[:, :1] + torch.arange(ny, device=device)) % _TILE
        columns = (self.offset[:, 1:] + torch.arange(nx, device=device)) % _TILE
        texture = tile[rows[:, :, None], columns[:, None, :]]
        index = self.labels.view(count, -1).long()
        pixels = self.signal.gather(1, index) + self.texture.gather(1, index) * texture.flatten(1)
        shaded = self.acquisition.shaded(pixels.view(count, ny, nx))
        return self.acquisition.image(shaded, shape)

    def brightened(self, factors: NDArray[np.float32]) -> TissueRecipe:
        """The recipe of one image with the signal of each tissue times its factor."""
        return self._replace(signal=self.signal * factors, texture=self.texture * factors)

    def scaled_as(self, labels: NDArray[np.uint8]) -> TissueRecipe:
        """The recipe of one image with the scale that a slice of these labels has."""
        magnitude = torch.from_numpy(np.abs(self.signal)[labels])[None]
        return self._replace(scale=np.float32(magnitude_quantile(magnitude, "lower")[0]))


def draw_acquisition(
    rng: np.random.Generator,
    *,
    shading: tuple[NDArray[np.float64], float],
    reach: NDArray[np.float64] | None = None,
    phase_order: int = 3,
    phase: float = 1.0,
) -> Acquisition:
    """Draw how one image is taken: filter, phase and angle; the shading belongs to the subject.

    Args:
        rng: draws the strength of the k-space filter and the phase.
        shading: weights from :func:`smooth_weights` and the strength.
        reach: see :class:`Acquisition`.
        phase_order: half periods of the smooth phase.
        phase: scales the smooth phase, in units of π.
    """
    window = rng.random()
    strength = rng.random()
    weights = smooth_weights(phase_order, rng)
    return Acquisition(
        shading=padded(shading[0]),
        shading_strength=np.float32(shading[1]),
        reach=np.zeros(2, np.float32) if reach is None else reach.astype(np.float32),
        window=np.float32(window),
        phase=padded(weights),
        phase_strength=np.float32(np.pi * phase * strength),
        angle=np.float32(2 * np.pi * rng.random()),
    )


def smooth_weights(order: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random weights of cosines of up to ``order`` half periods, ``(order + 1, order + 1)``."""
    i, j = np.mgrid[: order + 1, : order + 1]
    weights = rng.standard_normal((order + 1, order + 1)) / (1.0 + i**2 + j**2)
    weights[0, 0] = 0.0
    return weights


def padded(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights of a smooth field in the size that every recipe has."""
    full = np.zeros((_MOST_WAVES, _MOST_WAVES), np.float32)
    full[: weights.shape[0], : weights.shape[1]] = weights
    return full


def smooth_fields(weights: Tensor, shape: tuple[int, int]) -> Tensor:
    """Smooth real fields in about [−1, 1], ``(batch, *shape)``, of weights ``(batch, k, k)``."""
    waves = torch.arange(weights.shape[-1], device=weights.device, dtype=weights.dtype)
    y, x = (
        torch.cos(math.pi * torch.outer(waves, (torch.arange(n).to(waves) + 0.5) / n))
        for n in shape
    )
    fields = y.T @ weights @ x
    return fields / fields.abs().amax(dim=(-2, -1), keepdim=True).clamp_min(1e-6)


def smooth_field(
    shape: tuple[int, int], order: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A random smooth real field in about [−1, 1]: cosines of up to ``order`` half periods."""
    weights = torch.from_numpy(smooth_weights(order, rng))[None]
    return smooth_fields(weights, shape)[0].numpy().astype(np.float32)


def scaled(images: Tensor, scale: Tensor) -> Tensor:
    """Divide each of ``(batch, ny, nx)`` by its scale, or where that is 0 by its 99 % quantile."""
    own = magnitude_quantile(images, "lower")
    return images / torch.where(scale > 0, scale, own).clamp_min(1e-6).view(-1, 1, 1)


def texture_tile() -> NDArray[np.float32]:
    """Band-limited noise at two scales, unit variance, periodic; a window of it is a texture."""
    rng = np.random.default_rng(20240601)
    frequency = np.fft.fftfreq(_TILE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    # Gaussian blurs of 1.2 and 6 pixels, applied in the Fourier domain so that the tile wraps.
    parts = []
    for sigma in (1.2, 6.0):
        spectrum = np.fft.fft2(rng.standard_normal((_TILE, _TILE)))
        part = np.fft.ifft2(spectrum * np.exp(-2 * (np.pi * sigma * radius) ** 2)).real
        parts.append(part / part.std())
    return ((parts[0] + parts[1]) / np.sqrt(2)).astype(np.float32)


@lru_cache(maxsize=2)
def _texture_tile_on(device: torch.device) -> Tensor:
    return torch.from_numpy(texture_tile()).to(device)


def draw_offset(rng: np.random.Generator) -> tuple[int, int]:
    """A place in the texture tile."""
    return int(rng.integers(_TILE)), int(rng.integers(_TILE))


def draw_reach(rng: np.random.Generator) -> NDArray[np.float64]:
    """How a knee coil's reach ends along the leg, ``(2,)``: the leg goes on, the signal fades.

    Without it the leg would be cut at the edges, and no coil map that is periodic, as those of a
    measured k-space are, could follow.
    """
    return rng.uniform(0.12, 0.24, 2)


def _fading(reach: Tensor, ny: int) -> Tensor:
    """What :func:`draw_reach` leaves of the signal of each row, ``(batch, ny)``."""
    position = (torch.arange(ny, device=reach.device, dtype=reach.dtype) + 0.5) / ny
    left = torch.ones(reach.shape[0], ny, device=reach.device, dtype=reach.dtype)
    for number, distance in enumerate((position, 1 - position)):
        over = reach[:, number, None]
        part = (distance / over.clamp_min(1e-6)).clamp_max(1.0)
        left = left * (0.5 - 0.5 * torch.cos(math.pi * part))
    return left


def _raised_cosine(strength: Tensor, n: int) -> Tensor:
    """Hann-type k-space filters ``(batch, n)``; strength 0 is none, 1 halves the outermost line."""
    position = (torch.arange(n, device=strength.device, dtype=strength.dtype) - n // 2) / n
    return 1 - 0.5 * strength[:, None] * (1 - torch.cos(2 * math.pi * position)) / 2
