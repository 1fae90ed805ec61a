"""Reading of untrusted NIfTI files through nibabel, which is imported lazily."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion

_MM = {"meter": 1e3, "micron": 1e-3}
"""Units of length other than mm that a header can state."""


@contextmanager
def nibabel_for(path: Path) -> Iterator[Any]:
    """Provide nibabel for reading a file, and convert its exceptions to InputError.

    Raises:
        InputError: If nibabel is not installed, or the file is damaged.
    """
    try:
        import nibabel
    except ImportError as error:
        raise InputError(f"{path} needs nibabel, install it with pip install nibabel") from error
    try:
        yield nibabel
    except InputError:
        raise
    except (
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
        np.linalg.LinAlgError,
        zlib.error,
        OSError,
        EOFError,
        ValueError,
        TypeError,
        OverflowError,
    ) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path} is not a readable NIfTI volume: {said:.200}") from error


class StoredVolume(NamedTuple):
    """Volume as stored in a NIfTI file.

    Attributes:
        data: Real values with three axes, float32.
        affine: Affine of shape ``(4, 4)``, float64, from indices to mm in RAS+.
        is_placed: Whether the file states the affine; otherwise the affine only reflects the voxel
            size.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    is_placed: bool


def read_stored(path: Path) -> StoredVolume:
    """Read the real-valued volume in a NIfTI file.

    Raises:
        InputError: If nibabel is missing, or the file is damaged or not a real-valued volume.
    """
    with nibabel_for(path) as nibabel:
        image: Any = nibabel.load(path)
        shape = tuple(map(int, image.shape))
        dtype = image.get_data_dtype()
        if dtype.kind not in "iuf":
            raise InputError(f"{path}: expected magnitudes as real numbers, got {dtype}")
        if len(shape) < 3 or math.prod(shape[3:]) != 1 or min(shape) < 1:
            raise InputError(
                f"{path}: expected a volume with three axes, got shape {shape}: give one volume of "
                "the series"
            )
        num_bytes = math.prod(shape) * max(dtype.itemsize, 4)
        check_expansion(path, num_bytes, path.stat().st_size, "the volume")
        data = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(shape[:3])
        check_to_the_end(path)
        affine = affine_in_mm(image)
        codes = [int(image.header.get(name, 0)) for name in ("qform_code", "sform_code")]
    return StoredVolume(data, affine, any(codes))


def affine_in_mm(image: Any) -> NDArray[np.float64]:
    """Return the affine ``(4, 4)`` of a nibabel image in mm, whatever unit its header states."""
    affine = np.array(image.affine, np.float64)
    units = getattr(image.header, "get_xyzt_units", lambda: ("mm", "sec"))()
    affine[:3] *= _MM.get(units[0], 1.0)
    return affine


def check_to_the_end(path: Path) -> None:
    """Decompress a whole ``.gz`` file to verify its checksum, which nibabel does not reach.

    Raises:
        InputError: If the stream expands implausibly.
        OSError: If the checksum or the length is wrong.
    """
    if path.suffix.lower() != ".gz":
        return
    stored, count = path.stat().st_size, 0
    with gzip.open(path) as file:
        while part := file.read(2**20):
            count += len(part)
            check_expansion(path, count, stored, "the compressed stream")
