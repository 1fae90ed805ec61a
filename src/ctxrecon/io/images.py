"""Images to files of every format."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.io import bart, dicom, nifti, numpy_format, png
from ctxrecon.io.dicom import DicomHeader
from ctxrecon.scan import check_affine, check_voxel_size

Part: TypeAlias = Literal["magnitude", "phase", "complex"]
"""What a file holds of complex images."""


def write_image(
    path: str | os.PathLike[str],
    images: Tensor | np.ndarray,
    *,
    affine: Tensor | np.ndarray | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    part: Part = "magnitude",
    montage: bool = False,
    header: DicomHeader | None = None,
    single_frames: bool = False,
) -> tuple[Path, ...]:
    """Write images in the format that the extension names, beside and then renamed.

    Args:
        path: ``.npy``, ``.npz`` (under ``images``) and BART ``.cfl`` keep the values as they are;
            ``.nii``, ``.nii.gz``, ``.dcm`` and ``.png`` hold one ``part`` of them.
        images: ``(batch, ny, nx)`` or ``(ny, nx)``, real or complex.
        affine: ``(4, 4)`` from (y, x, slice) to mm in RAS+, for NIfTI and DICOM, which needs it. A
            scan's ``affine`` belongs here, where it has one.
        voxel_size: (ny, nx, slice) in mm, for NIfTI where the affine is not known; 1 mm where it is
            not known either. A scan's ``voxel_size`` belongs here.
        part: ``"magnitude"``, ``"phase"`` in radians, for NIfTI and DICOM, or ``"complex"``
            (complex64), for NIfTI.
        montage: one ``.png`` with all slices instead of one a slice (``_000``, ``_001``, …).
        header: for DICOM, what the images are.
        single_frames: one ``.dcm`` a slice (``_000``, ``_001``, …) instead of an Enhanced MR image
            of all.

    Returns:
        The files written.
    """
    path = Path(path)
    array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "fciub":
        raise InputError(
            f"cannot write {path}: expected images (batch, ny, nx) of numbers, got shape "
            f"{array.shape} of {array.dtype}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"cannot write {path}: the images hold values that are not finite")
    place = _checked_place(path, affine, voxel_size)
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return nifti.write_images(path, _part(path, array, part), place, voxel_size)
    if name.endswith(".dcm"):
        return _write_dicom(path, array, place, part, header, single_frames)
    if place is not None or voxel_size is not None:
        raise InputError(
            f"cannot write {path}: only NIfTI and DICOM keep an affine or a voxel size, leave it "
            "out"
        )
    if part != "magnitude":
        raise InputError(
            f"cannot write {path}: only NIfTI and DICOM take another part, leave it out"
        )
    if name.endswith(".png"):
        return png.write_images(path, array, montage=montage)
    if montage:
        raise InputError(f"cannot write {path}: only PNG makes a montage, leave it out")
    if name.endswith((".npy", ".npz")):
        return numpy_format.write_images(path, array)
    if name.endswith(".cfl"):
        return bart.write_images(path, array)
    raise InputError(
        f"cannot write {path}: expected .npy, .npz, .cfl, .nii, .nii.gz, .dcm or .png, got "
        f"{path.suffix or 'no extension'}"
    )


def _checked_place(
    path: Path,
    affine: Tensor | np.ndarray | None,
    voxel_size: tuple[float, float, float] | None,
) -> np.ndarray | None:
    """The affine in NumPy, after it and the voxel size were looked at."""
    place = None if affine is None else torch.as_tensor(affine, dtype=torch.float64).cpu()
    try:
        if voxel_size is not None:
            check_voxel_size(voxel_size)
        if place is not None:
            check_affine(place)
    except InputError as error:
        raise InputError(f"cannot write {path}: {error}") from error
    return None if place is None else place.numpy()


def _write_dicom(
    path: Path,
    images: np.ndarray,
    affine: np.ndarray | None,
    part: Part,
    header: DicomHeader | None,
    single_frames: bool,
) -> tuple[Path, ...]:
    """A series of magnitudes, phases or maps."""
    if part == "complex":
        raise InputError(
            f"cannot write {path}: DICOM holds real numbers, write magnitude and phase apart"
        )
    if affine is None:
        raise InputError(
            f"cannot write {path}: DICOM states where in the patient an image lies, and that "
            "of these images is unknown: write NIfTI, or give the affine"
        )
    header = DicomHeader() if header is None else header
    if part == "phase":
        header = replace(header, quantity="phase")
    values = _part(path, images, part)
    return dicom.write_images(path, values, affine, header, single_frames=single_frames)


def _part(path: Path, images: np.ndarray, part: Part) -> np.ndarray:
    """Magnitude, phase in radians, or the complex values of images."""
    if part == "magnitude":
        return np.abs(images)
    if part == "phase":
        return np.angle(images)
    if part == "complex":
        return images.astype(np.complex64)
    raise InputError(
        f"cannot write {path}: expected the part magnitude, phase or complex, got {part!r}"
    )
