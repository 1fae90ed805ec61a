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

# Of the samples between the first and the last line; a fully sampled one has a few exact zeros.
_MIN_SAMPLED = 0.95


class FastMRISource(VolumeSource):
    """Fully sampled fastMRI files, multi-coil or single-coil, prepared as ContextMRI does.

    Coil images are cropped to the centre, which also removes the readout oversampling; from the
    k-space of the cropped images come the ESPIRiT maps, and with them the MVUE image
    (arXiv:2501.04284, Methods).

    Args:
        size: ``(ny, nx)`` of the images; a volume with smaller ones is refused.
        annotations: fastMRI+ table (``knee.csv``, ``brain.csv``) with the pathologies.
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
        """Size, and the annotations by their content."""
        return {"size": list(self.size), "annotations_sha256": self._digest}

    def slices(self, path: Path) -> Iterator[Slice | None]:
        """The slices of a file, read one at a time."""
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
    """MVUE image ``(ny, nx)`` of the window of fully sampled k-space ``(1, coils, …)``."""
    cropped = fft2c(ifft2c(kspace)[:, :, window[0], window[1]].contiguous())
    mask = torch.ones(1, 1, *cropped.shape[-2:], dtype=torch.bool)
    return mvue(cropped, estimate_coil_maps(cropped, mask, num_maps=1))[0]


def _check_fully_sampled(path: Path, mask: Tensor) -> None:
    """Refuse a mask ``(ny, nx)`` with gaps; zero padding beyond the outermost lines is none."""
    lines = mask.any(dim=0).nonzero().flatten()
    between = mask[:, int(lines[0]) : int(lines[-1]) + 1]
    sampled = between.float().mean().item()
    if not bool(between.any(dim=0).all()) or sampled < _MIN_SAMPLED:
        raise InputError(
            f"{path}: expected fully sampled k-space, only {100 * sampled:.0f} % of it is sampled: "
            "leave out the files of the test and challenge splits"
        )
