"""Slices to train on: where they come from, and what every training draws of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels, fft2c, ifft2c
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metadata.scan_metadata import PromptForm
from ctxrecon.operators import Crop
from ctxrecon.phantom.dataset import Drawn, crop_around
from ctxrecon.phantom.imaging import Acquisition, draw_acquisition, scaled, smooth_weights
from ctxrecon.priors.tokenizer import check_prompt_length

MIRRORED = ("brain", "knee")
"""Anatomies that look the same from left and right; a heart or an abdomen does not."""
_SEEN = 0.1
"""Magnitude from which a pixel is something to look at."""
_FLOOR = 3.5
"""Magnitude up to which a pixel is background, in standard deviations of the noise; those
that are read off background are smaller by a third, by the Rayleigh distribution."""
_SHADING = 0.4
"""Largest relative shading that is added to a magnitude image."""


class SliceSource(Protocol):
    """Where complex slices come from; ``draw`` gives the same slice for the same number."""

    def draw(self, number: int, resolution: int) -> dict[str, Any]:
        """``image`` ``(2, resolution, resolution)`` float32 and ``metadata``.

        With them ``prompt_form``, where the prompts are not of fastMRI's.
        """


class RecipeSource(Protocol):
    """Where slices come from whose pixels are made in batches, on the device that trains."""

    def recipe(self, number: int, resolution: int, part: float | None) -> Drawn:
        """The slice of this number.

        Args:
            number: the same number gives the same slice.
            resolution: matrix size that it will be rendered with.
            part: of the shorter side that it shows; ``None`` for a random square of ``resolution``
                pixels of the size that they have in the source.
        """


class ComplexRecipe(NamedTuple):
    """A complex image to be sampled anew, or a batch of them.

    Attributes:
        pixels: ``(n, n)`` complex64, of the prior's scale.
    """

    pixels: Any

    def render(self, shape: tuple[int, int]) -> Tensor:
        """See :class:`ctxrecon.phantom.imaging.Recipe`; ``shape`` is square."""
        return resize(self.pixels, shape[0])


class MagnitudeRecipe(NamedTuple):
    """A magnitude image to be given what a scanner's image has beside it, or a batch of them.

    Attributes:
        pixels: ``(n, n)`` float32, of the prior's scale.
        gamma: exponent of the magnitude, which changes the contrast and keeps the scale.
        acquisition: shading, filter and phase.
        scale: 99 % quantile of the magnitude, or 0 to take that of the image itself.
    """

    pixels: Any
    gamma: Any
    acquisition: Acquisition
    scale: Any

    def render(self, shape: tuple[int, int]) -> Tensor:
        """See :class:`ctxrecon.phantom.imaging.Recipe`."""
        magnitude = self.pixels ** self.gamma.view(-1, 1, 1)
        shaded = self.acquisition.shaded(magnitude.to(torch.complex64))
        return scaled(self.acquisition.image(shaded, shape), self.scale)


class PreparedSlices:
    """Slices of a prepared training set in random order, flipped, zoomed and resized.

    Args:
        slices: a data set whose items hold ``image`` ``(2, ny, nx)`` and ``metadata``, such as
            :class:`ctxrecon.datasets.ShardSlices`.
        seed: of the order and of what is done to each slice.
        field_of_view: smallest part of the image's shorter side that is shown.
    """

    def __init__(
        self, slices: Dataset[dict[str, Any]], *, seed: int = 0, field_of_view: float = 1.0
    ) -> None:
        if not 0 < field_of_view <= 1:
            raise InputError(f"expected a field of view in (0, 1], got {field_of_view}")
        self.slices, self.seed, self.field_of_view = slices, seed, field_of_view

    def draw(self, number: int, resolution: int) -> dict[str, Any]:
        """The slice of this number; every epoch is in an order of its own."""
        image, metadata, rng = self._slice(number)
        side = round(rng.uniform(self.field_of_view, 1) * min(image.shape))
        image = resize(_center(image, side), resolution)
        return {
            "image": complex_to_channels(image),
            "metadata": metadata,
            "prompt_form": self._form,
        }

    def recipe(self, number: int, resolution: int, part: float | None) -> Drawn:
        """See :class:`RecipeSource`."""
        image, metadata, rng = self._slice(number)
        if part is None:
            side = min(resolution, *image.shape)
            seen = image.abs().numpy() > _SEEN
            image = image[crop_around(seen, side, rng)]
        else:
            image = _center(image, round(part * min(image.shape)))
        return Drawn(ComplexRecipe(image.numpy()), metadata, 0.0, self._form)

    def _slice(self, number: int) -> tuple[Tensor, ScanMetadata, np.random.Generator]:
        """The complex image ``(ny, nx)`` of this number, its metadata, and what draws the rest."""
        size = len(self.slices)  # type: ignore[arg-type]
        epoch, place = divmod(number, size)
        item = self.slices[int(_order(size, self.seed, epoch)[place])]
        rng = np.random.default_rng([self.seed, number, 1])
        image, metadata = item["image"], item["metadata"]
        if metadata.anatomy in MIRRORED and rng.random() < 0.5:
            image = image.flip(-1)
        return channels_to_complex(image), metadata, rng

    @property
    def _form(self) -> PromptForm:
        return getattr(self.slices, "prompt_form", "fastmri")


class MagnitudeSlices:
    """Slices of a set of magnitude images, each with another phase, shading, contrast and filter.

    The floor of noise around the body is taken off.

    Every person is shown as often as the square root of the sum of the slices' weights says, so
    that those with many slices do not crowd out the others.

    Args:
        slices: a set of kind "magnitude".
        seed: of the order and of what is done to each slice.
        random_contrast: share of the slices whose contrast is changed more, and whose metadata
            tells the anatomy alone.
    """

    def __init__(self, slices: ShardSlices, *, seed: int = 0, random_contrast: float = 0.0) -> None:
        self.slices, self.seed, self.random_contrast = slices, seed, random_contrast
        total: dict[str, float] = {}
        for subject, weight in zip(slices.subjects, slices.weights, strict=True):
            total[subject] = total.get(subject, 0.0) + weight
        shares = [
            weight / math.sqrt(total[subject])
            for subject, weight in zip(slices.subjects, slices.weights, strict=True)
        ]
        self._cumulative = np.cumsum(shares) / np.sum(shares)

    def recipe(self, number: int, resolution: int, part: float | None) -> Drawn:
        """See :class:`RecipeSource`.

        Raises:
            InputError: an image that is smaller than the resolution.
        """
        rng = np.random.default_rng([self.seed, number, 1])
        index = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        item: Any = self.slices[min(index, len(self.slices) - 1)]
        image, metadata = _without_floor(item["image"][0].numpy()), item["metadata"]
        shortest = min(image.shape)
        if shortest < resolution:
            raise InputError(
                f"expected images of {resolution} pixels or more for --resolution {resolution}, "
                f"got {image.shape[0]} × {image.shape[1]} in {self.slices.folder}: lower "
                "--resolution or prepare them in a larger --size"
            )
        if metadata.anatomy in MIRRORED and rng.random() < 0.5:
            image = image[:, ::-1]
        size = resolution if part is None else max(resolution, 2 * round(part * shortest / 2))
        around = crop_around if part is None else _around_all
        image = image[around(image > _SEEN, size, rng)]
        random = rng.random() < self.random_contrast
        if random:
            metadata = ScanMetadata(anatomy=metadata.anatomy)
        shading = smooth_weights(2, rng), _SHADING * rng.random()
        recipe = MagnitudeRecipe(
            pixels=np.ascontiguousarray(image, np.float32),
            gamma=np.float32(np.exp((0.5 if random else 0.15) * rng.standard_normal())),
            acquisition=draw_acquisition(
                rng, shading=shading, phase_order=4, phase=2.0 if rng.random() < 0.3 else 1.0
            ),
            scale=np.float32(1.0 if part is None else 0.0),
        )
        return Drawn(recipe, metadata, 0.0, self.slices.prompt_form)


def image_noise(image: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Standard deviation of white noise in a real image, 0 where there is nothing to read it off.

    From the median of the finest diagonal Haar detail (Donoho & Johnstone, Biometrika 81, 425
    (1994)), which edges hardly change.

    Args:
        image: ``(ny, nx)``.
        where: ``(ny, nx)``, the pixels to read it off: blocks of 2 × 2 that lie in it.
    """
    ny, nx = image.shape
    blocks = [(slice(y, ny // 2 * 2, 2), slice(x, nx // 2 * 2, 2)) for y in (0, 1) for x in (0, 1)]
    a, b, c, d = (image[block] for block in blocks)
    detail = np.abs(a - b - c + d)[np.logical_and.reduce([where[block] for block in blocks])] / 2
    return float(np.median(detail)) / 0.6745 if detail.size else 0.0


def _without_floor(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The magnitude ``(ny, nx)`` without the floor that noise gives it where there is no signal.

    With a smooth phase the floor would be an object of its own. The noise is read off where the
    image is not exactly zero.
    """
    sigma = image_noise(image, image > 0)
    return np.sqrt(np.maximum(image**2 - (_FLOOR * sigma) ** 2, 0.0))


def _around_all(
    seen: NDArray[np.bool_], size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """A square of ``size`` pixels around the middle of all that is seen, give or take a tenth."""
    corner = []
    for axis, length in enumerate(seen.shape):
        places = np.flatnonzero(seen.any(axis=1 - axis))
        middle = (places[0] + places[-1] + 1) / 2 if len(places) else length / 2
        shift = rng.uniform(-0.1, 0.1) * length
        corner.append(int(np.clip(middle - size / 2 + shift, 0, length - size)))
    y, x = corner
    return slice(y, y + size), slice(x, x + size)


@lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch."""
    return np.random.default_rng([seed, epoch, 0]).permutation(size)


def _center(image: Tensor, side: int) -> Tensor:
    """The centre ``(side, side)`` of ``(ny, nx)``."""
    ny, nx = image.shape
    return Crop((1, ny, nx), (side, side))(image[None])[0]


def resize(image: Tensor, resolution: int) -> Tensor:
    """Complex ``(…, n, n)`` to ``(…, resolution, resolution)``: the same field of view.

    K-space is cropped, or padded with zeros; a constant image keeps its value.
    """
    side = image.shape[-1]
    kspace = fft2c(image).view(-1, side, side)
    count = len(kspace)
    if resolution <= side:
        kspace = Crop((count, side, side), (resolution, resolution))(kspace)
    else:
        big = (count, resolution, resolution)
        kspace = Crop(big, (side, side)).adjoint(kspace)
    resized = ifft2c(kspace) * (resolution / side)
    return resized.view(*image.shape[:-2], resolution, resolution)


def one_of(choices: Sequence[int], step: int, seed: int, stream: int) -> int:
    """What a step draws, such as its matrix size: the same for every process."""
    rng = np.random.default_rng([seed, step, stream])
    return int(choices[int(rng.integers(len(choices)))])


def tokens_of(tokenizer: Any, prompts: list[str]) -> Tensor:
    """``(batch, length)``, refused where one would be cut short."""
    check_prompt_length(tokenizer, prompts)
    return tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
