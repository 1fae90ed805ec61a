"""Phantom slices as a training set of complex images and prompts, generated on demand."""

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

_RESOLUTION = 128
"""Default matrix size."""
_FINENESS = 1.5
"""Fine pixels per image pixel, along each axis, at which edges are smooth."""
_CONTRAST_SPREAD = 0.7
"""Standard deviation of the logarithm of the random factors of the tissue signals."""


class Drawn(NamedTuple):
    """A training slice before it is rendered.

    Attributes:
        recipe: Recipe of the noiseless image.
        metadata: Metadata of the slice.
        noise: Standard deviation of the noise in each channel.
        prompt_form: Format of its prompts.
    """

    recipe: Recipe
    metadata: ScanMetadata
    noise: float
    prompt_form: PromptForm = "fastmri"


def normalize(image: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Divide an image by the 99 % quantile of its magnitude, the prior's intensity scale.

    Example:
        >>> import numpy as np
        >>> from ctxrecon.phantom import normalize
        >>> float(abs(normalize(np.full((8, 8), 2j, np.complex64))).max())
        1.0

    Raises:
        InputError: If the image has no signal.
    """
    scale = float(magnitude_quantile(torch.from_numpy(image)[None], "lower"))
    if scale <= 0:
        raise InputError("the image is empty, so it has no scale; expected some signal")
    return image / np.float32(scale)


def describe(anatomy: Anatomy, protocol: ScanMetadata) -> ScanMetadata:
    """Return the metadata of one slice: the protocol with the anatomy's findings and person.

    A cropped anatomy has the findings that its part shows; see :meth:`Anatomy.cropped`.
    """
    described = replace(
        protocol, anatomy=anatomy.name, slice=anatomy.slice, pathologies=anatomy.pathologies
    )
    person = anatomy.person
    return described if person is None else replace(described, age=person.age, sex=person.sex)


class PhantomSlices(NumberedPhantoms):
    """Endless data set of phantom slices, in which item ``i`` is reproducible.

    Each item is a dictionary: ``image``, float32 ``(2, n, n)``, real and imaginary part, with a
    99 % quantile of the magnitude of 1; ``metadata``, a :class:`ScanMetadata`; ``anatomy``, the
    visible part of an :class:`Anatomy`.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import AnatomyBank, PhantomSlices, brain_anatomy
        >>> bank = AnatomyBank.build([brain_anatomy(torch.Generator().manual_seed(0), size=64)])
        >>> PhantomSlices(bank, resolution=32)[0]["image"].shape
        torch.Size([2, 32, 32])

    Args:
        bank: Anatomies to draw from.
        resolution: Matrix size ``n``, at most that of the anatomies (default: 128, or the size of
            smaller anatomies).
        length: Number of items.
        seed: Random seed of the data set.
        noise: Largest standard deviation of the complex noise, relative to the intensity scale.
        field_of_view: Smallest fraction of the anatomy's width and height that a slice shows; each
            slice shows a square of a random fraction between this and 1.
        varied_times: Fraction of the slices whose TR, TE and TI are scaled randomly
            (:func:`ctxrecon.phantom.protocols.vary_times`).
        random_contrast: Fraction of the slices with random tissue brightness, which no protocol
            produces, and with metadata that contain only the anatomy.
        contrast: Contrast of all slices, such as "T1POST"; by default the frequencies of real
            scans.

    Raises:
        InputError: If the field of view is not in (0, 1], the seed is not a whole number, or the
            resolution is above the size of the anatomies.
    """

    def __init__(
        self,
        bank: AnatomyBank,
        *,
        resolution: int | None = None,
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
        if resolution is None:
            resolution = min(_RESOLUTION, *bank.labels.shape[1:])
        super().__init__(bank, resolution, length, seed)
        self.noise = noise
        self.field_of_view = field_of_view
        self.varied_times = varied_times
        self.random_contrast = random_contrast
        self.contrast = contrast

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """Return item ``index`` at another matrix size ``n``."""
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
        """Return everything about a slice except its pixels, for rendering in batches.

        Args:
            index: Number of the item.
            resolution: Matrix size ``n`` for rendering.
            part: Fraction of the anatomy's width and height that is shown; ``None`` for a random
                square around some tissue, as small as the anatomy's pixels allow.

        Raises:
            InputError: If the resolution is above the size of the anatomies.
        """
        recipe, metadata, noise, _, _ = self._recipe(index, lambda _: part, resolution)
        return Drawn(recipe, metadata, noise)

    def _recipe(
        self, index: int, part_of: Callable[[np.random.Generator], float | None], resolution: int
    ) -> tuple[TissueRecipe, ScanMetadata, float, Anatomy, np.random.Generator]:
        """Return recipe, metadata, noise per channel, the visible anatomy, and the generator."""
        self.check_resolution(resolution)
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
        if part is None:  # a crop keeps the scale of the whole slice
            recipe = recipe.scaled_as(whole[::2, ::2])
        return recipe, metadata, noise, anatomy, rng


def crop_around(
    seen: NDArray[np.bool_], size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """Return a square of ``size`` pixels around a random pixel of ``seen`` ``(ny, nx)``."""
    places = np.flatnonzero(seen)
    middle = np.array(seen.shape) // 2
    if len(places):
        middle = np.array(divmod(int(places[rng.integers(len(places))]), seen.shape[1]))
    y, x = np.clip(middle - size // 2, 0, np.array(seen.shape) - size)
    return slice(y, y + size), slice(x, x + size)


def _zoom(anatomy: Anatomy, part: float, smallest: int, rng: np.random.Generator) -> Anatomy:
    """Return a roughly central square, shifted by up to a tenth, with this fraction of the size."""
    labels = anatomy.labels
    size = max(smallest, 2 * round(part * min(labels.shape) / 2))
    corner = []
    for length in labels.shape:
        room = length - size
        shift = rng.uniform(-0.1, 0.1) * length
        corner.append(int(np.clip(room / 2 + shift, 0, room)))
    y, x = corner
    return anatomy.cropped((slice(y, y + size), slice(x, x + size)))
