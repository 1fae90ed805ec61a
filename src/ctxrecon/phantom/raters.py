"""Simulated raters who segment anatomies and differ as experts do, in any number.

Rater j marks a structure where ``d(p) + b_j + g(p) < 0``: d is the signed distance to its true
boundary, b_j the rater's bias, and g a smooth field that is new in every slice. As the numbers of
raters and slices are unlimited, distances between distributions of segmentations can be estimated
without bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ctxrecon.checks import check_number, check_whole
from ctxrecon.errors import InputError
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.bank import OLD_BANK
from ctxrecon.phantom.structures import Structure

NUM_RATERS = 6
"""Default number of raters, that of QUBIQ's prostates."""
_SMOOTHNESS = 1 / 16
"""Standard deviation of the filter that smooths g, as a fraction of the matrix size."""


@dataclass(frozen=True)
class Segmentation:
    """Segmentation task.

    Example:
        >>> from ctxrecon.phantom import SEGMENTATIONS
        >>> SEGMENTATIONS["cartilage_and_meniscus"].num_classes
        3

    Attributes:
        anatomy: Anatomy with the structures.
        classes: Structures of each class; the background is class 0, before them.
        wide: Structures of each class for every second rater (odd numbers); ``None`` if raters
            differ only in boundaries.
    """

    anatomy: str
    classes: tuple[tuple[Structure, ...], ...]
    wide: tuple[tuple[Structure, ...], ...] | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes including the background."""
        return 1 + len(self.classes)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """Structures of all classes."""
        return tuple(dict.fromkeys(one for each in self.classes for one in each))


SEGMENTATIONS: Mapping[str, Segmentation] = MappingProxyType(
    {
        "mass": Segmentation("brain", ((Structure.MASS,),)),
        # Half of the raters include the edema in the mass.
        "mass_or_edema": Segmentation(
            "brain", ((Structure.MASS,),), ((Structure.MASS, Structure.EDEMA),)
        ),
        "ventricles": Segmentation("brain", ((Structure.VENTRICLES,),)),
        "deep_gray_matter": Segmentation("brain", ((Structure.DEEP_GRAY_MATTER,),)),
        "cartilage_and_meniscus": Segmentation(
            "knee", ((Structure.CARTILAGE,), (Structure.MENISCUS,))
        ),
    }
)
"""Segmentation tasks by name, analogues of BRISC, QUBIQ and SKM-TEA in InfoMRI."""


@dataclass(frozen=True)
class Raters:
    """Unlimited raters of one segmentation; rater j is the same person in every slice.

    Attributes:
        segmentation: Segmentation task.
        bias_std: Standard deviation of b_j over the raters, in image pixels.
        field_std: Standard deviation of g, in image pixels.
        seed: Random seed of the raters.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import Raters, SEGMENTATIONS, knee_anatomy
        >>> anatomy = knee_anatomy(torch.Generator().manual_seed(0), size=64)
        >>> raters = Raters(SEGMENTATIONS["cartilage_and_meniscus"])
        >>> raters.segment(anatomy, (32, 32), slice_seed=0).shape
        (6, 32, 32)
    """

    segmentation: Segmentation
    bias_std: float = 0.7
    field_std: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Validate the values."""
        check_number("bias_std", self.bias_std, least=0)
        check_number("field_std", self.field_std, least=0)
        check_whole("seed", self.seed, least=0)

    def bias(self, rater: int) -> float:
        """Return the bias b_j of a rater in pixels."""
        return float(self.bias_std * np.random.default_rng([self.seed, rater]).standard_normal())

    def segment(
        self,
        anatomy: Anatomy,
        shape: tuple[int, int],
        *,
        slice_seed: int,
        raters: Sequence[int] = range(NUM_RATERS),
    ) -> NDArray[np.uint8]:
        """Segment the image of an anatomy by several raters.

        Args:
            anatomy: Anatomy that is imaged.
            shape: Matrix size ``(ny, nx)`` of the image, at most that of the anatomy.
            slice_seed: Random seed of the slice's fields g.
            raters: Numbers of the raters, from 0.

        Returns:
            Class labels of shape ``(raters, ny, nx)``, 0 for the background.

        Raises:
            InputError: If the anatomy is not that of the segmentation, or has no structures.
        """
        if anatomy.structures is None:
            raise InputError(OLD_BANK)
        if anatomy.name != self.segmentation.anatomy:
            raise InputError(
                f"this segmentation is of a {self.segmentation.anatomy}, got a {anatomy.name}"
            )
        usual = _distances(anatomy.structures, self.segmentation.classes, shape)
        seen = [usual, usual]
        if self.segmentation.wide is not None:
            seen[1] = _distances(anatomy.structures, self.segmentation.wide, shape)
        marked = []
        for rater in raters:
            rng = np.random.default_rng([self.seed, rater, slice_seed])
            fields = np.stack([self._field(shape, rng) for _ in usual])
            distance = seen[rater % 2] + self.bias(rater) + fields
            marked.append(np.where(distance.min(axis=0) < 0, distance.argmin(axis=0) + 1, 0))
        return np.stack(marked).astype(np.uint8)

    def _field(self, shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        """Draw the smooth field g."""
        white = rng.standard_normal(shape)
        if not self.field_std:
            return np.zeros(shape)
        width = _SMOOTHNESS * min(shape)
        # After a Gaussian filter, white noise has variance 1 / (4π width²).
        smooth = ndimage.gaussian_filter(white, width, mode="wrap", truncate=4)
        return self.field_std * np.sqrt(4 * np.pi) * width * smooth


def _distances(
    structures: NDArray[np.uint8],
    classes: Sequence[Sequence[Structure]],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Return signed distances in image pixels, negative inside, ``(classes, *shape)``.

    They are infinite for classes that the anatomy lacks. Pixel k of an image is at ``k · fine/n``.
    """
    factors = [fine / n for fine, n in zip(structures.shape, shape, strict=True)]
    axes = [factor * np.arange(n) for factor, n in zip(factors, shape, strict=True)]
    places = np.meshgrid(*axes, indexing="ij")
    pixel = [1 / factor for factor in factors]
    found = []
    for one in classes:
        inside = np.isin(structures, one)
        if not inside.any():
            found.append(np.full(shape, np.inf))
            continue
        outwards = ndimage.distance_transform_edt(~inside, sampling=pixel)
        inwards = ndimage.distance_transform_edt(inside, sampling=pixel)
        # The boundary is half a pixel from the center of the pixels on both sides.
        half = np.mean(pixel) / 2
        signed = np.where(inside, half - inwards, outwards - half)
        found.append(ndimage.map_coordinates(signed, places, order=1, mode="nearest"))
    return np.stack(found)
