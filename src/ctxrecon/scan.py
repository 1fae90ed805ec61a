"""A scan: measured k-space with everything that is known about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata


@dataclass(frozen=True)
class Scan:
    """One or more Cartesian slices.

    Attributes:
        kspace: ``(batch, coils, ny, nx)`` complex64, centred, zero where not sampled. One
            batch item is one slice; ``nx`` is the phase-encode axis of 1-D patterns.
        mask: ``(batch or 1, 1, ny, nx)`` bool, ``True`` where sampled.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64 with ``Σ_c |S_c|² = 1`` inside the
            object, or ``None`` when they are to be estimated.
        metadata: one :class:`ScanMetadata` for each slice, or empty when nothing is known.
        target: ``(batch, ny, nx)`` complex64 ground truth, when there is one.
        noise_std: standard deviation of the complex noise of a k-space sample
            (``noise_std² / 2`` in each part), in the units of ``kspace``; ``None`` if unknown.
        voxel_size: (ny, nx, slice) in mm of the images that the k-space makes; ``None`` if unknown.
    """

    kspace: Tensor
    mask: Tensor
    coil_maps: Tensor | None = None
    metadata: tuple[ScanMetadata, ...] = field(default=())
    target: Tensor | None = None
    noise_std: float | None = None
    voxel_size: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.kspace.ndim != 4 or not self.kspace.is_complex():
            raise InputError(
                "expected complex k-space (batch, coils, ny, nx), got "
                f"{self.kspace.dtype} of shape {tuple(self.kspace.shape)}"
            )
        batch, coils, ny, nx = self.kspace.shape
        expected = {"mask": (1, ny, nx), "coil_maps": (coils, ny, nx), "target": (ny, nx)}
        for name, tail in expected.items():
            value = getattr(self, name)
            if value is None:
                continue
            if tuple(value.shape[1:]) != tail or value.shape[0] not in {1, batch}:
                raise InputError(
                    f"{name} of shape {tuple(value.shape)} does not fit k-space of shape "
                    f"{tuple(self.kspace.shape)}: expected {(batch, *tail)} (or batch 1)"
                )
        if self.mask.dtype != torch.bool:
            raise InputError(f"expected a bool mask, got {self.mask.dtype}")
        if len(self.metadata) not in {0, batch}:
            raise InputError(
                f"expected metadata for each of the {batch} slices or none, "
                f"got {len(self.metadata)}"
            )
        if self.voxel_size is not None:
            check_voxel_size(self.voxel_size)

    def __len__(self) -> int:
        return self.kspace.shape[0]

    def __getitem__(self, index: int | slice) -> Scan:
        """One slice (batch of 1) or a range of slices."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"slice {index} of a scan with {len(self)} slices")
            index %= len(self)
            index = slice(index, index + 1)

        def pick(value: Tensor | None) -> Tensor | None:
            return value if value is None or value.shape[0] == 1 < len(self) else value[index]

        mask = pick(self.mask)
        assert mask is not None
        return Scan(
            kspace=self.kspace[index],
            mask=mask,
            coil_maps=pick(self.coil_maps),
            metadata=self.metadata[index],
            target=None if self.target is None else self.target[index],
            noise_std=self.noise_std,
            voxel_size=self.voxel_size,
        )


def check_voxel_size(voxel_size: object) -> None:
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
