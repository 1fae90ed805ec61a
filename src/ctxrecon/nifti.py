"""NIfTI files from outside, by nibabel, which is imported when one is read."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.errors import InputError


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
