"""Writing of NIfTI images ``.nii`` and ``.nii.gz``, through nibabel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.io._writing import check_single_precision

_SCANNER = 1
"""NIfTI code for scanner coordinates."""
_LARGEST_SIZE = 2**15 - 1
"""Number of pixels along an axis that the header can state, int16."""


def write_images(
    path: Path,
    images: np.ndarray,
    affine: np.ndarray | None = None,
    voxel_size: tuple[float, float, float] | None = None,
) -> tuple[Path, ...]:
    """Write ``(batch, ny, nx)`` images as a volume ``(nx, ny, batch)`` of float32 or complex64.

    With an affine, qform and sform are in scanner coordinates; if the slices are sheared, which a
    qform cannot represent, the qform code is 0 (unknown). Without an affine both codes are 0, and
    only the voxel size is meaningful.

    Args:
        path: ``.nii`` or ``.nii.gz`` file.
        images: Real or complex images.
        affine: Affine of shape ``(4, 4)`` from (y, x, slice) indices to mm in RAS+.
        voxel_size: Voxel size (ny, nx, slice) in mm if there is no affine (default: 1 mm).

    Raises:
        InputError: If nibabel is missing, an axis is too long, or values exceed single precision.
    """
    try:
        import nibabel
    except ImportError as error:
        raise InputError(
            f"cannot write {path}: NIfTI needs nibabel, install it with pip install nibabel"
        ) from error
    if max(images.shape) > _LARGEST_SIZE:
        raise InputError(
            f"cannot write {path}: NIfTI holds at most {_LARGEST_SIZE:,} pixels along an axis, got "
            f"images of shape {images.shape}: write .npy"
        )
    check_single_precision(path, images)
    dtype = np.complex64 if images.dtype.kind == "c" else np.float32
    image = nibabel.Nifti1Image(images.astype(dtype).transpose(2, 1, 0), None)
    if affine is None:
        dy, dx, dz = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size
        image.header.set_zooms((dx, dy, dz))
    else:
        stored = affine[:, [1, 0, 2, 3]]
        image.set_sform(stored, _SCANNER)
        image.set_qform(stored, _SCANNER)
        if not np.allclose(image.get_qform(), stored, atol=1e-3):
            image.set_qform(stored, 0)
    image.header.set_xyzt_units("mm")
    with written_beside(path) as temporary:
        nibabel.save(image, temporary)
    return (path,)
