"""Scan files of an evaluation, and their slices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

from ctxrecon.errors import InputError
from ctxrecon.io import scan_info
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


def content_digest(path: Path) -> str:
    """Return a short hash of a file, which identifies a scan in the settings of a run."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()[:16]


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


def check_fully_sampled(scans: Iterable[ScanFile]) -> None:
    """Validate that masks can undersample these scans.

    Raises:
        InputError: If a scan is already undersampled.
    """
    for scan in scans:
        if scan.sampled < FULLY_SAMPLED:
            raise InputError(
                f"masks need fully sampled k-space, but only {100 * scan.sampled:.0f} % of "
                f"{scan.path} is sampled: leave it out, or evaluate --operators, which use its "
                "target"
            )


def slices_of(scans: Sequence[ScanFile]) -> tuple[Slice, ...]:
    """Return every slice of every scan."""
    return tuple(Slice(scan.path, i, scan.shape) for scan in scans for i in range(scan.slices))


def is_fully_sampled(scan: Scan) -> bool:
    """Return whether a scan is sampled densely enough to serve as ground truth."""
    return float(scan.cartesian_mask.float().mean()) >= FULLY_SAMPLED
