"""Grids of an evaluation: slices of scans, acquisitions such as masks, and methods."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol
from unicodedata import category

import torch
from torch import Tensor

from ctxrecon.coils import find_calibration_region, mvue
from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.io import read_scan, scan_info
from ctxrecon.masks import make_mask
from ctxrecon.measurement import Measurement
from ctxrecon.scan import FULLY_SAMPLED, Scan

SCAN_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".cfl")


@dataclass(frozen=True)
class ScanFile:
    """File of fully sampled slices.

    Attributes:
        path: Scan file that :func:`ctxrecon.io.read_scan` reads.
        slices: Number of slices.
        shape: Shape ``(coils, ny, nx)``.
        prompt: Prompt from the metadata of the middle slice, or ``None`` without metadata.
        sampled: Sampled fraction of the middle slice.
    """

    path: Path
    slices: int
    shape: tuple[int, int, int]
    prompt: str | None
    sampled: float = 1.0


@dataclass(frozen=True)
class Slice:
    """One slice of a file, identified in rows by the file's name and the slice's number."""

    path: Path
    number: int
    shape: tuple[int, int, int]


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


def find_scans(paths: Iterable[Path]) -> list[ScanFile]:
    """Find the scans among files and in folders (without subfolders), sorted by name.

    Raises:
        InputError: If a folder has no scans, two files have the same name, a name is not valid
            text, a file cannot be read, or a scan is undersampled without a target image.

    Example:
        >>> from importlib.resources import files
        >>> from ctxrecon.evaluation import find_scans
        >>> (scan,) = find_scans([files("ctxrecon.checkpoints") / "demo_scan.npz"])
        >>> scan.slices, scan.shape
        (1, (8, 128, 128))
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            found = [child for child in path.iterdir() if child.suffix.lower() in SCAN_SUFFIXES]
        except OSError as error:
            raise InputError(f"{path} is not readable: check its permissions") from error
        if not found:
            raise InputError(f"{path}: expected scans ({', '.join(SCAN_SUFFIXES)}), found none")
        files += found
    if not files:
        raise InputError("expected at least one scan, got none: give files, or folders of them")
    names: dict[str, Path] = {}
    for path in files:
        if any(category(letter) in ("Cc", "Cs") for letter in path.name):
            raise InputError(
                f"expected the name of a scan as one line of UTF-8 text, got {path.name!r}: "
                "rename the file"
            )
        other = names.setdefault(path.name, path)
        if other is not path:
            raise InputError(
                f"{other} and {path} have the same name, which identifies a scan in rows: rename "
                "one"
            )
    return [_inspect(names[name]) for name in sorted(names)]


def _inspect(path: Path) -> ScanFile:
    info = scan_info(path)
    if "trajectory" in info:
        raise InputError(
            f"{path} has a {info['trajectory']} trajectory, so there is no reference for the "
            "reconstruction: leave it out, or simulate trajectories with --operators"
        )
    if info["sampled_fraction"] < FULLY_SAMPLED and not info["target"]:
        raise InputError(
            f"{path} is undersampled ({100 * info['sampled_fraction']:.0f} % sampled) and has no "
            "target image, so there is no reference for the reconstruction: leave it out"
        )
    ny, nx = info["shape"]
    return ScanFile(
        path, info["slices"], (info["coils"], ny, nx), info["prompt"], info["sampled_fraction"]
    )


def slices_of(scans: Sequence[ScanFile]) -> tuple[Slice, ...]:
    """Return every slice of every scan."""
    return tuple(Slice(scan.path, i, scan.shape) for scan in scans for i in range(scan.slices))


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


def is_fully_sampled(scan: Scan) -> bool:
    """Return whether a scan is sampled densely enough to serve as ground truth."""
    return float(scan.cartesian_mask.float().mean()) >= FULLY_SAMPLED


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
