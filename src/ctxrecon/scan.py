"""A scan: measured k-space with everything that is known about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata

# Some "fully sampled" raw files are zero-filled at the edges of k-space.
FULLY_SAMPLED = 0.7
"""Sampled share from which on a scan counts as fully sampled."""


@dataclass(frozen=True)
class Scan:
    """One or more slices, on a Cartesian grid or along a trajectory.

    Attributes:
        kspace: ``(batch, coils, ny, nx)`` complex64, centred, zero where not sampled. One
            batch item is one slice; ``nx`` is the phase-encode axis of 1-D patterns. Along a
            ``trajectory`` it is ``(batch, coils, shots, samples)``.
        mask: ``(batch or 1, 1, ny, nx)`` bool, ``True`` where sampled; ``None`` along a trajectory.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64 with ``Σ_c |S_c|² = 1`` inside the
            object, or ``None`` when they are to be estimated.
        metadata: one :class:`ScanMetadata` for each slice, or empty when nothing is known.
        target: ``(batch, ny, nx)`` complex64 ground truth, when there is one.
        noise_std: standard deviation of the complex noise of a k-space sample
            (``noise_std² / 2`` in each part), in the units of ``kspace``; ``None`` if unknown.
        voxel_size: (ny, nx, slice) in mm of the images that the k-space makes; ``None`` if unknown.
        trajectory: ``(batch or 1, shots, samples, 2)`` float64, ``(k_y, k_x)`` in radians per
            pixel; ``None`` for a Cartesian grid.
        matrix: ``(ny, nx)`` of the images; ``None`` for a Cartesian grid, which has its own.
        affine: ``(4, 4)`` float64, the place of the images in the scanner: multiplied by
            ``(y, x, slice, 1)``, whole numbers at pixel centers, it gives a point in mm in the
            patient's axes right, anterior, superior (RAS+, as NIfTI). ``None`` if unknown, or if
            the slices are not parallel and equally spaced. ``voxel_size`` follows from it.
        calibration: ``(batch or 1, coils, cy, cx)`` complex64, the fully sampled center of k-space
            of a separate scan with the same field of view, zero frequency at ``n // 2``, from which
            coil maps are to be estimated; ``None`` where ``kspace`` has its own.
    """

    kspace: Tensor
    mask: Tensor | None
    coil_maps: Tensor | None = None
    metadata: tuple[ScanMetadata, ...] = field(default=())
    target: Tensor | None = None
    noise_std: float | None = None
    voxel_size: tuple[float, float, float] | None = None
    trajectory: Tensor | None = None
    matrix: tuple[int, int] | None = None
    affine: Tensor | None = None
    calibration: Tensor | None = None

    def __post_init__(self) -> None:
        if self.kspace.ndim != 4 or not self.kspace.is_complex():
            raise InputError(
                "expected complex k-space (batch, coils, ny, nx), got "
                f"{self.kspace.dtype} of shape {tuple(self.kspace.shape)}"
            )
        if (self.mask is None) == (self.trajectory is None) or (
            (self.trajectory is None) != (self.matrix is None)
        ):
            raise InputError(
                "expected a scan with a mask, or with a trajectory and the matrix (ny, nx) of its "
                "images: give the one or the other"
            )
        batch, coils, *samples = self.kspace.shape
        ny, nx = self.image_shape
        expected: dict[str, tuple[int, ...]] = {
            "mask": (1, ny, nx),
            "coil_maps": (coils, ny, nx),
            "target": (ny, nx),
            "trajectory": (*samples, 2),
        }
        for name, tail in expected.items():
            value = getattr(self, name)
            if value is None:
                continue
            if tuple(value.shape[1:]) != tail or value.shape[0] not in {1, batch}:
                raise InputError(
                    f"{name} of shape {tuple(value.shape)} does not fit k-space of shape "
                    f"{tuple(self.kspace.shape)}: expected {(batch, *tail)} (or batch 1)"
                )
        if self.calibration is not None:
            shape = tuple(self.calibration.shape)
            good = self.calibration.is_complex() and len(shape) == 4
            if not good or shape[0] not in {1, batch} or shape[1] != coils:
                raise InputError(
                    f"calibration of {self.calibration.dtype} and shape {shape} does not fit "
                    f"k-space of shape {tuple(self.kspace.shape)}: expected complex (batch or 1, "
                    f"{coils}, cy, cx)"
                )
        if self.mask is not None and self.mask.dtype != torch.bool:
            raise InputError(f"expected a bool mask, got {self.mask.dtype}")
        if len(self.metadata) not in {0, batch}:
            raise InputError(
                f"expected metadata for each of the {batch} slices or none, "
                f"got {len(self.metadata)}"
            )
        if self.affine is not None:
            check_affine(self.affine)
            edges = self.affine[:3, :3].norm(dim=0).tolist()
            # Frozen: what follows from another field is set once, here.
            object.__setattr__(self, "voxel_size", tuple(edges))
        if self.voxel_size is not None:
            check_voxel_size(self.voxel_size)

    def __len__(self) -> int:
        return self.kspace.shape[0]

    @property
    def image_shape(self) -> tuple[int, int]:
        """``(ny, nx)`` of a slice's image."""
        if self.matrix is not None:
            return self.matrix
        ny, nx = self.kspace.shape[2:]
        return ny, nx

    @property
    def cartesian_mask(self) -> Tensor:
        """The mask, for what needs k-space on a grid.

        Raises:
            InputError: a scan along a trajectory.
        """
        if self.mask is None:
            raise InputError(
                "expected a Cartesian scan, got one along a trajectory: reconstruct it as it is, "
                "with Measurement.from_scan"
            )
        return self.mask

    def __getitem__(self, index: int | slice) -> Scan:
        """One slice (batch of 1) or a range of slices."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"slice {index} of a scan with {len(self)} slices")
            index %= len(self)
            index = slice(index, index + 1)

        def pick(value: Tensor | None) -> Tensor | None:
            return value if value is None or value.shape[0] == 1 < len(self) else value[index]

        return replace(
            self,
            kspace=self.kspace[index],
            mask=pick(self.mask),
            coil_maps=pick(self.coil_maps),
            metadata=self.metadata[index],
            target=None if self.target is None else self.target[index],
            trajectory=pick(self.trajectory),
            affine=None
            if self.affine is None
            else affine_of_slices(self.affine, range(len(self))[index]),
            calibration=pick(self.calibration),
        )


_OFF_GRID = 0.01
"""Distance in mm up to which slices count as equally spaced: headers round to as much."""


def affine_of_slices(affine: Tensor, numbers: Sequence[int]) -> Tensor | None:
    """The affine of some slices of a volume, in the order that they are taken.

    Args:
        affine: ``(4, 4)`` of the volume.
        numbers: of the slices in it, from 0.

    Returns:
        ``(4, 4)``, ``None`` where the slices are not equally spaced. That of one slice keeps the
        distance to the next of the volume.
    """
    steps = {later - sooner for sooner, later in pairwise(numbers)} or {1}
    if len(steps) > 1 or steps == {0}:
        return None
    chosen = affine.clone()
    if numbers:
        chosen[:, 3] += numbers[0] * affine[:, 2]
    chosen[:, 2] *= steps.pop()
    return chosen


def joined_affine(affines: Sequence[Tensor | None]) -> Tensor | None:
    """The affine of a volume, of those of its slices.

    Args:
        affines: ``(4, 4)`` of each slice, or ``None``.

    Returns:
        ``(4, 4)``, ``None`` where one is not known or the slices are not parallel and equally
        spaced.
    """
    known = [affine for affine in affines if affine is not None]
    if len(known) < len(affines) or not known:
        return None
    joined = known[0].clone()
    if len(known) > 1:
        joined[:, 2] = (known[-1][:, 3] - known[0][:, 3]) / (len(known) - 1)
    for number, affine in enumerate(known):
        place = joined[:, 3] + number * joined[:, 2]
        if not torch.allclose(affine[:, :2], joined[:, :2], rtol=0, atol=1e-4) or not (
            torch.allclose(affine[:, 3], place, rtol=0, atol=_OFF_GRID)
        ):
            return None
    try:
        check_affine(joined)
    except InputError:  # the slices lie in one plane
        return None
    return joined


def check_voxel_size(voxel_size: Any) -> None:
    """Refuse what is not three edges above 0 mm.

    Raises:
        InputError: anything else.
    """
    good = isinstance(voxel_size, tuple | list) and len(voxel_size) == 3
    if not good or not all(
        isinstance(edge, int | float) and math.isfinite(edge) and edge > 0 for edge in voxel_size
    ):
        raise InputError(
            f"expected a voxel size of three numbers (ny, nx, slice) above 0 mm, got {voxel_size}"
        )


def check_affine(affine: Any) -> None:
    """Refuse what is not an invertible map from pixels to mm.

    Raises:
        InputError: another shape or type, values that are not finite, axes that are parallel or
            zero, or a last row that is not (0, 0, 0, 1).
    """
    good = (
        isinstance(affine, Tensor)
        and affine.shape == (4, 4)
        and affine.dtype == torch.float64
        and bool(affine.isfinite().all())
        and affine[3].tolist() == [0, 0, 0, 1]
    )
    if good:
        edges = affine[:3, :3].norm(dim=0)
        good = bool((edges > 0).all()) and abs(float(torch.det(affine[:3, :3] / edges))) > 1e-3
    if not good:
        raise InputError(
            "expected an affine (4, 4) float64 from (y, x, slice) to mm with three independent "
            f"axes and the last row 0, 0, 0, 1, got {affine}"
        )
