"""fastMRI volumes: coil maps and MVUE image of each fully sampled slice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctxrecon.coils import estimate_coil_maps, mvue
from ctxrecon.datasets.source import Slice, VolumeSource, central, check_size, digest
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.io.fastmri import fastmri_shape, read_fastmri
from ctxrecon.metadata import ScanMetadata, read_fastmri_plus

# Minimum sampled share between the first and the last line; full data contain a few exact zeros.
_MIN_SAMPLED = 0.95


class FastMRISource(VolumeSource):
    """Source of fully sampled fastMRI files, multi- or single-coil, prepared as in ContextMRI.

    Coil images are cropped to the center, which also removes the readout oversampling. ESPIRiT
    maps are estimated from the k-space of the cropped images and used for the MVUE image
    (arXiv:2501.04284, Methods).

    Args:
        size: Image size ``(ny, nx)``; volumes with smaller images are rejected.
        annotations: FastMRI+ table (``knee.csv``, ``brain.csv``) with the pathologies.

    Example:
        >>> from ctxrecon.datasets import FastMRISource
        >>> FastMRISource(size=(320, 320)).settings()
        {'size': [320, 320], 'annotations_sha256': None}
    """

    kind = "fastmri"
    suffixes = (".hdf5", ".h5")

    def __init__(
        self, *, size: tuple[int, int] = (320, 320), annotations: Path | None = None
    ) -> None:
        self.size = check_size(size)
        self._pathologies = {} if annotations is None else read_fastmri_plus(annotations)
        self._digest = None if annotations is None else digest(annotations)

    def settings(self) -> dict[str, Any]:
        """Return the size, and the annotations as a hash of their content."""
        return {"size": list(self.size), "annotations_sha256": self._digest}

    def slices(self, path: Path) -> Iterator[Slice | None]:
        """Yield the slices of a file, read one at a time."""
        (num_slices, _, ny, nx), _, _ = fastmri_shape(path)
        window = central(path, (ny, nx), self.size)
        name = self.name(path)
        for index in range(num_slices):
            scan = read_fastmri(path, index)
            if not bool(scan.kspace.any()):
                yield None
                continue
            _check_fully_sampled(path, scan.cartesian_mask[0, 0])
            known = scan.metadata[0] if scan.metadata else ScanMetadata(slice=index)
            found = self._pathologies.get((name, index), ())
            metadata = replace(known, pathologies=(*known.pathologies, *found))
            yield Slice(_combine(scan.kspace, window).numpy(), metadata)


def _combine(kspace: Tensor, window: tuple[slice, slice]) -> Tensor:
    """Return the MVUE image ``(ny, nx)`` of a window of fully sampled k-space ``(1, coils, …)``."""
    cropped = fft2c(ifft2c(kspace)[:, :, window[0], window[1]].contiguous())
    mask = torch.ones(1, 1, *cropped.shape[-2:], dtype=torch.bool)
    return mvue(cropped, estimate_coil_maps(cropped, mask, num_maps=1))[0]


def _check_fully_sampled(path: Path, mask: Tensor) -> None:
    """Validate that a mask ``(ny, nx)`` has no gaps; zero padding at the edges is allowed."""
    lines = mask.any(dim=0).nonzero().flatten()
    between = mask[:, int(lines[0]) : int(lines[-1]) + 1]
    sampled = between.float().mean().item()
    if not bool(between.any(dim=0).all()) or sampled < _MIN_SAMPLED:
        raise InputError(
            f"{path}: expected fully sampled k-space, got {100 * sampled:.0f} % sampled: "
            "omit the files of the test and challenge splits"
        )
