"""Training slices: their sources, and random transformations shared by all trainings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
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
from ctxrecon.priors.tokenizer import shorten_prompt

MIRRORED = ("brain", "knee")
"""Anatomies with left-right symmetry, unlike a heart or an abdomen."""
_SEEN = 0.1
"""Magnitude above which a pixel counts as foreground."""
_FLOOR = 3.5
"""Magnitude up to which a pixel is background, in standard deviations of the noise. The
deviation estimated from background is a third too small, by the Rayleigh distribution."""
_SHADING = 0.4
"""Maximum relative shading added to a magnitude image."""


class SliceSource(Protocol):
    """Source of complex slices; ``draw`` is a deterministic function of the number."""

    def draw(self, number: int, resolution: int) -> dict[str, Any]:
        """Return ``image`` ``(2, resolution, resolution)``, float32, and ``metadata``.

        The dictionary also contains ``prompt_form`` if prompts do not have fastMRI's form.
        """


class RecipeSource(Protocol):
    """Source of slices whose pixels are rendered in batches on the training device."""

    def recipe(self, number: int, resolution: int, part: float | None) -> Drawn:
        """Return the slice of a number.

        Args:
            number: Number of the slice, which determines it.
            resolution: Matrix size at which it will be rendered.
            part: Shown part of the shorter side; ``None`` for a random square of ``resolution``
                pixels at the source's pixel size.
        """


class ComplexRecipe(NamedTuple):
    """Complex image to be resampled, or a batch of them.

    Attributes:
        pixels: Image ``(n, n)``, complex64, on the prior's intensity scale.
    """

    pixels: Any

    def render(self, shape: tuple[int, int]) -> Tensor:
        """Resample to the square ``shape``; see :class:`ctxrecon.phantom.imaging.Recipe`."""
        return resize(self.pixels, shape[0])


class MagnitudeRecipe(NamedTuple):
    """Magnitude image to which scanner effects are added, or a batch of them.

    Attributes:
        pixels: Image ``(n, n)``, float32, on the prior's intensity scale.
        gamma: Exponent of the magnitude, which changes the contrast but not the scale.
        acquisition: Shading, filter and phase.
        scale: 99 % quantile of the magnitude, or 0 to compute it from the image.
    """

    pixels: Any
    gamma: Any
    acquisition: Acquisition
    scale: Any

    def render(self, shape: tuple[int, int]) -> Tensor:
        """Render at ``shape``; see :class:`ctxrecon.phantom.imaging.Recipe`."""
        magnitude = self.pixels ** self.gamma.view(-1, 1, 1)
        shaded = self.acquisition.shaded(magnitude.to(torch.complex64))
        return scaled(self.acquisition.image(shaded, shape), self.scale)


class PreparedSlices:
    """Slices of a prepared training set in random order, flipped, zoomed and resized.

    Args:
        slices: Data set whose items contain ``image`` ``(2, ny, nx)`` and ``metadata``, such as
            :class:`ctxrecon.datasets.ShardSlices`.
        seed: Random seed of the order and of the transformations.
        field_of_view: Smallest part of the image's shorter side that is shown.
    """

    def __init__(
        self, slices: Dataset[dict[str, Any]], *, seed: int = 0, field_of_view: float = 1.0
    ) -> None:
        if not 0 < field_of_view <= 1:
            raise InputError(f"expected `field_of_view` in (0, 1], got {field_of_view}")
        self.slices, self.seed, self.field_of_view = slices, seed, field_of_view

    def draw(self, number: int, resolution: int) -> dict[str, Any]:
        """Return the slice of a number; every epoch has its own order."""
        image, metadata, rng = self._slice(number)
        side = round(rng.uniform(self.field_of_view, 1) * min(image.shape))
        image = resize(_center(image, side), resolution)
        return {
            "image": complex_to_channels(image),
            "metadata": metadata,
            "prompt_form": self._form,
        }

    def recipe(self, number: int, resolution: int, part: float | None) -> Drawn:
        """Return a slice to be rendered later, see :class:`RecipeSource`."""
        image, metadata, rng = self._slice(number)
        if part is None:
            side = min(resolution, *image.shape)
            seen = image.abs().numpy() > _SEEN
            image = image[crop_around(seen, side, rng)]
            metadata = _of_crop(metadata)
        else:
            image = _center(image, round(part * min(image.shape)))
        return Drawn(ComplexRecipe(image.numpy()), metadata, 0.0, self._form)

    def _slice(self, number: int) -> tuple[Tensor, ScanMetadata, np.random.Generator]:
        """Return the complex image ``(ny, nx)`` of a number, its metadata and its generator."""
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
    """Slices of a magnitude set, each with a random phase, shading, contrast and filter.

    The noise floor around the body is removed. People are drawn in proportion to the square root
    of the sum of their slices' weights, so that those with many slices do not dominate.

    Args:
        slices: Data set of kind "magnitude".
        seed: Random seed of the order and of the transformations.
        random_contrast: Share of the slices whose contrast is changed more strongly, and whose
            metadata contain the anatomy only.
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
        """Return a slice to be rendered later, see :class:`RecipeSource`.

        Raises:
            InputError: If an image is smaller than the resolution.
        """
        rng = np.random.default_rng([self.seed, number, 1])
        index = int(np.searchsorted(self._cumulative, rng.random(), side="right"))
        item: Any = self.slices[min(index, len(self.slices) - 1)]
        image, metadata = _without_floor(item["image"][0].numpy()), item["metadata"]
        shortest = min(image.shape)
        if shortest < resolution:
            raise InputError(
                f"expected images of at least {resolution} pixels for --resolution {resolution}, "
                f"got {image.shape[0]} × {image.shape[1]} in {self.slices.folder}: lower "
                "--resolution or prepare them with a larger --size"
            )
        if metadata.anatomy in MIRRORED and rng.random() < 0.5:
            image = image[:, ::-1]
        size = resolution if part is None else max(resolution, 2 * round(part * shortest / 2))
        around = crop_around if part is None else _around_all
        image = image[around(image > _SEEN, size, rng)]
        metadata = _of_crop(metadata) if part is None else metadata
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


