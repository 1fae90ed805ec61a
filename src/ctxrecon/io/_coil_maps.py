"""Coil maps from a separate file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.files import check_input
from ctxrecon.io import bart, numpy_format
from ctxrecon.io._arrays import SliceChoice, check_maps, pick_slices
from ctxrecon.scan import Scan


def with_coil_maps(
    scan: Scan,
    path: Path,
    coil_maps: str | os.PathLike[str],
    slices: SliceChoice,
    whitening: Tensor | None,
) -> Scan:
    """Return the scan with coil maps S from another file, ``W S`` if the scan was prewhitened by W.

    ``W y = W S F x`` then has the same image x as ``y = S F x``, in the same units.
    """
    maps_path = Path(coil_maps)
    if bart.is_bart(maps_path):
        maps = bart.read_maps(check_input(bart.data_file(maps_path)))
    elif maps_path.suffix.lower() == ".npy":
        maps = numpy_format.read_array(check_input(maps_path))
    else:
        raise InputError(f"{maps_path}: expected coil maps as .npy or .cfl")
    if maps.ndim == 3:
        maps = maps[None]
    if maps.ndim != 4:
        raise InputError(
            f"{maps_path}: expected coil maps (coils, ny, nx) or (slices, coils, ny, nx), "
            f"got shape {maps.shape}"
        )
    if len(maps) > 1:
        maps = maps[list(pick_slices(maps_path, slices, len(maps)))]
    checked = check_maps(maps_path, maps)
    try:
        scan = replace(scan, coil_maps=checked)
    except InputError as error:
        raise InputError(f"{maps_path} does not belong to {path}: {error}") from error
    if whitening is None:
        return scan
    return replace(scan, coil_maps=torch.einsum("dc,bcyx->bdyx", whitening, checked))
