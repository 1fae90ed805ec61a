"""NIfTI files from outside, by nibabel, which is imported when one is read."""

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


@contextmanager
def nibabel_for(path: Path) -> Iterator[Any]:
    """Give nibabel to read a file with, and make what it raises of damage an error of ours.

    Raises:
        InputError: nibabel is not installed, or the file is damaged.
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
    """A volume as a NIfTI file stores it.

    Attributes:
        data: three axes, float32.
        affine: ``(4, 4)`` float64, from indices to mm to the right, front and head.
        is_placed: whether the file says so itself; an affine that follows from the voxel size
            alone is no place.
    """

    data: NDArray[np.float32]
    affine: NDArray[np.float64]
    is_placed: bool


def read_stored(path: Path) -> StoredVolume:
    """The real volume in a NIfTI file.

    Raises:
        InputError: nibabel is missing, the file is damaged, or it is no real volume.
    """
    with nibabel_for(path) as nibabel:
        image: Any = nibabel.load(path)
        shape = tuple(map(int, image.shape))
        dtype = image.get_data_dtype()
        if dtype.kind not in "iuf":
            raise InputError(f"{path}: expected magnitudes as real numbers, got {dtype}")
        if len(shape) < 3 or math.prod(shape[3:]) != 1 or min(shape) < 1:
            raise InputError(
                f"{path}: expected a volume of three axes, got shape {shape}: give one volume of "
                "a series"
            )
        num_bytes = math.prod(shape) * max(dtype.itemsize, 4)
        check_expansion(path, num_bytes, path.stat().st_size, "the volume")
        data = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(shape[:3])
        if path.suffix.lower() == ".gz":
            _check_to_the_end(path)
        affine = np.asarray(image.affine, np.float64)
        codes = [int(image.header.get(name, 0)) for name in ("qform_code", "sform_code")]
    return StoredVolume(data, affine, any(codes))


def _check_to_the_end(path: Path) -> None:
    """Compare a compressed stream with its checksum, behind the last byte that nibabel reads.

    Raises:
        InputError: a stream that expands beyond all measure.
        OSError: another checksum or length.
    """
    stored, count = path.stat().st_size, 0
    with gzip.open(path) as file:
        while part := file.read(2**20):
            count += len(part)
            check_expansion(path, count, stored, "the compressed stream")