def _of_crop(metadata: ScanMetadata) -> ScanMetadata:
    """Leave out the findings of a slice, whose place is unknown, for a small part of it."""
    return replace(metadata, pathologies=())


def image_noise(image: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Estimate the standard deviation of white noise in a real image; 0 without usable pixels.

    Uses the median of the finest diagonal Haar detail (Donoho & Johnstone, Biometrika 81, 425
    (1994)), which edges hardly affect.

    Args:
        image: Real image ``(ny, nx)``.
        where: Pixels to use, ``(ny, nx)`` bool: blocks of 2 × 2 inside it contribute.
    """
    ny, nx = image.shape
    blocks = [(slice(y, ny // 2 * 2, 2), slice(x, nx // 2 * 2, 2)) for y in (0, 1) for x in (0, 1)]
    a, b, c, d = (image[block] for block in blocks)
    detail = np.abs(a - b - c + d)[np.logical_and.reduce([where[block] for block in blocks])] / 2
    return float(np.median(detail)) / 0.6745 if detail.size else 0.0


def _without_floor(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove the noise floor from the background of a magnitude image ``(ny, nx)``.

    With a smooth phase the floor would appear as an object. The noise is estimated where the image
    is not exactly zero.
    """
    sigma = image_noise(image, image > 0)
    return np.sqrt(np.maximum(image**2 - (_FLOOR * sigma) ** 2, 0.0))


def _around_all(
    seen: NDArray[np.bool_], size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Return a square of ``size`` pixels around the foreground, shifted by up to a tenth."""
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
    """Return the order of one epoch."""
    return np.random.default_rng([seed, epoch, 0]).permutation(size)


def _center(image: Tensor, side: int) -> Tensor:
    """Return the center ``(side, side)`` of an image ``(ny, nx)``."""
    ny, nx = image.shape
    return Crop((1, ny, nx), (side, side))(image[None])[0]


def resize(image: Tensor, resolution: int) -> Tensor:
    """Resample complex ``(…, n, n)`` to ``(…, resolution, resolution)`` at equal field of view.

    K-space is cropped or zero-padded; a constant image keeps its value.
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
    """Draw a value for a step, such as its matrix size; equal on every process."""
    rng = np.random.default_rng([seed, step, stream])
    return int(choices[int(rng.integers(len(choices)))])


def tokens_of(tokenizer: Any, prompts: list[str]) -> Tensor:
    """Tokenize prompts to ``(batch, length)``, without the last parts of those that are too long.

    Simulated slices may have any number of findings, and training must not end at one of them.
    """
    short = [shorten_prompt(tokenizer, prompt) for prompt in prompts]
    return tokenizer(short, padding="max_length", return_tensors="pt").input_ids
