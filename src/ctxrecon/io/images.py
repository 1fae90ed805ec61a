"""Writing of images to files of all formats."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ctxrecon.arrays import to_numpy
from ctxrecon.errors import InputError
from ctxrecon.io import bart, dicom, nifti, numpy_format, png
from ctxrecon.io.dicom import DicomHeader
from ctxrecon.scan import check_affine, check_voxel_size

Part: TypeAlias = Literal["magnitude", "phase", "complex"]
"""Part of complex images to store in a file."""


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
    """Write images in the format of the file extension, atomically.

    Args:
        path: Output file. ``.npy``, ``.npz`` (array ``images``) and BART ``.cfl`` store the values
            unchanged; ``.nii``, ``.nii.gz``, ``.dcm`` and ``.png`` store one ``part`` of them.
        images: Images of shape ``(batch, ny, nx)`` or ``(ny, nx)``, real or complex.
        affine: Affine of shape ``(4, 4)`` from (y, x, slice) indices to mm in RAS+, optional for
            NIfTI and required for DICOM; usually the ``affine`` of the scan.
        voxel_size: Voxel size (ny, nx, slice) in mm, for NIfTI without an affine (default: 1 mm);
            usually the ``voxel_size`` of the scan.
        part: ``"magnitude"``; for NIfTI and DICOM also ``"phase"`` in radians; for NIfTI also
            ``"complex"`` (complex64).
        montage: Whether to write one ``.png`` with all slices instead of one per slice (``_000``,
            ``_001``, …).
        header: Attributes of a DICOM series. With the quantity "phase", complex images are stored
            by their phase, real ones unchanged, as radians.
        single_frames: Whether to write one ``.dcm`` per slice (``_000``, ``_001``, …) instead of
            one Enhanced MR image.

    Returns:
        The files written.

    Raises:
        InputError: If the images are not finite numbers of this shape, or the format does not
            support an option.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from ctxrecon.io import write_image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     paths = write_image(Path(folder) / "image.png", torch.rand(2, 32, 32))
        >>> [path.name for path in paths]
        ['image_000.png', 'image_001.png']
    """
    path = Path(path)
    array = to_numpy(images) if isinstance(images, Tensor) else np.asarray(images)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape or array.dtype.kind not in "fciub":
        raise InputError(
            f"cannot write {path}: expected images (batch, ny, nx) of numbers, got shape "
            f"{array.shape} of {array.dtype}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"cannot write {path}: the images contain values that are not finite")
    place = _checked_place(path, affine, voxel_size)
    name = path.name.lower()
    if montage and not name.endswith(".png"):
        raise InputError(f"cannot write {path}: only PNG supports a montage, leave it out")
    if (single_frames or header is not None) and not name.endswith(".dcm"):
        raise InputError(
            f"cannot write {path}: only DICOM supports single_frames and header, leave them out"
        )
    if name.endswith((".nii", ".nii.gz")):
        return nifti.write_images(path, _part(path, array, part), place, voxel_size)
    if name.endswith(".dcm"):
        return _write_dicom(path, array, place, part, header, single_frames)
    if place is not None or voxel_size is not None:
        raise InputError(
            f"cannot write {path}: only NIfTI and DICOM store an affine or a voxel size, leave it "
            "out"
        )
    if part != "magnitude":
        raise InputError(
            f"cannot write {path}: only NIfTI and DICOM support another part, leave it out"
        )
    if name.endswith(".png"):
        return png.write_images(path, array, montage=montage)
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
    """Validate the affine and the voxel size, and return the affine as a NumPy array."""
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
    """Write a series of magnitudes, phases or maps."""
    if part == "complex":
        raise InputError(
            f"cannot write {path}: DICOM stores real numbers, write magnitude and phase separately"
        )
    if affine is None:
        raise InputError(
            f"cannot write {path}: DICOM needs the position of the image in the patient, which "
            "is unknown for these images: write NIfTI, or give the affine"
        )
    header = DicomHeader() if header is None else header
    if part == "phase":
        header = replace(header, quantity="phase")
    elif header.quantity == "phase" and np.iscomplexobj(images):
        part = "phase"
    # Real images of a phase are its radians, which have a sign.
    radians = header.quantity == "phase" and part == "magnitude"
    values = images if radians else _part(path, images, part)
    return dicom.write_images(path, values, affine, header, single_frames=single_frames)


def _part(path: Path, images: np.ndarray, part: Part) -> np.ndarray:
    """Return the magnitude, the phase in radians, or the complex values of images."""
    if part == "magnitude":
        return np.abs(images)
    if part == "phase":
        return np.angle(images)
    if part == "complex":
        return images.astype(np.complex64)
    raise InputError(
        f"cannot write {path}: expected the part magnitude, phase or complex, got {part!r}"
    )
