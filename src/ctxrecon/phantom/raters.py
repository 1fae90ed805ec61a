"""Raters who segment anatomies and differ as experts do, as many of them as are asked for.

Rater j finds a structure where ``d(p) + b_j + g(p) < 0``: d is the signed distance to its true
boundary, b_j the rater's own bias, and g a smooth field that is new in every slice. Since raters
and slices can be drawn without end, distances of distributions of segmentations can be estimated
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
"""As many as in QUBIQ's prostates."""
_SMOOTHNESS = 1 / 16
"""Standard deviation of the filter that makes g smooth, as a part of the matrix size."""


@dataclass(frozen=True)
class Segmentation:
    """What is to be segmented.

    Attributes:
        anatomy: that has it.
        classes: structures of each class; the background comes before them, as class 0.
        wide: the same as every second rater, those with odd numbers, sees it; ``None`` where all
            agree but for their boundaries.
    """

    anatomy: str
    classes: tuple[tuple[Structure, ...], ...]
    wide: tuple[tuple[Structure, ...], ...] | None = None

    @property
    def num_classes(self) -> int:
        """The background included."""
        return 1 + len(self.classes)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """Of all classes."""
        return tuple(dict.fromkeys(one for each in self.classes for one in each))


SEGMENTATIONS: Mapping[str, Segmentation] = MappingProxyType(
    {
        "mass": Segmentation("brain", ((Structure.MASS,),)),
        # Half of the raters take the edema as part of the mass.
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
"""Name -> what is segmented; in the roles of BRISC, QUBIQ and SKM-TEA in InfoMRI."""


@dataclass(frozen=True)
class Raters:
    """An endless row of raters of one segmentation; rater j is the same person in every slice.

    Attributes:
        segmentation: what they look for.
        bias_std: standard deviation of b_j over the raters, in pixels of the image.
        field_std: of g, in pixels of the image.
        seed: of the raters.
    """

    segmentation: Segmentation
    bias_std: float = 0.7
    field_std: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        check_number("bias_std", self.bias_std, least=0)
        check_number("field_std", self.field_std, least=0)
        check_whole("seed", self.seed, least=0)

    def bias(self, rater: int) -> float:
        """b_j in pixels."""
        return float(self.bias_std * np.random.default_rng([self.seed, rater]).standard_normal())

    def segment(
        self,
        anatomy: Anatomy,
        shape: tuple[int, int],
        *,
        slice_seed: int,
        raters: Sequence[int] = range(NUM_RATERS),
    ) -> NDArray[np.uint8]:
        """What raters mark in the image of an anatomy.

        Args:
            anatomy: that is imaged.
            shape: matrix size ``(ny, nx)`` of the image, at most that of the anatomy.
            slice_seed: of what is new in this slice: the same gives the same.
            raters: their numbers, from 0 on.

        Returns:
            ``(raters, ny, nx)`` classes, 0 for the background.

        Raises:
            InputError: another anatomy than the segmentation's, or one without structures.
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
        """g, smooth."""
        white = rng.standard_normal(shape)
        if not self.field_std:
            return np.zeros(shape)
        width = _SMOOTHNESS * min(shape)
        # White noise after a Gaussian filter has a variance of 1 / (4π width²).
        smooth = ndimage.gaussian_filter(white, width, mode="wrap", truncate=4)
        return self.field_std * np.sqrt(4 * np.pi) * width * smooth


def _distances(
    structures: NDArray[np.uint8],
    classes: Sequence[Sequence[Structure]],
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Signed distance to each class in pixels of the image, negative inside, ``(classes, *shape)``.

    Where an anatomy lacks a class it is infinite. Pixel k of an image lies at ``k · fine/n``.
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
        # The boundary lies half a pixel from the middle of the pixels on both of its sides.
        half = np.mean(pixel) / 2
        signed = np.where(inside, half - inwards, outwards - half)
        found.append(ndimage.map_coordinates(signed, places, order=1, mode="nearest"))
    return np.stack(found)
