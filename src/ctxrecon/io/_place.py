"""Position of a scan as stated in files that this package wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ctxrecon.errors import InputError
from ctxrecon.scan import affine_of_slices, check_affine


def stated_affine(
    path: Path, values: np.ndarray | None, chosen: Sequence[int]
) -> torch.Tensor | None:
    """Return the affine of the selected slices from a file's affine of all slices."""
    if values is None:
        return None
    if values.shape != (4, 4) or values.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: expected the affine as (4, 4) numbers, got {values.dtype} of shape "
            f"{values.shape}"
        )
    affine = torch.from_numpy(np.array(values, np.float64))
    try:
        check_affine(affine)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return affine_of_slices(affine, chosen)
