"""Image formation: shading, the center of k-space and phase, in batches on any device.

The random parameters of an image are drawn separately from its pixels, as a recipe of a few
numbers, by NumPy on the CPU. The pixels are computed from a batch of recipes in torch, on the
device where they are needed. Recipes are named tuples that
:func:`torch.utils.data.default_collate` combines into a batch.
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
"""Size of the weight matrices of a recipe's smooth fields."""
_TILE = 1024


class Acquisition(NamedTuple):
    """Acquisition parameters of an image or a batch of images; see :func:`draw_acquisition`.

    Attributes:
        shading: Weights ``(waves, waves)`` of the smooth shading that coil combination leaves.
        shading_strength: Largest relative shading.
        reach: Fractions ``(2,)`` of the height over which the signal fades at the top and at the
            bottom; 0 for no fading.
        window: Strength of the k-space filter, 0 to 1.
        phase: Weights ``(waves, waves)`` of the smooth phase.
        phase_strength: Largest smooth phase in radians.
        angle: Constant phase in radians.
    """

    shading: Any
    shading_strength: Any
    reach: Any
    window: Any
    phase: Any
    phase_strength: Any
    angle: Any

    def shaded(self, fine: Tensor) -> Tensor:
        """Apply the shading of a coil array to complex pixels ``(batch, ny, nx)``."""
        ny, nx = fine.shape[-2:]
        strength = self.shading_strength.view(-1, 1, 1)
        shading = 1 + strength * smooth_fields(self.shading, (ny, nx))
        return fine * shading * _fading(self.reach, ny)[:, :, None]

    def image(self, fine: Tensor, shape: tuple[int, int]) -> Tensor:
        """Compute complex images ``(batch, *shape)`` of shaded pixels ``(batch, ny, nx)``.

        Each image is the inverse Fourier transform of the center of the fine grid's k-space, as
        measured by a scanner, so that partial volume and truncation at edges are physical.
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
    """Parameters of an image, as a named tuple that can be collated and moved between devices."""

    def render(self, shape: tuple[int, int]) -> Tensor:
        """Render the noiseless images of a batch, complex64 ``(batch, *shape)``, at unit scale."""


class TissueRecipe(NamedTuple):
    """Parameters of a phantom image or a batch of them.

    Attributes:
        labels: Tissue labels, uint8 ``(ny, nx)``.
        signal: Signal of each tissue, complex64 ``(tissues,)``.
        texture: Standard deviation of the signal within each tissue, complex64 ``(tissues,)``.
        offset: Position ``(2,)`` of the texture in its tile.
        acquisition: Acquisition parameters.
        scale: 99 % quantile of the magnitude; 0 uses that of the image itself.
    """

    labels: Any
    signal: Any
    texture: Any
    offset: Any
    acquisition: Acquisition
    scale: Any

    def render(self, shape: tuple[int, int]) -> Tensor:
        """Render the noiseless images of a batch at unit scale, complex64 ``(batch, *shape)``."""
        return scaled(self.unscaled(shape), self.scale)

    def unscaled(self, shape: tuple[int, int]) -> Tensor:
        """Render the noiseless images of a batch in the units of the signal equations."""
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
        """Return the recipe of one image with the tissue signals multiplied by factors."""
        return self._replace(signal=self.signal * factors, texture=self.texture * factors)

    def scaled_as(self, labels: NDArray[np.uint8]) -> TissueRecipe:
        """Return the recipe of one image with the scale of a slice of these labels."""
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
    """Draw the filter, phase and angle of one image; the shading belongs to the subject.

    Args:
        rng: Random generator of the k-space filter's strength and the phase.
        shading: Weights from :func:`smooth_weights`, and the strength.
        reach: Fading at the top and the bottom; see :class:`Acquisition`.
        phase_order: Largest number of half periods of the smooth phase.
        phase: Largest smooth phase, in units of π.
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
    """Draw weights of cosines of up to ``order`` half periods, ``(order + 1, order + 1)``."""
    i, j = np.mgrid[: order + 1, : order + 1]
    weights = rng.standard_normal((order + 1, order + 1)) / (1.0 + i**2 + j**2)
    weights[0, 0] = 0.0
    return weights


def padded(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Pad the weights of a smooth field to the size that every recipe has."""
    full = np.zeros((_MOST_WAVES, _MOST_WAVES), np.float32)
    full[: weights.shape[0], : weights.shape[1]] = weights
    return full


def smooth_fields(weights: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return smooth real fields in about [−1, 1], ``(batch, *shape)``, of weights (batch, k, k)."""
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
    """Draw a smooth real field in about [−1, 1] from cosines of up to ``order`` half periods."""
    weights = torch.from_numpy(smooth_weights(order, rng))[None]
    return smooth_fields(weights, shape)[0].numpy().astype(np.float32)


def scaled(images: Tensor, scale: Tensor) -> Tensor:
    """Divide each image ``(batch, ny, nx)`` by its scale, or by its 99 % quantile if that is 0."""
    own = magnitude_quantile(images, "lower")
    return images / torch.where(scale > 0, scale, own).clamp_min(1e-6).view(-1, 1, 1)


def texture_tile() -> NDArray[np.float32]:
    """Return periodic band-limited noise at two scales with unit variance, for textures."""
    rng = np.random.default_rng(20240601)
    frequency = np.fft.fftfreq(_TILE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    # Gaussian blurs of 1.2 and 6 pixels, in the Fourier domain to keep the tile periodic
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
    """Draw a position in the texture tile."""
    return int(rng.integers(_TILE)), int(rng.integers(_TILE))


def draw_reach(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the fractions ``(2,)`` of the height on which a knee coil's signal fades along the leg.

    Without fading the leg would be cut at the edges, which periodic coil maps, such as those of a
    measured k-space, could not describe.
    """
    return rng.uniform(0.12, 0.24, 2)


def _fading(reach: Tensor, ny: int) -> Tensor:
    """Return the remaining signal of each row for :func:`draw_reach`, ``(batch, ny)``."""
    position = (torch.arange(ny, device=reach.device, dtype=reach.dtype) + 0.5) / ny
    left = torch.ones(reach.shape[0], ny, device=reach.device, dtype=reach.dtype)
    for number, distance in enumerate((position, 1 - position)):
        over = reach[:, number, None]
        part = (distance / over.clamp_min(1e-6)).clamp_max(1.0)
        left = left * (0.5 - 0.5 * torch.cos(math.pi * part))
    return left


def _raised_cosine(strength: Tensor, n: int) -> Tensor:
    """Return Hann-type k-space filters ``(batch, n)``; strength 1 halves the outermost line."""
    position = (torch.arange(n, device=strength.device, dtype=strength.dtype) - n // 2) / n
    return 1 - 0.5 * strength[:, None] * (1 - torch.cos(2 * math.pi * position)) / 2
