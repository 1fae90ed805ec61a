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
    total: int,
    whitening: Tensor | None,
) -> Scan:
    """Return the scan with coil maps S from another file, ``W S`` if the scan was prewhitened by W.

    ``W y = W S F x`` then has the same image x as ``y = S F x``, in the same units.

    Args:
        scan: Chosen slices of a scan.
        path: File of the scan.
        coil_maps: File of the coil maps, of one slice or of all of the scan's.
        slices: Chosen slices.
        total: Number of slices in the scan's file.
        whitening: Prewhitening matrix W, or ``None``.

    Raises:
        InputError: If the file does not hold coil maps of this scan.
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
    check_total(maps_path, len(maps), path, total)
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


def check_total(other: Path, found: int, path: Path, total: int) -> None:
    """Validate that another file has one slice, or as many as the scan's file.

    Raises:
        InputError: If it has not.
    """
    if found not in {1, total}:
        raise InputError(
            f"{other} does not belong to {path}: it has {found} slices and the scan {total}"
        )
