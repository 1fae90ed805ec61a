"""The place of a scan as files of this package state it."""

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
    """The affine that a file states of all its slices, for the chosen ones."""
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
