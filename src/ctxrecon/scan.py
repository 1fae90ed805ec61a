"""Measured k-space with its mask, coil maps, metadata and position."""

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

# Some raw files that are called fully sampled are zero-filled at the edges of k-space.
FULLY_SAMPLED = 0.7
"""Least sampled fraction at which a scan counts as fully sampled."""


@dataclass(frozen=True)
class Scan:
    """One or more slices of k-space, Cartesian or with a trajectory.

    Attributes:
        kspace: K-space of shape ``(batch, coils, ny, nx)``, complex64, with zero frequency at
            ``n // 2``, zero where not sampled. Each batch item is one slice; ``nx`` is the
            phase-encoding direction of 1-D patterns. With a ``trajectory`` the shape is
            ``(batch, coils, shots, samples)``.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool, ``True`` where sampled;
            ``None`` with a trajectory.
        coil_maps: Coil maps of shape ``(batch or 1, coils, ny, nx)``, complex64, with
            ``Σ_c |S_c|² = 1`` inside the object, or ``None`` if they are to be estimated.
        metadata: One :class:`ScanMetadata` per slice, or empty if nothing is known.
        target: Ground truth image of shape ``(batch, ny, nx)``, complex64, or ``None``.
        noise_std: Standard deviation of the complex noise of a k-space sample
            (``noise_std² / 2`` in each part), in the units of ``kspace``; ``None`` if unknown.
        voxel_size: Voxel size (ny, nx, slice) of the images in mm; ``None`` if unknown.
        trajectory: Trajectory ``(k_y, k_x)`` in radians per pixel, shape
            ``(batch or 1, shots, samples, 2)``, float64; ``None`` for Cartesian scans.
        matrix: Size ``(ny, nx)`` of the images of a trajectory; ``None`` for Cartesian scans, whose
            k-space has the same size.
        affine: Affine of shape ``(4, 4)``, float64: its product with ``(y, x, slice, 1)``, with
            integer indices at pixel centers, is a point in mm in the patient axes right,
            anterior, superior (RAS+, as in NIfTI). ``None`` if unknown, or if the slices are not
            parallel and equally spaced. It determines ``voxel_size``.
        calibration: Fully sampled center of k-space from a separate calibration scan with the same
            field of view, shape ``(batch or 1, coils, cy, cx)``, complex64, with zero frequency at
            ``n // 2``. Coil maps are estimated from it; ``None`` if they are estimated from
            ``kspace``.

    Raises:
        InputError: If the shapes or types do not fit together.

    Example:
        >>> import torch
        >>> from ctxrecon import Scan
        >>> from ctxrecon.metadata import ScanMetadata
        >>> scan = Scan(
        ...     kspace=torch.ones(2, 4, 32, 32, dtype=torch.complex64),
        ...     mask=torch.ones(1, 1, 32, 32, dtype=torch.bool),
        ...     metadata=(ScanMetadata("knee", slice=0), ScanMetadata("knee", slice=1)),
        ... )
        >>> len(scan), scan.image_shape
        (2, (32, 32))
        >>> scan[1].metadata[0].slice
        1
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
                "expected a scan with either a mask, or a trajectory and the matrix (ny, nx) of "
                "its images"
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
            # Slices share masks and maps, but not images.
            shared = batch if name == "target" else 1
            if tuple(value.shape[1:]) != tail or len(value) not in {shared, batch}:
                raise InputError(
                    f"{name} of shape {tuple(value.shape)} does not fit k-space of shape "
                    f"{tuple(self.kspace.shape)}: expected {(batch, *tail)}"
                    + (" (or batch 1)" if shared == 1 else "")
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
            # The dataclass is frozen; this derived field is set only once.
            object.__setattr__(self, "voxel_size", tuple(edges))
        if self.voxel_size is not None:
            check_voxel_size(self.voxel_size)

    def __len__(self) -> int:
        return self.kspace.shape[0]

    @property
    def image_shape(self) -> tuple[int, int]:
        """Size ``(ny, nx)`` of a slice's image."""
        if self.matrix is not None:
            return self.matrix
        ny, nx = self.kspace.shape[2:]
        return ny, nx

    @property
    def cartesian_mask(self) -> Tensor:
        """Sampling mask, for code that requires Cartesian k-space.

        Raises:
            InputError: If the scan has a trajectory.
        """
        if self.mask is None:
            raise InputError(
                "expected a Cartesian scan, got one with a trajectory: reconstruct it with "
                "Measurement.from_scan"
            )
        return self.mask

    def __getitem__(self, index: int | slice) -> Scan:
        """Return one slice (with a batch of 1) or a range of slices."""
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
"""Tolerance in mm for equally spaced slices, because headers round positions."""


def affine_of_slices(affine: Tensor, numbers: Sequence[int]) -> Tensor | None:
    """Return the affine of some slices of a volume.

    Args:
        affine: Affine of the volume, shape ``(4, 4)``.
        numbers: Numbers of the slices in the volume, from 0, in their new order.

    Returns:
        The affine of shape ``(4, 4)``, or ``None`` if the slices are not equally spaced. A single
        slice keeps the slice distance of the volume.
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
    """Join the affines of single slices into the affine of a volume.

    Args:
        affines: Affine of each slice, shape ``(4, 4)``, or ``None`` if it is unknown.

    Returns:
        The affine of shape ``(4, 4)``, or ``None`` if one is unknown or the slices are not
        parallel and equally spaced.
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
    except InputError:  # all slices lie in one plane
        return None
    return joined


def check_voxel_size(voxel_size: Any) -> None:
    """Validate a voxel size of three edges above 0 mm.

    Raises:
        InputError: If it is anything else.
    """
    good = isinstance(voxel_size, tuple | list) and len(voxel_size) == 3
    if not good or not all(
        isinstance(edge, int | float) and math.isfinite(edge) and edge > 0 for edge in voxel_size
    ):
        raise InputError(
            f"expected a voxel size of three numbers (ny, nx, slice) above 0 mm, got {voxel_size}"
        )


def check_affine(affine: Any) -> None:
    """Validate an affine from pixel indices to mm.

    Raises:
        InputError: If it is not a finite float64 tensor of shape ``(4, 4)`` with three independent
            axes and the last row (0, 0, 0, 1).
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
