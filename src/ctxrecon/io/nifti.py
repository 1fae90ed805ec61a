"""NIfTI ``.nii`` and ``.nii.gz`` images, through nibabel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.io._writing import check_single_precision

_SCANNER = 1
"""NIfTI's code for coordinates of the scanner."""


def write_images(
    path: Path,
    images: np.ndarray,
    affine: np.ndarray | None = None,
    voxel_size: tuple[float, float, float] | None = None,
) -> tuple[Path, ...]:
    """Write ``(batch, ny, nx)`` images as a volume ``(nx, ny, batch)`` of float32 or complex64.

    With an affine, qform and sform are in scanner coordinates; the qform of slices that are stacked
    obliquely, which it cannot hold, says that it is unknown. Without, both say so, and only the
    voxel size counts.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        images: real or complex.
        affine: ``(4, 4)`` from (y, x, slice) to mm in RAS+.
        voxel_size: (ny, nx, slice) in mm where there is no affine; 1 mm where it is not known.
    """
    try:
        import nibabel
    except ImportError as error:
        raise InputError(
            f"cannot write {path}: NIfTI needs nibabel, install it with pip install nibabel"
        ) from error
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
