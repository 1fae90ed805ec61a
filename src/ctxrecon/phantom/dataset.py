"""Phantom slices as a training set: complex image and prompt, made when asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from ctxrecon.errors import InputError
from ctxrecon.fourier import complex_to_channels
from ctxrecon.intensity import magnitude_quantile
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metadata.scan_metadata import PromptForm
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.bank import AnatomyBank
from ctxrecon.phantom.imaging import Recipe, TissueRecipe
from ctxrecon.phantom.numbered import NumberedPhantoms
from ctxrecon.phantom.protocols import draw_protocol, vary_times
from ctxrecon.phantom.subject import Subject

_FINENESS = 1.5
"""Fine pixels along one of an image, with which edges are smooth."""
_CONTRAST_SPREAD = 0.7
"""Standard deviation of the logarithm of random factors of the tissues' signals."""


class Drawn(NamedTuple):
    """A slice to train on before it has pixels.

    Attributes:
        recipe: of the noiseless image.
        metadata: of the slice.
        noise: standard deviation of the noise to be left in each channel.
        prompt_form: form of its prompts.
    """

    recipe: Recipe
    metadata: ScanMetadata
    noise: float
    prompt_form: PromptForm = "fastmri"


def normalize(image: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Divide by the 99 % quantile of the magnitude, the prior's intensity scale."""
    scale = float(magnitude_quantile(torch.from_numpy(image)[None], "lower"))
    if scale <= 0:
        raise InputError("the image is empty, so it has no scale; expected some signal")
    return image / np.float32(scale)


def describe(anatomy: Anatomy, protocol: ScanMetadata) -> ScanMetadata:
    """The metadata of one slice: the protocol with what the anatomy shows, and of whom."""
    described = replace(
        protocol, anatomy=anatomy.name, slice=anatomy.slice, pathologies=anatomy.pathologies
    )
    person = anatomy.person
    return described if person is None else replace(described, age=person.age, sex=person.sex)


class PhantomSlices(NumberedPhantoms):
    """Endless phantom slices; item ``i`` is the same whenever and wherever it is asked for.

    Each item is a dictionary: ``image`` ``(2, n, n)`` float32, real and imaginary part with the
    99 % quantile of the magnitude at 1; ``metadata`` a :class:`ScanMetadata`; ``anatomy`` the part
    of an :class:`Anatomy` that is shown.

    Args:
        bank: anatomies to draw from.
        resolution: matrix size ``n``.
        length: number of items.
        seed: of the whole set.
        noise: largest standard deviation of complex noise left in the images, on that scale.
        field_of_view: smallest part of the anatomy's width and height that a slice shows; each
            shows a square of a random part from there to all of it.
        varied_times: share of the slices whose TR, TE and TI are scaled at random
            (:func:`ctxrecon.phantom.protocols.vary_times`).
        random_contrast: share of the slices whose tissues have brightnesses that no protocol gives,
            and whose metadata tells the anatomy alone.
        contrast: of all slices, such as "T1POST"; by default as often as it occurs in real scans.
    """

    def __init__(
        self,
        bank: AnatomyBank,
        *,
        resolution: int = 128,
        length: int = 2**31,
        seed: int = 0,
        noise: float = 0.025,
        field_of_view: float = 1.0,
        varied_times: float = 0.0,
        random_contrast: float = 0.0,
        contrast: str | None = None,
    ) -> None:
        if not 0 < field_of_view <= 1:
            raise InputError(f"expected a field of view in (0, 1], got {field_of_view}")
        super().__init__(bank, resolution, length, seed)
        self.noise = noise
        self.field_of_view = field_of_view
        self.varied_times = varied_times
        self.random_contrast = random_contrast
        self.contrast = contrast

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """Item ``index`` at another matrix size ``n``."""
        part = self.field_of_view
        recipe, metadata, noise, anatomy, rng = self._recipe(
            index, lambda rng: rng.uniform(part, 1) if part < 1 else 1.0, resolution
        )
        batch: TissueRecipe = default_collate([recipe])
        image = batch.render((resolution, resolution))[0]
        channels = complex_to_channels(image).numpy()
        channels = channels + np.float32(noise) * rng.standard_normal(channels.shape, np.float32)
        return {"image": torch.from_numpy(channels), "metadata": metadata, "anatomy": anatomy}

    def recipe(self, index: int, resolution: int, part: float | None) -> Drawn:
        """Everything about a slice but its pixels, which are rendered on any device in batches.

        Args:
            index: number of the item.
            resolution: matrix size ``n`` that it will be rendered with.
            part: of the anatomy's width and height that it shows; ``None`` for a random square
                around some tissue, as small as the anatomy's pixels allow.
        """
        recipe, metadata, noise, _, _ = self._recipe(index, lambda _: part, resolution)
        return Drawn(recipe, metadata, noise)

    def _recipe(
        self, index: int, part_of: Callable[[np.random.Generator], float | None], resolution: int
    ) -> tuple[TissueRecipe, ScanMetadata, float, Anatomy, np.random.Generator]:
        """Recipe, metadata, noise in each channel, the part of the anatomy, and the generator."""
        anatomy, generator, rng = self._subject(index)
        protocol = draw_protocol(generator, anatomy.name, self.contrast)
        if self.varied_times and rng.random() < self.varied_times:
            protocol = vary_times(protocol, generator)
        if rng.random() < 0.5:
            anatomy = anatomy.mirrored()
        whole = anatomy.labels
        part = part_of(rng)
        if part is None:
            size = min(2 * round(_FINENESS * resolution / 2), *whole.shape)
            anatomy = anatomy.cropped(crop_around(whole > 0, size, rng))
        elif part < 1:
            anatomy = _zoom(anatomy, part, resolution, rng)
        subject = Subject.draw(anatomy, protocol.field_strength or 1.5, rng)
        recipe = subject.recipe(protocol, rng)
        metadata = describe(anatomy, protocol)
        noise = float(self.noise * rng.random() / np.sqrt(2))
        if self.random_contrast and rng.random() < self.random_contrast:
            factors = np.exp(_CONTRAST_SPREAD * rng.standard_normal(len(recipe.signal)))
            recipe = recipe.brightened(factors.astype(np.float32))
            metadata = ScanMetadata(anatomy=anatomy.name)
        if part is None:  # a crop keeps the scale of its whole slice
            recipe = recipe.scaled_as(whole[::2, ::2])
        return recipe, metadata, noise, anatomy, rng


def crop_around(
    seen: NDArray[np.bool_], size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """A square of ``size`` pixels inside ``seen`` ``(ny, nx)`` around a random pixel of it."""
    places = np.flatnonzero(seen)
    middle = np.array(seen.shape) // 2
    if len(places):
        middle = np.array(divmod(int(places[rng.integers(len(places))]), seen.shape[1]))
    y, x = np.clip(middle - size // 2, 0, np.array(seen.shape) - size)
    return slice(y, y + size), slice(x, x + size)


def _zoom(anatomy: Anatomy, part: float, smallest: int, rng: np.random.Generator) -> Anatomy:
    """A square around the middle, give or take a tenth, with this part of the width and height."""
    labels = anatomy.labels
    size = max(smallest, 2 * round(part * min(labels.shape) / 2))
    corner = []
    for length in labels.shape:
        room = length - size
        shift = rng.uniform(-0.1, 0.1) * length
        corner.append(int(np.clip(room / 2 + shift, 0, room)))
    y, x = corner
    return anatomy.cropped((slice(y, y + size), slice(x, x + size)))
