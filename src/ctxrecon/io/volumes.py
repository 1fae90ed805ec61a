"""Image volumes in NIfTI files: as slices to measure, and as references of a scan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.files import check_input
from ctxrecon.nifti import StoredVolume, nibabel_for, read_stored
from ctxrecon.resampling import resample
from ctxrecon.scan import check_affine

_SUFFIXES = (".nii", ".nii.gz")
# Below minus this part of the largest value, negative ones are more than interpolation leaves.
_OVERSHOOT = 0.1
# Voxels whose edges differ by less have no thick edge that slices would lie across.
_ISOTROPIC = 1.5
# An axis with fewer voxels than this part of the longest one is that of a stack all the same.
_THIN = 0.25
# Where rows, columns and slices run, of slices across the axis to the right, front or head.
_VIEWS = (("I", "P", "R"), ("I", "L", "A"), ("P", "L", "S"))


class ImageVolume(NamedTuple):
    """Magnitude images of a volume, upright.

    Attributes:
        images: ``(slices, ny, nx)`` float32.
        voxel_size: (ny, nx, slice) in mm.
        affine: ``(4, 4)`` float64, see :class:`~ctxrecon.scan.Scan`; ``None`` where the file does
            not say where the volume lies.
    """

    images: Tensor
    voxel_size: tuple[float, float, float]
    affine: Tensor | None


def read_volume(path: str | os.PathLike[str]) -> ImageVolume:
    """Read a magnitude volume from a NIfTI file as slices; nothing is resampled.

    Slices lie across the thickest edge of the voxels, axial where there is none. Axial slices have
    the front up, coronal and sagittal ones the head; the right of the person is on the left, the
    face in sagittal ones too.

    Raises:
        InputError: one sentence with the file's name for anything that cannot be read.
    """
    path = Path(path)
    stored = _read(path)
    with nibabel_for(path) as nibabel:
        turns = nibabel.orientations
        native = turns.io_orientation(stored.affine)
        wanted = turns.axcodes2ornt(_VIEWS[_across(stored, native)])
        turn = turns.ornt_transform(native, wanted)
        turned = turns.apply_orientation(stored.data, turn)
        affine = torch.from_numpy(stored.affine @ turns.inv_ornt_aff(turn, stored.data.shape))
    dy, dx, dz = affine[:3, :3].norm(dim=0).tolist()
    images = np.ascontiguousarray(np.moveaxis(turned, 2, 0))
    return ImageVolume(torch.from_numpy(images), (dy, dx, dz), affine if stored.is_placed else None)


def read_reference(
    path: str | os.PathLike[str], affine: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """Read a magnitude volume from a NIfTI file onto the voxels of a scan.

    Args:
        path: of a volume of any matrix and orientation.
        affine: ``(4, 4)`` float64 of the scan, from (y, x, slice) to mm in RAS+.
        shape: (slices, ny, nx) of the scan.

    Returns:
        ``(slices, ny, nx)`` float32, see :func:`~ctxrecon.resampling.resample`.

    Raises:
        InputError: one sentence with the file's name for anything that cannot be read, a file that
            does not say where its volume lies, or a volume that lies elsewhere than the scan.
    """
    path = Path(path)
    stored = _read(path)
    if not stored.is_placed:
        raise InputError(
            f"{path} does not say where its volume lies (its qform and sform codes are 0): give "
            "the volume as the scanner's own converter wrote it"
        )
    slices, ny, nx = shape
    try:
        found = resample(stored.data, stored.affine, affine.cpu().numpy(), (ny, nx, slices))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(found, 2, 0)))


def _read(path: Path) -> StoredVolume:
    """The magnitudes in a NIfTI file, checked."""
    if not path.name.lower().endswith(_SUFFIXES):
        raise InputError(
            f"{path}: expected an image volume as .nii or .nii.gz, got "
            f"{path.suffix or 'no extension'}"
        )
    stored = read_stored(check_input(path))
    data = stored.data
    if not np.isfinite(data).all():
        raise InputError(f"{path}: its values are not all finite: the file is damaged")
    if not data.max() > 0:
        raise InputError(f"{path} is empty: expected magnitudes, got no value above 0")
    if data.min() < -_OVERSHOOT * data.max():
        raise InputError(
            f"{path}: expected magnitudes, got values down to {data.min():g}: leave out phase, "
            "real and imaginary parts"
        )
    try:
        check_affine(torch.from_numpy(stored.affine))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return stored._replace(data=np.maximum(data, 0))


def _across(stored: StoredVolume, native: NDArray[np.float64]) -> int:
    """The axis of the body that slices lie across: 0 to the right, 1 to the front, 2 to the head.

    Args:
        stored: the volume.
        native: nibabel's orientation of its axes.
    """
    edges, shape = np.linalg.norm(stored.affine[:3, :3], axis=0), stored.data.shape
    if edges.max() >= _ISOTROPIC * edges.min():
        return int(native[np.argmax(edges), 0])
    if min(shape) < _THIN * max(shape):
        return int(native[np.argmin(shape), 0])
    return 2
