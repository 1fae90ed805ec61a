"""Image volumes in NIfTI files, read as slices for simulation or as references for a scan."""

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
# Relative size of negative values up to which they are attributed to interpolation.
_OVERSHOOT = 0.1
# Ratio of voxel edges below which a volume has no preferred slice direction.
_ISOTROPIC = 1.5
# Relative length below which an axis of isotropic voxels is nevertheless the slice direction.
_THIN = 0.25
# Directions of rows, columns and slices, for slices across the right, front and head axis.
_VIEWS = (("I", "P", "R"), ("I", "L", "A"), ("P", "L", "S"))


class ImageVolume(NamedTuple):
    """Magnitude images of a volume in upright orientation.

    Attributes:
        images: Magnitudes of shape ``(slices, ny, nx)``, float32.
        voxel_size: Voxel size (ny, nx, slice) in mm.
        affine: Affine of shape ``(4, 4)``, float64, see :class:`~ctxrecon.scan.Scan`, or ``None``
            if the file does not state the position of the volume.
    """

    images: Tensor
    voxel_size: tuple[float, float, float]
    affine: Tensor | None


def read_volume(path: str | os.PathLike[str]) -> ImageVolume:
    """Read a magnitude volume from a NIfTI file as slices, without resampling.

    Slices are orthogonal to the longest voxel edge, or axial if voxels are nearly isotropic. The
    top of the image is anterior in axial slices and superior in coronal and sagittal slices; the
    left of the image is the person's right side or, in sagittal slices, the face.

    Args:
        path: NIfTI file.

    Raises:
        InputError: If the file cannot be read, or does not contain magnitudes; the message names
            the file.
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
    """Resample a magnitude volume from a NIfTI file to the voxels of a scan.

    Args:
        path: NIfTI volume of any matrix and orientation.
        affine: Affine of the scan, shape ``(4, 4)``, float64, from (y, x, slice) indices to mm in
            RAS+.
        shape: Size (slices, ny, nx) of the scan.

    Returns:
        Magnitudes of shape ``(slices, ny, nx)``, float32, see
        :func:`~ctxrecon.resampling.resample`.

    Raises:
        InputError: If the file cannot be read, does not state the position of its volume, or its
            volume does not overlap the scan; the message names the file.
    """
    path = Path(path)
    stored = _read(path)
    if not stored.is_placed:
        raise InputError(
            f"{path} does not state the position of its volume (its qform and sform codes are 0): "
            "use the volume as the scanner's own converter wrote it"
        )
    slices, ny, nx = shape
    try:
        found = resample(stored.data, stored.affine, affine.cpu().numpy(), (ny, nx, slices))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(found, 2, 0)))


def _read(path: Path) -> StoredVolume:
    """Read and validate the magnitudes in a NIfTI file."""
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
            f"{path}: expected magnitudes, got values down to {data.min():g}: do not use phase, "
            "real and imaginary parts"
        )
    try:
        check_affine(torch.from_numpy(stored.affine))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return stored._replace(data=np.maximum(data, 0))


def _across(stored: StoredVolume, native: NDArray[np.float64]) -> int:
    """Return the body axis orthogonal to the slices: 0 right, 1 anterior, 2 superior.

    Args:
        stored: Volume.
        native: Orientation of its axes from nibabel.
    """
    edges, shape = np.linalg.norm(stored.affine[:3, :3], axis=0), stored.data.shape
    if edges.max() >= _ISOTROPIC * edges.min():
        return int(native[np.argmax(edges), 0])
    if min(shape) < _THIN * max(shape):
        return int(native[np.argmin(shape), 0])
    return 2
