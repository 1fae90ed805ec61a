"""Training samples of tasks: fully sampled phantom scans with raters' or readers' labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import (
    SEGMENTATIONS,
    Anatomy,
    AnatomyBank,
    PhantomSlices,
    Raters,
    Structure,
)
from ctxrecon.tasks import KSpaceStatistics, finding_labels
from ctxrecon.training.scans import Memory, fully_sampled, stack
from ctxrecon.training.slices import SliceSource
from ctxrecon.training.tasks.config import TasksConfig

_FEWEST_PIXELS = 8
"""Approximate minimum size of a structure in image pixels in training slices; distances of smaller
structures are noise."""
_BIAS_STD, _FIELD_STD = 0.7, 1.0
"""Spread of usual raters' boundaries in pixels: between raters, and along a boundary."""
_STATISTICS = 512
"""Maximum number of slices from which the statistics of k-space are estimated."""


class Truth(Protocol):
    """Labels of a slice."""

    def __call__(self, anatomy: Anatomy, metadata: ScanMetadata, number: int) -> Tensor:
        """Return all labels of the slice of a number, ``(opinions, …)``."""


@dataclass(frozen=True)
class RaterTruth:
    """Segmentations ``(raters, n, n)``, uint8.

    Attributes:
        raters: Simulated raters.
        count: Number of raters.
        resolution: Matrix size n.
    """

    raters: Raters
    count: int
    resolution: int

    def __call__(self, anatomy: Anatomy, metadata: ScanMetadata, number: int) -> Tensor:
        """Return the segmentations of a slice, see :class:`Truth`."""
        shape = (self.resolution, self.resolution)
        found = self.raters.segment(anatomy, shape, slice_seed=number, raters=range(self.count))
        return torch.from_numpy(found)


@dataclass(frozen=True)
class FindingTruth:
    """Findings ``(1, findings)``, float32.

    Attributes:
        findings: Names of the findings.
    """

    findings: Sequence[str]

    def __call__(self, anatomy: Anatomy, metadata: ScanMetadata, number: int) -> Tensor:
        """Return the findings of a slice, see :class:`Truth`."""
        return finding_labels(metadata.pathologies, self.findings).float()[None]


