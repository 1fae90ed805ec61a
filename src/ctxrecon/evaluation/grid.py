"""What is measured: slices of scans, each undersampled by several masks, and the methods."""

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
    """A file of fully sampled slices.

    Attributes:
        path: what :func:`ctxrecon.io.read_scan` reads.
        slices: how many it holds.
        shape: ``(coils, ny, nx)``.
        prompt: that its middle slice implies, ``None`` where nothing is known.
        sampled: share of the samples of its middle slice that were measured.
    """

    path: Path
    slices: int
    shape: tuple[int, int, int]
    prompt: str | None
    sampled: float = 1.0


@dataclass(frozen=True)
class Slice:
    """One slice of a file, known in rows by the file's name and its number."""

    path: Path
    number: int
    shape: tuple[int, int, int]


class Acquisition(Protocol):
    """How slices are measured: undersampled by masks, or by another operator."""

    @property
    def mask(self) -> str:
        """Name of the mask, or of the operator with its options, in rows."""

    @property
    def acceleration(self) -> float | None:
        """Of the mask, in rows; ``None`` of other operators."""

    @property
    def title(self) -> str:
        """As in tables."""

    def check(self, shape: tuple[int, int, int], seed: int) -> None:
        """Refuse slices ``(coils, ny, nx)`` that cannot be measured so."""

    def measure(
        self, full: Sequence[FullSlice], seeds: Sequence[int], device: torch.device
    ) -> Measurement:
        """The measurement of slices of one shape; the seeds are of what is random in each."""


@dataclass(frozen=True)
class Undersampling:
    """A mask of :data:`ctxrecon.masks.MASKS` at an acceleration, its centre the default."""

    mask: str
    acceleration: float

    @property
    def title(self) -> str:
        """As in tables."""
        return f"{self.mask} ×{self.acceleration:g}"

    def draw(self, shape: tuple[int, int], seed: int) -> Tensor:
        """``(1, 1, ny, nx)`` bool."""
        generator = torch.Generator().manual_seed(seed)
        return make_mask(self.mask, shape, self.acceleration, generator=generator)

    def check(self, shape: tuple[int, int, int], seed: int) -> None:
        """Draw the mask once.

        Raises:
            InputError: an unknown mask, an acceleration that leaves no sample, or a centre that
                is too small for coil maps.
        """
        coils, ny, nx = shape
        mask = self.draw((ny, nx), seed)
        if coils > 1:
            try:
                find_calibration_region(mask)
            except InputError as error:
                raise InputError(
                    f"{self.title} at {ny}×{nx} leaves too small a centre to estimate coil maps "
                    "from: take a lower acceleration"
                ) from error

    def measure(
        self, full: Sequence[FullSlice], seeds: Sequence[int], device: torch.device
    ) -> Measurement:
        """Each slice with a mask of its own, and coil maps from what that leaves.

        Maps of the file are not used: they may be of the full data, which no method is to see.
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
        measurement: with coil maps from its own samples.
        prompts: of each slice; empty where its file says nothing.
        seeds: of each slice's noise.
    """

    measurement: Measurement
    prompts: list[str]
    seeds: list[int]


@dataclass(frozen=True)
class Reconstruction:
    """What a method gave for a batch.

    Attributes:
        images: ``(batch, ny, nx)`` complex64 on the CPU.
        residual: ``(batch,)`` ``‖A x − y‖ / ‖y‖`` on the CPU.
        evaluations: of the network, for one slice.
    """

    images: Tensor
    residual: Tensor
    evaluations: float = 0.0


@dataclass(frozen=True)
class Method:
    """One way to reconstruct. Any reconstructor can be one: it takes a batch and gives images.

    Attributes:
        name: as the user gave it.
        run: reconstructs a batch. Slices must not influence one another.
        prompt: ``"metadata"`` or ``"none"``; empty for methods that know no prompt.
        steps: of the diffusion; ``None`` for methods without.
    """

    name: str
    run: Callable[[Batch], Reconstruction] = field(repr=False, compare=False)
    prompt: str = ""
    steps: int | None = None

    @property
    def title(self) -> str:
        """As in tables."""
        count = self.steps
        steps = "" if count is None else f", {count} step{'s' * (count != 1)}"
        return curve_title(self.name, self.prompt) + steps


def curve_title(name: str, prompt: str) -> str:
    """A method whatever its number of steps, as in figures."""
    return name + {"": "", "metadata": ", prompt", "none": ", no prompt"}[prompt]


