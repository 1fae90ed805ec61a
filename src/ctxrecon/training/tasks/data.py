"""Training samples of tasks: fully sampled phantom scans with what raters or readers say."""

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
"""Pixels of the image that a structure covers at least, about, in slices that it is learned from:
distances of smaller ones are noise."""
_BIAS_STD, _FIELD_STD = 0.7, 1.0
"""Spread of usual raters' boundaries in pixels: between raters, and along a boundary."""
_STATISTICS = 512
"""Most slices that the statistics of k-space are taken from."""


class Truth(Protocol):
    """What a slice is to be read as."""

    def __call__(self, anatomy: Anatomy, metadata: ScanMetadata, number: int) -> Tensor:
        """All that is said of the slice of this number, ``(opinions, …)``."""


@dataclass(frozen=True)
class RaterTruth:
    """Segmentations ``(raters, n, n)`` uint8.

    Attributes:
        raters: who segments.
        count: how many of them.
        resolution: n.
    """

    raters: Raters
    count: int
    resolution: int

    def __call__(self, anatomy: Anatomy, metadata: ScanMetadata, number: int) -> Tensor:
        """See :class:`Truth`."""
        shape = (self.resolution, self.resolution)
        found = self.raters.segment(anatomy, shape, slice_seed=number, raters=range(self.count))
        return torch.from_numpy(found)


@dataclass(frozen=True)
class FindingTruth:
    """Findings ``(1, findings)`` float32.

    Attributes:
        findings: their names.
    """

    findings: Sequence[str]

    def __call__(self, anatomy: Anatomy, metadata: ScanMetadata, number: int) -> Tensor:
        """See :class:`Truth`."""
        return finding_labels(metadata.pathologies, self.findings).float()[None]


@dataclass(frozen=True)
class TaskSamples:
    """What a sampler and a network learn a task from. All follows from the seed and the number.

    A batch holds ``kspace`` ``(batch, coils, n, n)``, fully sampled; ``coil_maps`` likewise, from
    the centre that every mask takes; ``target`` ``(batch, n, n)``; ``truth``, one of the opinions
    on each slice, drawn anew whenever it comes; ``seed``, of each sample's randomness; ``step``.

    Attributes:
        source: of the slices, with their anatomies.
        truth: what raters or readers say of each slice.
        calibration: ``(1, 1, n, n)`` bool, the centre that every mask takes.
        scans: how many scans there are; ``None`` for as many as samples are drawn.
        num_coils: of the simulated array; 1 for ``y = M (F x + n)`` without a coil.
        snr: of the bright signal to complex noise; 0 for none.
        magnitude: whether the magnitudes of the images are scanned.
        seed: of slices, coils, noise, opinions and masks.
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
        """The sample of ``(step, number)``."""
        step, number = place
        rng = np.random.default_rng([self.seed, number, 11])
        scan = self._memory.draw(number, self.scans, self.seed, self._scan)
        opinions = scan["opinions"]
        truth = opinions[int(rng.integers(len(opinions)))]
        return {**scan, "truth": truth, "seed": int(rng.integers(2**62)), "step": step}

    def image(self, number: int) -> tuple[Tensor, dict[str, Any]]:
        """The image ``(n, n)`` complex64 of a slice, and what it was drawn with."""
        drawn = self.source.draw(number, self.calibration.shape[-1])
        image = channels_to_complex(drawn["image"])
        return (image.abs().to(image.dtype) if self.magnitude else image), drawn

    def statistics(self) -> KSpaceStatistics:
        """How k-space varies over the slices that are learned from."""
        return KSpaceStatistics.of(self.first_images())

    def first_images(self) -> Tensor:
        """Images ``(slices, n, n)`` complex64 of the first slices, as many as statistics ask."""
        count = min(self.scans or _STATISTICS, _STATISTICS)
        return torch.stack([self.image(number)[0] for number in range(count)])

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One batch."""
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
    """The raters that segment every slice."""
    spread = config.rater_spread
    return Raters(SEGMENTATIONS[config.target], spread * _BIAS_STD, spread * _FIELD_STD)


def phantom_source(config: TasksConfig) -> PhantomSlices:
    """Slices of the bank that the task can be learned from.

    Raises:
        InputError: a bank that has none, or from before structures were noted.
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
            f"the field of view of the anatomies of {config.bank} has {shown} pixels, fewer than "
            f"--resolution {config.resolution}: lower it, or build them larger"
        )
    return slices_of(bank, config)


def fewest_pixels(size: int, config: TasksConfig) -> int:
    """Pixels of anatomies of this size that a structure covers at least."""
    return math.ceil(_FEWEST_PIXELS * (config.field_of_view * size / config.resolution) ** 2)


def slices_of(bank: AnatomyBank, config: TasksConfig) -> PhantomSlices:
    """Slices of these anatomies as they are trained on."""
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
    """A square around these structures, not always with them in the middle."""
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
