"""Grids of an evaluation: slices of scans, acquisitions such as masks, and methods."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from ctxrecon.coils import find_calibration_region, mvue
from ctxrecon.errors import InputError
from ctxrecon.evaluation.scans import Slice
from ctxrecon.fourier import ifft2c
from ctxrecon.io import read_scan
from ctxrecon.masks import make_mask
from ctxrecon.measurement import Measurement
from ctxrecon.scan import Scan


class Acquisition(Protocol):
    """Way of acquiring slices: undersampling with masks, or another operator."""

    @property
    def mask(self) -> str:
        """Name of the mask, or of the operator with its options, in rows."""

    @property
    def acceleration(self) -> float | None:
        """Acceleration factor of the mask in rows; ``None`` for other operators."""

    @property
    def title(self) -> str:
        """Title in tables."""

    def check(self, shape: tuple[int, int, int], seed: int) -> None:
        """Validate that slices of shape ``(coils, ny, nx)`` can be acquired in this way."""

    def measure(
        self, full: Sequence[FullSlice], seeds: Sequence[int], device: torch.device
    ) -> Measurement:
        """Simulate the measurement of slices of one shape, with one random seed per slice."""


@dataclass(frozen=True)
class Undersampling:
    """A mask of :data:`ctxrecon.masks.MASKS` with an acceleration and the default center.

    Example:
        >>> from ctxrecon.evaluation import Undersampling
        >>> uniform = Undersampling("uniform1d", 4)
        >>> uniform.title, uniform.draw((64, 64), seed=0).shape
        ('uniform1d ×4', torch.Size([1, 1, 64, 64]))
    """

    mask: str
    acceleration: float

    @property
    def title(self) -> str:
        """Title in tables."""
        return f"{self.mask} ×{self.acceleration:g}"

    def draw(self, shape: tuple[int, int], seed: int) -> Tensor:
        """Draw the mask, shape ``(1, 1, ny, nx)``, bool."""
        generator = torch.Generator().manual_seed(seed)
        return make_mask(self.mask, shape, self.acceleration, generator=generator)

    def check(self, shape: tuple[int, int, int], seed: int) -> None:
        """Draw the mask once to validate it.

        Raises:
            InputError: If the mask is unknown, the acceleration leaves no sample, or the center is
                too small for coil maps.
        """
        coils, ny, nx = shape
        mask = self.draw((ny, nx), seed)
        if coils > 1:
            try:
                find_calibration_region(mask)
            except InputError as error:
                raise InputError(
                    f"{self.title} at {ny}×{nx} has too small a center for the estimation of coil "
                    "maps: use a lower acceleration"
                ) from error

    def measure(
        self, full: Sequence[FullSlice], seeds: Sequence[int], device: torch.device
    ) -> Measurement:
        """Undersample each slice with its own mask, and estimate coil maps from the samples.

        Coil maps in the file are not used, because they may be based on the full data.
        """
        kspaces, masks = [], []
        for whole, seed in zip(full, seeds, strict=True):
            ny, nx = whole.kspace.shape[2:]
            masks.append((self.draw((ny, nx), seed) & whole.mask).to(device))
            kspaces.append(whole.kspace.to(device) * masks[-1])
        return Measurement.from_arrays(torch.cat(kspaces), torch.cat(masks))


@dataclass(frozen=True)
class Batch:
    """Undersampled slices of one shape, on one device.

    Attributes:
        measurement: Measurement with coil maps from its own samples.
        prompts: Prompt of each slice; empty strings for files without metadata.
        seeds: Seed of each slice's diffusion noise.
    """

    measurement: Measurement
    prompts: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Reconstruction:
    """Output of a method for a batch.

    Attributes:
        images: Images of shape ``(batch, ny, nx)``, complex64, on the CPU.
        residual: Relative data residuals ``‖A x − y‖ / ‖y‖``, shape ``(batch,)``, on the CPU.
        evaluations: Number of network evaluations per slice.
    """

    images: Tensor
    residual: Tensor
    evaluations: float = 0.0


@dataclass(frozen=True)
class Method:
    """A reconstruction method. Any function from a batch to images can be one.

    Attributes:
        name: Name as the user gave it.
        run: Function that reconstructs a batch. Slices must not influence one another.
        prompt: ``"metadata"`` or ``"none"``; empty for methods without prompts.
        steps: Number of diffusion steps; ``None`` for methods without diffusion.

    Example:
        >>> from ctxrecon.evaluation import Method
        >>> Method("dds", lambda batch: ..., prompt="metadata", steps=30).title
        'dds, prompt, 30 steps'
    """

    name: str
    run: Callable[[Batch], Reconstruction] = field(repr=False, compare=False)
    prompt: str = ""
    steps: int | None = None

    @property
    def title(self) -> str:
        """Title in tables."""
        count = self.steps
        steps = "" if count is None else f", {count} step{'s' * (count != 1)}"
        return curve_title(self.name, self.prompt) + steps


def curve_title(name: str, prompt: str) -> str:
    """Return the title of a method regardless of its number of steps, for figures."""
    return name + {"": "", "metadata": ", prompt", "none": ", no prompt"}[prompt]


@dataclass(frozen=True)
class Grid:
    """Evaluation of every method for every slice and acquisition.

    Attributes:
        slices: Slices of all scans.
        acquisitions: Masks × accelerations, and other operators.
        methods: Methods; the others are compared with the first.
        seed: Random seed of all masks and noise.
        batch_size: Number of slices reconstructed at once.

    Example:
        >>> from pathlib import Path
        >>> from ctxrecon.evaluation import Grid, Slice, Undersampling, baseline_method
        >>> grid = Grid(
        ...     slices=tuple(Slice(Path("scan.h5"), i, (4, 64, 64)) for i in range(5)),
        ...     acquisitions=(Undersampling("uniform1d", 4), Undersampling("uniform1d", 8)),
        ...     methods=(baseline_method("tv", "total_variation"),),
        ...     seed=0,
        ...     batch_size=2,
        ... )
        >>> [len(batch) for batch in grid.batches()]
        [1, 2, 2]
    """

    slices: tuple[Slice, ...]
    acquisitions: tuple[Acquisition, ...]
    methods: tuple[Method, ...]
    seed: int
    batch_size: int

    def batches(self) -> list[tuple[Slice, ...]]:
        """Split the slices into batches of one shape and about equal size, up to ``batch_size``.

        The batches depend only on the slices, because the rounding of networks depends on the batch
        size, and results must not depend on the number of processes.
        """
        by_shape: dict[tuple[int, int, int], list[Slice]] = {}
        for one in self.slices:
            by_shape.setdefault(one.shape, []).append(one)
        parts = []
        for alike in by_shape.values():
            count = -(-len(alike) // self.batch_size)
            bounds = [len(alike) * part // count for part in range(count + 1)]
            parts += [tuple(alike[first:last]) for first, last in pairwise(bounds)]
        return parts

    def check(self) -> None:
        """Validate every acquisition for each shape of the slices.

        Raises:
            InputError: If slices cannot be acquired in one of the ways.
        """
        for shape in dict.fromkeys(one.shape for one in self.slices):
            for acquisition in self.acquisitions:
                acquisition.check(shape, self.seed)


def case_seed(seed: int, one: Slice, acquisition: Acquisition, what: str) -> int:
    """Return the seed of the mask or noise of one case, the same in every process and run.

    It is a hash of the seed, the file's name, the slice's number and the acquisition, so that it
    does not depend on the other cases.
    """
    mask, acceleration = acquisition.mask, float(acquisition.acceleration or 0)
    words = (seed, one.path.name, one.number, mask, repr(acceleration), what)
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch accepts 63 bits


@dataclass(frozen=True)
class FullSlice:
    """A slice as stored in its file.

    Attributes:
        kspace: K-space of shape ``(1, coils, ny, nx)``.
        mask: Sampling mask of shape ``(1, 1, ny, nx)``.
        reference: Reference image of shape ``(1, ny, nx)``, complex64.
        reference_name: ``"target"`` or ``"MVUE"``.
        prompt: Prompt from its metadata, or an empty string without metadata.
    """

    kspace: Tensor
    mask: Tensor
    reference: Tensor
    reference_name: str
    prompt: str

    @property
    def empty(self) -> bool:
        """True if the reference is zero, so that there is nothing to compare with."""
        return not bool(self.reference.any())


def load_slice(one: Slice) -> FullSlice:
    """Read a slice; without a target its reference is the MVUE image with maps from all data.

    Raises:
        InputError: If the file cannot be read.
    """
    scan = read_scan(one.path, slices=one.number)
    reference, name = scan.target, "target"
    if reference is None:
        reference, name = mvue_reference(scan), "MVUE"
    prompt = scan.metadata[0].to_prompt() if scan.metadata else ""
    return FullSlice(scan.kspace, scan.cartesian_mask, reference, name, prompt)


def mvue_reference(scan: Scan) -> Tensor:
    """Compute the MVUE images ``(batch, ny, nx)`` of fully sampled data with maps from all data.

    Slices without signal are zero.
    """
    measurement = Measurement.from_scan(scan)
    kspace, maps = measurement.y, measurement.coil_maps
    image = ifft2c(kspace)[:, 0] if maps is None else mvue(kspace, maps)
    return torch.where(measurement.empty[:, None, None], 0, image)


def measure(
    slices: Sequence[Slice],
    full: Sequence[FullSlice],
    acquisition: Acquisition,
    seed: int,
    device: torch.device,
) -> Batch:
    """Simulate the measurement of slices of one shape, with case-specific seeds."""
    masks, noise = (
        [case_seed(seed, one, acquisition, what) for one in slices] for what in ("mask", "noise")
    )
    measurement = acquisition.measure(full, masks, device)
    return Batch(measurement, [whole.prompt for whole in full], noise)