@dataclass(frozen=True)
class TaskSamples:
    """Samples for task training, determined by the seed and the sample number.

    A batch contains fully sampled ``kspace`` ``(batch, coils, n, n)``; ``coil_maps``
    ``(batch, coils, n, n)``, estimated from the center contained in every mask; ``target``
    ``(batch, n, n)``; ``truth``, one of the labels of each slice, drawn again in every sample;
    ``seed`` of each sample's randomness; and ``step``.

    Attributes:
        source: Source of the slices and their anatomies.
        truth: Labels of each slice by raters or readers.
        calibration: Center contained in every mask, ``(1, 1, n, n)`` bool.
        scans: Number of scans; ``None`` for a new scan in every sample.
        num_coils: Number of coils of the simulated array; 1 for ``y = M (F x + n)`` without coil.
        snr: Ratio of the bright signal to the complex noise; 0 for no noise.
        magnitude: If true, the magnitudes of the images are scanned.
        seed: Random seed of slices, coils, noise, labels and masks.
    """

    source: SliceSource
    truth: Truth
    calibration: Tensor
    scans: int | None = None
    num_coils: int = 1
    snr: float = 50.0
    magnitude: bool = False
    seed: int = 0
    _memory: Memory = field(default_factory=Memory, init=False, repr=False, compare=False)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """Return the sample of ``(step, number)``."""
        step, number = place
        rng = np.random.default_rng([self.seed, number, 11])
        scan = self._memory.draw(number, self.scans, self.seed, self._scan)
        opinions = scan["opinions"]
        truth = opinions[int(rng.integers(len(opinions)))]
        return {**scan, "truth": truth, "seed": int(rng.integers(2**62)), "step": step}

    def image(self, number: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the image ``(n, n)``, complex64, of a slice, and the drawn slice."""
        drawn = self.source.draw(number, self.calibration.shape[-1])
        image = channels_to_complex(drawn["image"])
        return (image.abs().to(image.dtype) if self.magnitude else image), drawn

    def statistics(self) -> KSpaceStatistics:
        """Return the statistics of k-space over the training slices."""
        return KSpaceStatistics.of(self.first_images())

    def first_images(self) -> Tensor:
        """Return the images ``(slices, n, n)``, complex64, used for the statistics."""
        count = min(self.scans or _STATISTICS, _STATISTICS)
        return torch.stack([self.image(number)[0] for number in range(count)])

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Collate samples to a batch."""
        return stack(samples, ("kspace", "coil_maps", "target", "truth", "seed", "step"))

    def _scan(self, number: int) -> dict[str, Any]:
        image, drawn = self.image(number)
        generator = torch.Generator().manual_seed(self.seed * 2**40 + number)
        scan = fully_sampled(
            image[None],
            self.num_coils,
            self.snr,
            self.calibration,
            generator,
            coil_phase=False,
        )
        return {
            "kspace": scan["kspace"][0],
            "coil_maps": scan["coil_maps"],
            "target": scan["target"][0],
            "opinions": self.truth(drawn["anatomy"], drawn["metadata"], number),
        }


def usual_raters(config: TasksConfig) -> Raters:
    """Return the raters that segment every slice."""
    spread = config.rater_spread
    return Raters(SEGMENTATIONS[config.target], spread * _BIAS_STD, spread * _FIELD_STD)


def phantom_source(config: TasksConfig) -> PhantomSlices:
    """Return the slices of the bank that are suitable for the task.

    Raises:
        InputError: If the bank has none, or does not contain structures.
    """
    bank = AnatomyBank.load(config.bank)
    if config.task == "classification":
        bank = bank.of_anatomy("knee")
    else:
        wanted = SEGMENTATIONS[config.target]
        bank = bank.of_anatomy(wanted.anatomy)
        bank = bank.showing(wanted.structures, pixels=fewest_pixels(bank.labels.shape[1], config))
    shown = round(config.field_of_view * min(bank.labels.shape[1:]))
    if shown < config.resolution:
        raise InputError(
            f"the field of view of the anatomies in {config.bank} has {shown} pixels, fewer than "
            f"--resolution {config.resolution}: lower it, or build larger anatomies"
        )
    return slices_of(bank, config)


def fewest_pixels(size: int, config: TasksConfig) -> int:
    """Return the minimum size of a structure in pixels of anatomies of a given size."""
    return math.ceil(_FEWEST_PIXELS * (config.field_of_view * size / config.resolution) ** 2)


def slices_of(bank: AnatomyBank, config: TasksConfig) -> PhantomSlices:
    """Return training slices of a bank of anatomies."""
    if config.field_of_view < 1:
        structures = SEGMENTATIONS[config.target].structures
        parts = [
            _part(one, structures, config.field_of_view)
            for one in map(bank.__getitem__, range(len(bank)))
        ]
        bank = AnatomyBank.build(parts, None if bank.subjects is None else bank.subjects.tolist())
    return PhantomSlices(
        bank,
        resolution=config.resolution,
        seed=config.seed,
        noise=0.0,
        contrast=config.contrast,
    )


def _part(anatomy: Anatomy, structures: Sequence[Structure], share: float) -> Anatomy:
    """Crop a square around structures, which are not always at its center."""
    assert anatomy.structures is not None
    places = np.argwhere(np.isin(anatomy.structures, structures))
    rng = np.random.default_rng([len(places), *places.sum(axis=0)])
    window = []
    for middle, length in zip(places.mean(axis=0), anatomy.labels.shape, strict=True):
        size = round(share * length)
        first = round(middle - size * rng.uniform(0.25, 0.75))
        first = min(max(first, 0), length - size)
        window.append(slice(first, first + size))
    return anatomy.cropped((window[0], window[1]))
