"""NIfTI ``.nii`` and ``.nii.gz`` images, through nibabel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.io._arrays import check_single_precision


def write_images(
    path: Path, images: np.ndarray, voxel_size: tuple[float, float, float] | None
) -> tuple[Path, ...]:
    """Write the magnitude of ``(batch, ny, nx)`` images as a float32 volume ``(nx, ny, batch)``.

    The scan's place in the patient is not known, and the file says so: its qform and sform codes
    are 0, and only the voxel size counts.
    """
    try:
        import nibabel
    except ImportError as error:
        raise InputError(
            f"cannot write {path}: NIfTI needs nibabel, install it with pip install nibabel"
        ) from error
    check_single_precision(path, images)
    dy, dx, dz = (1.0, 1.0, 1.0) if voxel_size is None else voxel_size
    volume = np.abs(images).astype(np.float32).transpose(2, 1, 0)
    image = nibabel.Nifti1Image(volume, None)
    image.header.set_zooms((dx, dy, dz))
    image.header.set_xyzt_units("mm")
    with written_beside(path) as temporary:
        nibabel.save(image, temporary)
    return (path,)