@dataclass(frozen=True)
class Grid:
    """Every slice is measured in every way and reconstructed by every method.

    Attributes:
        slices: of all scans.
        acquisitions: masks × accelerations, and other operators.
        methods: the first is what others are compared with.
        seed: of all masks and noise.
        batch_size: slices reconstructed at once.
    """

    slices: tuple[Slice, ...]
    acquisitions: tuple[Acquisition, ...]
    methods: tuple[Method, ...]
    seed: int
    batch_size: int

    def batches(self) -> list[tuple[Slice, ...]]:
        """Slices of one shape, at most ``batch_size``, in parts of about one size.

        They depend on the slices alone: a network's rounding depends on how many images it sees
        at once, and results are to be the same for any number of processes.
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
        """Try what may fail once for each shape.

        Raises:
            InputError: slices that cannot be measured in one of the ways.
        """
        for shape in dict.fromkeys(one.shape for one in self.slices):
            for acquisition in self.acquisitions:
                acquisition.check(shape, self.seed)


def find_scans(paths: Iterable[Path]) -> list[ScanFile]:
    """The scans among files and in folders (not in folders within), sorted by name.

    Raises:
        InputError: a folder without scans, two files of one name, a name that is no text, a file
            that cannot be read, or one that is undersampled and has no target image.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        try:
            found = [child for child in path.iterdir() if child.suffix.lower() in SCAN_SUFFIXES]
        except OSError as error:
            raise InputError(f"{path} may not be read: check its permissions") from error
        if not found:
            raise InputError(f"{path}: expected scans ({', '.join(SCAN_SUFFIXES)}), found none")
        files += found
    if not files:
        raise InputError("expected at least one scan, got none: name files, or folders of them")
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
                f"{other} and {path} have one name, and rows know a scan by it: rename one"
            )
    return [_inspect(names[name]) for name in sorted(names)]


def _inspect(path: Path) -> ScanFile:
    info = scan_info(path)
    if "trajectory" in info:
        raise InputError(
            f"{path} lies along a {info['trajectory']} trajectory, and nothing is known to measure "
            "a reconstruction against: leave it out, --operators simulates trajectories"
        )
    if info["sampled_fraction"] < FULLY_SAMPLED and not info["target"]:
        raise InputError(
            f"{path} is undersampled ({100 * info['sampled_fraction']:.0f} % sampled) and has no "
            "target image: there is nothing to measure a reconstruction against, leave it out"
        )
    ny, nx = info["shape"]
    return ScanFile(
        path, info["slices"], (info["coils"], ny, nx), info["prompt"], info["sampled_fraction"]
    )


def slices_of(scans: Sequence[ScanFile]) -> tuple[Slice, ...]:
    """Every slice of every scan."""
    return tuple(Slice(scan.path, i, scan.shape) for scan in scans for i in range(scan.slices))


def case_seed(seed: int, one: Slice, acquisition: Acquisition, what: str) -> int:
    """Seed of the mask or the noise of one case, the same in every process and run.

    A hash of the seed, the file's name, the slice's number and the acquisition, so that it
    depends on nothing else that is measured.
    """
    mask, acceleration = acquisition.mask, float(acquisition.acceleration or 0)
    words = (seed, one.path.name, one.number, mask, repr(acceleration), what)
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits


@dataclass(frozen=True)
class FullSlice:
    """A slice as its file has it.

    Attributes:
        kspace: ``(1, coils, ny, nx)``.
        mask: ``(1, 1, ny, nx)`` where it was measured.
        reference: ``(1, ny, nx)`` complex64, what reconstructions are measured against.
        reference_name: ``"target"`` or ``"MVUE"``.
        prompt: that its metadata imply, empty where there are none.
    """

    kspace: Tensor
    mask: Tensor
    reference: Tensor
    reference_name: str
    prompt: str


def load_slice(one: Slice) -> FullSlice:
    """Read a slice; without a target its reference is the MVUE image with maps of all its data.

    Raises:
        InputError: a file that cannot be read, or a reference that is zero.
    """
    scan = read_scan(one.path, slices=one.number)
    reference, name = scan.target, "target"
    if reference is None:
        reference, name = mvue_reference(scan), "MVUE"
    if not bool(reference.any()):
        raise InputError(f"{one.path}: the reference of slice {one.number} is zero: leave it out")
    prompt = scan.metadata[0].to_prompt() if scan.metadata else ""
    return FullSlice(scan.kspace, scan.cartesian_mask, reference, name, prompt)


def is_fully_sampled(scan: Scan) -> bool:
    """Whether enough is sampled to take the scan for the truth."""
    return float(scan.cartesian_mask.float().mean()) >= FULLY_SAMPLED


def mvue_reference(scan: Scan) -> Tensor:
    """MVUE image ``(batch, ny, nx)`` of fully sampled data, with coil maps from all of it.

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
    """Slices of one shape as they are measured, with what is random seeded for each."""
    masks, noise = (
        [case_seed(seed, one, acquisition, what) for one in slices] for what in ("mask", "noise")
    )
    measurement = acquisition.measure(full, masks, device)
    return Batch(measurement, [whole.prompt for whole in full], noise)
