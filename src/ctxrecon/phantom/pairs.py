"""T1 and T2 scans of a subject who moves between them by a known displacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from ctxrecon.checks import check_number
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.bank import AnatomyBank
from ctxrecon.phantom.dataset import describe, normalize
from ctxrecon.phantom.imaging import TissueRecipe, smooth_field, texture_tile
from ctxrecon.phantom.numbered import NumberedPhantoms
from ctxrecon.phantom.protocols import common_field_strength, draw_protocol
from ctxrecon.phantom.simulate import measure
from ctxrecon.phantom.subject import Subject, numpy_rng

_ORDER = 4
"""Largest number of half periods of the elastic motion."""
_ITERATIONS = 20
"""Most iterations for the inverse of a displacement; each removes more than half of the error."""
_PRECISION = 1e-6
"""Largest change in pixels with which these iterations stop."""

Field = NDArray[np.float64]
"""Displacement field ``(2, ny, nx)``, along ``ny`` and ``nx``."""


def t1_t2_pair(generator: torch.Generator) -> tuple[ScanMetadata, ScanMetadata]:
    """Draw a T1 and a T2 protocol of a brain with the frequencies of real scans.

    Both have the field strength of the first, as one subject is in one scanner.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import t1_t2_pair
        >>> [scan.contrast for scan in t1_t2_pair(torch.Generator().manual_seed(0))]
        ['T1', 'T2']
    """
    t1, t2 = (draw_protocol(generator, "brain", contrast) for contrast in ("T1", "T2"))
    return t1, replace(t2, field_strength=t1.field_strength)


@dataclass(frozen=True)
class Misalignment:
    """Motion of a subject between two scans: rotation, translation and elastic deformation.

    Attributes:
        rotation: Standard deviation of the angle in degrees.
        translation: Largest shift along each axis, in image pixels.
        elastic: Largest displacement along each axis of a smooth random field, in image pixels.
        least: Smallest fraction of this motion. The fraction of each subject is drawn uniformly
            from ``[least, 1]``.

    Raises:
        InputError: If a value is negative or not finite, or ``least`` is above 1.
    """

    rotation: float = 2.0
    translation: float = 3.0
    elastic: float = 2.0
    least: float = 1.0

    def __post_init__(self) -> None:
        """Validate the values."""
        for name in ("rotation", "translation", "elastic"):
            check_number(name, getattr(self, name), least=0)
        check_number("least", self.least, least=0, most=1)

    def draw(
        self, shape: tuple[int, int], image_shape: tuple[int, int], rng: np.random.Generator
    ) -> Field:
        """Draw a displacement ``v`` in fine pixels, with ``moved(q) = still(q + v(q))``.

        Args:
            shape: Shape of the fine grid.
            image_shape: Shape of the image, whose pixels are the unit of shift and deformation.
            rng: Random generator of angle, shift and deformation.
        """
        fraction = rng.uniform(self.least, 1) if self.least < 1 else 1.0
        scale = fraction * np.array(shape) / np.array(image_shape)
        angle = np.deg2rad(fraction * self.rotation * rng.standard_normal())
        shift = scale * self.translation * rng.uniform(-1, 1, 2)
        bent = [smooth_field(shape, _ORDER, rng).astype(np.float64) for _ in range(2)]
        y, x = _grid(shape) - (np.array(shape) / 2)[:, None, None]
        cosine, sine = np.cos(angle) - 1, np.sin(angle)
        turned = np.stack([cosine * y - sine * x, sine * y + cosine * x])
        bend = self.elastic * scale[:, None, None] * np.stack(bent)
        return turned + shift[:, None, None] + bend


@dataclass(frozen=True)
class ImagePair:
    """Noiseless images of one subject in two positions, and the displacement between them.

    The reference at ``p + displacement(p)`` shows what the image shows at ``p``; the image at
    ``p + inverse(p)`` shows what the reference shows at ``p``.

    Attributes:
        image: Image, complex64 ``(ny, nx)``, with a 99 % quantile of the magnitude of 1.
        reference: Image of the moved subject, complex64 ``(ny, nx)``, on the same scale.
        displacement: Displacement in pixels along ``ny`` and ``nx``, float32 ``(2, ny, nx)``.
        inverse: Inverse displacement in pixels, float32 ``(2, ny, nx)``.
        labels: Tissue at the center of each pixel of the image, uint8 ``(ny, nx)``.
        reference_labels: Tissue at the center of each pixel of the reference, uint8 ``(ny, nx)``.
    """

    image: NDArray[np.complex64]
    reference: NDArray[np.complex64]
    displacement: NDArray[np.float32]
    inverse: NDArray[np.float32]
    labels: NDArray[np.uint8]
    reference_labels: NDArray[np.uint8]


def image_pair(
    subject: Subject,
    protocols: Sequence[ScanMetadata],
    shape: tuple[int, int],
    misalignment: Misalignment,
    rng: np.random.Generator,
    *,
    magnitude: bool = False,
) -> ImagePair:
    """Image a subject with the second protocol, and with the first one after it has moved.

    Labels and texture move on the anatomy's fine grid before imaging, so that partial volume and
    truncation are those of the moved subject. Shading stays with the scanner.

    Args:
        subject: Subject to image.
        protocols: Protocols of the reference and the image, such as those of :func:`t1_t2_pair`.
        shape: Matrix size ``(ny, nx)``, at most that of the anatomy.
        misalignment: Motion of the subject.
        rng: Random generator of motion, phases and filters.
        magnitude: Whether both images are magnitudes, without phase.

    Raises:
        InputError: If there are not two protocols, or the matrix is larger than the anatomy.
    """
    if len(protocols) != 2:
        raise InputError(
            f"expected two protocols, of the reference and of the image, got {len(protocols)}"
        )
    still = subject.anatomy.labels
    image = subject.image(protocols[1], shape, rng)
    motion = misalignment.draw((still.shape[0], still.shape[1]), shape, rng)
    moved = _nearest(still, motion)
    recipe: TissueRecipe = subject.recipe(protocols[0], rng)
    texture = _texture(motion, subject.texture_offset)
    fine = recipe.signal[moved] + recipe.texture[moved] * texture
    acquisition = default_collate([recipe.acquisition])
    shaded = acquisition.shaded(torch.from_numpy(fine.astype(np.complex64))[None])
    reference = acquisition.image(shaded, shape)[0].numpy()
    if magnitude:
        image, reference = (np.abs(one).astype(np.complex64) for one in (image, reference))
    inverse = _at_pixels(motion, shape)
    return ImagePair(
        image=normalize(image),
        reference=normalize(reference),
        displacement=inverse_displacement(inverse).astype(np.float32),
        inverse=inverse.astype(np.float32),
        labels=_middles(still, shape),
        reference_labels=_middles(moved, shape),
    )


class PhantomPairs(NumberedPhantoms):
    """Endless data set of subjects in two scans with motion between, reproducible by index.

    Each item is a dictionary: ``images``, complex64 ``(2, n, n)``, the image and the reference;
    ``displacement``, float32 ``(2, n, n)``; ``inside``, bool ``(n, n)``, the pixels with tissue;
    ``metadata`` of the image and of the reference.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import AnatomyBank, PhantomPairs, brain_anatomy
        >>> bank = AnatomyBank.build([brain_anatomy(torch.Generator().manual_seed(0), size=64)])
        >>> PhantomPairs(bank, resolution=32)[0]["images"].shape
        torch.Size([2, 32, 32])

    Args:
        bank: Brains to draw from.
        misalignment: Motion of the subjects; ``None`` uses the default.
        magnitude: Whether images are magnitudes.
        resolution: Matrix size ``n``, at most that of the anatomies.
        length: Number of items.
        seed: Random seed of the data set.

    Raises:
        InputError: If the resolution is above the size of the anatomies, or the seed is invalid.
    """

    def __init__(
        self,
        bank: AnatomyBank,
        misalignment: Misalignment | None = None,
        *,
        magnitude: bool = False,
        resolution: int = 96,
        length: int = 2**31,
        seed: int = 0,
    ) -> None:
        super().__init__(bank, resolution, length, seed)
        self.misalignment = Misalignment() if misalignment is None else misalignment
        self.magnitude = magnitude

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """Return item ``index`` at another matrix size ``n``."""
        anatomy, generator, rng = self._subject(index)
        if rng.random() < 0.5:
            anatomy = anatomy.mirrored()
        protocols = t1_t2_pair(generator)
        shape = (resolution, resolution)
        pair = _draw_pair(anatomy, protocols, shape, self.misalignment, rng, self.magnitude)
        return {
            "images": torch.from_numpy(np.stack([pair.image, pair.reference])),
            "displacement": torch.from_numpy(pair.displacement),
            "inside": torch.from_numpy(pair.labels > 0),
            "metadata": tuple(describe(anatomy, one) for one in protocols[::-1]),
        }


@dataclass(frozen=True)
class PairScan:
    """Fully sampled scan of a subject and a reference of the moved one, with ground truth.

    Attributes:
        kspace: Noisy k-space of the image, complex64 ``(1, coils, ny, nx)``.
        coil_maps: Coil maps, complex64 ``(1, coils, ny, nx)``; ``None`` for a single coil.
        reference: Reference, complex64 ``(1, ny, nx)``, from k-space with the same noise level.
        target: Noiseless image, complex64 ``(1, ny, nx)``.
        pair: Noiseless images and displacement.
        metadata: Metadata of the image and of the reference.
        noise_std: Standard deviation of the complex noise of each coil's samples.
    """

    kspace: Tensor
    coil_maps: Tensor | None
    reference: Tensor
    target: Tensor
    pair: ImagePair
    metadata: tuple[ScanMetadata, ScanMetadata]
    noise_std: float


def pair_scan(
    anatomy: Anatomy,
    protocols: Sequence[ScanMetadata] | None = None,
    *,
    misalignment: Misalignment | None = None,
    shape: tuple[int, int] = (96, 96),
    num_coils: int = 1,
    snr: float | None = None,
    magnitude: bool = False,
    generator: torch.Generator | None = None,
) -> PairScan:
    """Scan a random person with this anatomy twice, with motion between, with one coil array.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import brain_anatomy, pair_scan
        >>> generator = torch.Generator().manual_seed(0)
        >>> scan = pair_scan(brain_anatomy(generator, size=64), shape=(32, 32), generator=generator)
        >>> scan.kspace.shape, scan.reference.shape
        (torch.Size([1, 1, 32, 32]), torch.Size([1, 32, 32]))

    Args:
        anatomy: Brain to scan; for tests, one not used in training.
        protocols: Protocols of the reference and the image; ``None`` uses :func:`t1_t2_pair`.
        misalignment: Motion of the person; ``None`` uses the default.
        shape: Matrix size ``(ny, nx)``, at most that of the anatomy.
        num_coils: Number of receiver coils of the simulated array; for 1, k-space is the Fourier
            transform of the image.
        snr: Signal-to-noise ratio; see :func:`~ctxrecon.phantom.measure`. ``None`` adds no noise.
        magnitude: Whether the images are magnitudes, as in DICOM files.
        generator: Random generator.

    Raises:
        InputError: If there are not two protocols of one field strength, or the matrix, number of
            coils or SNR is not valid.
    """
    generator = torch.default_generator if generator is None else generator
    chosen = t1_t2_pair(generator) if protocols is None else protocols
    misalignment = Misalignment() if misalignment is None else misalignment
    pair = _draw_pair(anatomy, chosen, shape, misalignment, numpy_rng(generator), magnitude)
    images = torch.from_numpy(np.stack([pair.image, pair.reference]))
    single = torch.ones((1, 1, *shape), dtype=torch.complex64)
    maps = single if num_coils == 1 else simulate_coil_maps(num_coils, shape, generator=generator)
    scan = measure(images, maps, None, snr=snr, generator=generator)
    combined = (maps.conj() * ifft2c(scan.kspace)).sum(dim=1)
    return PairScan(
        kspace=scan.kspace[:1],
        coil_maps=None if num_coils == 1 else maps,
        reference=combined[1:],
        target=images[:1],
        pair=pair,
        metadata=(describe(anatomy, chosen[1]), describe(anatomy, chosen[0])),
        noise_std=scan.noise_std or 0.0,
    )


def inverse_displacement(displacement: Field) -> Field:
    """Return ``u`` with ``u(p) = −v(p + u(p))``, which reverses the displacement v.

    The iteration from 0 converges if v changes by less than 1 from pixel to pixel.

    Args:
        displacement: Displacement v in pixels, ``(2, ny, nx)``.
    """
    found = -displacement
    for _ in range(_ITERATIONS):
        before, found = found, -_bilinear(displacement, found)
        if np.abs(found - before).max() <= _PRECISION:
            break
    return found


def _draw_pair(
    anatomy: Anatomy,
    protocols: Sequence[ScanMetadata],
    shape: tuple[int, int],
    misalignment: Misalignment,
    rng: np.random.Generator,
    magnitude: bool,
) -> ImagePair:
    """Return both images of a random person with this anatomy."""
    subject = Subject.draw(anatomy, common_field_strength(protocols), rng)
    return image_pair(subject, protocols, shape, misalignment, rng, magnitude=magnitude)


def _grid(shape: tuple[int, ...]) -> Field:
    """Return the indices of each pixel."""
    return np.mgrid[: shape[0], : shape[1]].astype(np.float64)


def _bilinear(fields: NDArray[np.floating], displacement: Field) -> Field:
    """Sample fields ``(n, ny, nx)`` along a displacement, constant beyond the edges."""
    from scipy.ndimage import map_coordinates

    places = _grid(displacement.shape[1:]) + displacement
    return np.stack([map_coordinates(one, places, order=1, mode="nearest") for one in fields])


def _nearest(labels: NDArray[np.uint8], displacement: Field) -> NDArray[np.uint8]:
    """Sample labels along a displacement, with air outside."""
    places = np.rint(_grid(labels.shape) + displacement).astype(int)
    inside = np.ones(labels.shape, bool)
    for place, length in zip(places, labels.shape, strict=True):
        inside &= (place >= 0) & (place < length)
        np.clip(place, 0, length - 1, out=place)
    return np.where(inside, labels[places[0], places[1]], 0).astype(np.uint8)


@lru_cache(maxsize=1)
def _tile() -> NDArray[np.float32]:
    return texture_tile()


def _texture(displacement: Field, offset: tuple[int, int]) -> NDArray[np.float32]:
    """Sample the subject's texture along a displacement."""
    from scipy.ndimage import map_coordinates

    places = _grid(displacement.shape[1:]) + displacement + np.array(offset)[:, None, None]
    return map_coordinates(_tile(), places, order=1, mode="grid-wrap")


def _at_pixels(field: Field, shape: tuple[int, int]) -> Field:
    """Return a displacement of the fine grid at the pixels of an image, in image pixels.

    Pixel k of an image that is a crop of k-space is centered on the fine pixel ``k · fine/n``.
    """
    from scipy.ndimage import map_coordinates

    factors = np.array([n / fine for n, fine in zip(shape, field.shape[1:], strict=True)])
    factors = factors[:, None, None]
    places = _grid(shape) / factors
    sampled = [map_coordinates(one, places, order=1, mode="nearest") for one in field]
    return factors * np.stack(sampled)


def _middles(labels: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the label at the center of each pixel of an image."""
    rows, columns = (
        np.minimum(np.rint(np.arange(n) * fine / n).astype(int), fine - 1)
        for n, fine in zip(shape, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]
