"""Subjects: an anatomy with individual tissues and texture, imaged in any contrast."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import default_collate

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.imaging import (
    TissueRecipe,
    draw_acquisition,
    draw_offset,
    draw_reach,
    smooth_weights,
)
from ctxrecon.phantom.sequences import signal
from ctxrecon.phantom.tissues import TissueParameters, tissue_parameters


def numpy_rng(generator: torch.Generator | None) -> np.random.Generator:
    """Return a NumPy generator seeded by a torch one (by the global one if ``None``)."""
    seed = torch.randint(2**62, (1,), generator=generator).item()
    return np.random.default_rng(int(seed))


@dataclass(frozen=True)
class Subject:
    """One slice of one person, the same in every contrast.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from ctxrecon.metadata import ScanMetadata
        >>> from ctxrecon.phantom import Subject, brain_anatomy
        >>> anatomy = brain_anatomy(torch.Generator().manual_seed(0), size=64)
        >>> rng = np.random.default_rng(0)
        >>> subject = Subject.draw(anatomy, 3.0, rng)
        >>> subject.image(ScanMetadata(contrast="T2", tr=4000.0, te=90.0), (32, 32), rng).shape
        (32, 32)

    Attributes:
        anatomy: Label map of the slice.
        parameters: Tissue parameters of this person.
        texture_offset: Position of this person's texture in the texture tile.
        shading: Weights and strength of the receive and transmit shading that coil combination
            leaves; see :class:`ctxrecon.phantom.imaging.Acquisition`.
        reach: Fading of the signal at the top and the bottom; ``None`` for none.
    """

    anatomy: Anatomy
    parameters: TissueParameters
    texture_offset: tuple[int, int]
    shading: tuple[NDArray[np.float64], float]
    reach: NDArray[np.float64] | None

    @classmethod
    def draw(
        cls, anatomy: Anatomy, field_strength: float, rng: np.random.Generator, *, bias: float = 0.3
    ) -> Subject:
        """Draw a random person with this anatomy; ``bias`` is the largest relative shading."""
        weights = smooth_weights(2, rng)
        parameters = tissue_parameters(field_strength, rng, person=anatomy.person)
        offset = draw_offset(rng)
        strength = bias * rng.random()
        reach = draw_reach(rng) if anatomy.name == "knee" else None
        return cls(anatomy, parameters, offset, (weights, strength), reach)

    def recipe(
        self, metadata: ScanMetadata, rng: np.random.Generator, *, phase: float = 1.0
    ) -> TissueRecipe:
        """Return all parameters of one scan's image, without its pixels.

        The signal of each tissue is computed by :func:`ctxrecon.phantom.sequences.signal`. The
        phase is smooth, larger for gradient echoes, and new for every scan.

        Args:
            metadata: Sequence and times in ms.
            rng: Random generator of the phase and the strength of the k-space filter.
            phase: Largest smooth phase, in units of π.
        """
        table = signal(self.parameters, metadata).astype(np.complex64)
        flash = (metadata.sequence or "").lower() == "flash"
        return TissueRecipe(
            labels=np.ascontiguousarray(self.anatomy.labels),
            signal=table,
            texture=(table * self.parameters.texture).astype(np.complex64),
            offset=np.array(self.texture_offset),
            acquisition=draw_acquisition(
                rng, shading=self.shading, reach=self.reach, phase=phase * (1.5 if flash else 1.0)
            ),
            scale=np.float32(0.0),
        )

    def image(
        self,
        metadata: ScanMetadata,
        shape: tuple[int, int],
        rng: np.random.Generator,
        *,
        phase: float = 1.0,
    ) -> NDArray[np.complex64]:
        """Compute the noiseless complex image of one scan, of ``shape`` ``(ny, nx)``.

        See :meth:`recipe` and :meth:`ctxrecon.phantom.imaging.Acquisition.image`.

        Args:
            metadata: Sequence and times in ms.
            shape: Matrix size, at most that of the label map; the field of view is unchanged.
            rng: Random generator of the phase and the strength of the k-space filter.
            phase: Largest smooth phase, in units of π.

        Raises:
            InputError: If the matrix is smaller than 16 or larger than the label map.
        """
        fine, (ny, nx) = self.anatomy.labels.shape, shape
        if not (16 <= ny <= fine[0] and 16 <= nx <= fine[1]):
            raise InputError(f"expected a matrix size from 16 to the anatomy's {fine}, got {shape}")
        recipe: TissueRecipe = default_collate([self.recipe(metadata, rng, phase=phase)])
        return recipe.unscaled(shape)[0].numpy()
