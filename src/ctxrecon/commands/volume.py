"""Slices of a scan file, read a few at a time so that the volume need not fit into memory."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.commands.logs import unsaid
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.metadata import ScanMetadata
    from ctxrecon.scan import Scan

# Scans up to this size are read once and kept in memory.
_KEPT_BYTES = 256 * 2**20
# Peak memory for reconstructing a whole volume, relative to its complex64 k-space: k-space, coil
# maps, and conjugate gradients on all coils.
_WHOLE_FACTOR = 6
# Peak memory for reading a whole volume: samples as stored, sorted, and transformed.
_READ_FACTOR = 3


class Volume:
    """Selected slices of a scan.

    All slices are read once at the start, so that errors in any slice are reported before the
    first one is reconstructed; of large files only masks and metadata are kept in memory.

    Args:
        file: Scan file of any supported format.
        slices: Value of ``--slices``, or ``None`` for all slices.
        coil_maps: File of coil maps, or ``None``.
        mask_given: Whether a mask replaces the file's; messages about the latter are suppressed.
        reading: Further arguments of :func:`ctxrecon.io.read_scan`.

    Attributes:
        file: Scan file.
        total: Number of slices in the file.
        numbers: Numbers of the selected slices in the file, counted from 0.
        shape: Shape ``(coils, ny, nx)``.
        masks: Bool sampling masks of shape ``(slices or 1, 1, ny, nx)``, or ``None`` for
            non-Cartesian scans.
        acceleration: Acceleration factor of the masks, or relative to the Nyquist criterion for
            non-Cartesian scans.
        metadata: Metadata of each slice, or an empty tuple.
        has_target: Whether the file holds a target image.
        voxel_size: Voxel size (ny, nx, slice) in mm, or ``None`` if unknown.
        affine: Affine of shape ``(4, 4)`` from (y, x, slice) indices to mm in RAS+, or ``None`` if
            unknown or if the selected slices are not parallel and equally spaced.

    Raises:
        InputError: If the file or the selected slices cannot be read.
    """

    def __init__(
        self,
        file: Path,
        slices: str | None = None,
        coil_maps: Path | None = None,
        *,
        mask_given: bool = False,
        **reading: Any,
    ) -> None:
        import torch

        from ctxrecon.io import scan_shape
        from ctxrecon.masks import nyquist_undersampling
        from ctxrecon.scan import joined_affine

        self.file, self._coil_maps, self._reading = file, coil_maps, reading
        self._unsaid = "mask inferred" if mask_given else None
        self._stated = {name: value for name, value in reading.items() if name != "calibration"}
        self.total = scan_shape(file, **self._stated)[0]
        self.numbers = _choose(file, slices, self.total)
        self._kept: Scan | None = None
        self._kept = self._read_once()
        masks: list[Tensor] = []
        filled: list[bool] = []
        metadata: list[ScanMetadata] = []
        affines: list[Tensor | None] = []
        for position, number in enumerate(self.numbers):
            try:
                scan = self.read([position])
            except InputError as error:
                raise InputError(f"slice {number} of {error}") from error
            if scan.mask is not None:
                masks.append(scan.mask)
                filled.append(bool(scan.kspace.any()))
            metadata += scan.metadata
            affines.append(scan.affine)
        self.shape = (scan.kspace.shape[1], *scan.image_shape)
        self.masks: Tensor | None = None
        if scan.trajectory is not None:
            self.acceleration = nyquist_undersampling(scan.trajectory[0], scan.image_shape)
        else:
            if any(filled):  # all-zero slices do not reveal their mask
                shown = masks[filled.index(True)]
                masks = [m if there else shown for m, there in zip(masks, filled, strict=True)]
            alike = all(bool((mask == masks[0]).all()) for mask in masks)
            self.masks = masks[0] if alike else torch.cat(masks)
            self.acceleration = 1 / float(self.masks.float().mean())
        self.metadata = tuple(metadata)
        self.has_target = scan.target is not None
        self.affine = joined_affine(affines)
        self.voxel_size = scan.voxel_size

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def whole_bytes(self) -> int:
        """Estimated memory in bytes for processing all slices at once."""
        return _WHOLE_FACTOR * 8 * len(self) * math.prod(self.shape)

    def read(self, positions: Sequence[int]) -> Scan:
        """Read consecutive slices, by their positions among the selected slices."""
        if self._kept is not None:
            return self._kept[positions[0] : positions[-1] + 1]
        from ctxrecon.io import read_scan

        with unsaid(self._unsaid):
            return read_scan(
                self.file,
                slices=[self.numbers[position] for position in positions],
                coil_maps=self._coil_maps,
                **self._reading,
            )

    def check_memory(self, who: str) -> None:
        """Validate that the whole volume fits into memory.

        Args:
            who: Name of the method that needs all slices at once, for the message.

        Raises:
            InputError: If the estimated memory exceeds that of the machine.
        """
        there = _memory()
        if self.whole_bytes > there:
            raise InputError(
                f"{who} needs all {len(self)} slices at once and about "
                f"{self.whole_bytes / 2**30:.0f} GiB of memory, but this machine has "
                f"{there / 2**30:.0f} GiB: select fewer slices with --slices, or another method"
            )

    def _read_once(self) -> Scan | None:
        """Read all slices if they are small, or if they fit and any read loads the whole file."""
        from ctxrecon.io import reads_whole

        first = self.read([0])
        if len(self) == 1:
            return first
        size = len(self) * first.kspace.numel() * first.kspace.element_size()
        fits = _READ_FACTOR * size <= _memory()
        if size <= _KEPT_BYTES or (fits and reads_whole(self.file, **self._stated)):
            return self.read(range(len(self)))
        return None


def _memory() -> int:
    """Return the physical memory of this machine in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def part_of(masks: Tensor, positions: Sequence[int]) -> Tensor:
    """Return the masks of some slices, shape ``(slices or 1, 1, ny, nx)``."""
    return masks if len(masks) == 1 else masks[positions[0] : positions[-1] + 1]


def _choose(file: Path, text: str | None, total: int) -> Sequence[int]:
    """Return the slice numbers that ``--slices`` selects, given as ``"3"`` or ``"3:8"``."""
    there = f"{file} has {total} slice{'s' * (total != 1)}, numbered from 0"
    if text is None:
        return range(total)
    try:
        bounds = [int(part) if part.strip() else None for part in text.split(":")]
    except ValueError:
        bounds = []
    if len(bounds) == 1 and bounds[0] is not None:
        if not -total <= bounds[0] < total:
            raise InputError(f"{there}: there is no slice {bounds[0]}")
        return [bounds[0] % total]
    if len(bounds) != 2:
        raise InputError(f"expected --slices as a:b or one number, got {text!r}")
    numbers = range(total)[bounds[0] : bounds[1]]
    if not numbers:
        raise InputError(f"{there}: --slices {text} selects none")
    return numbers
