"""NumPy ``.npy`` and ``.npz`` files of k-space and associated arrays, without pickle."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.arrays import to_numpy
from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.io._arrays import (
    SliceChoice,
    build_scan,
    check_complex,
    kspace_layout,
    metadata_from_json,
    metadata_from_prompts,
    metadata_to_json,
    pick_slices,
    read_slices,
)
from ctxrecon.io._calibration import stated_calibration
from ctxrecon.io._complex import ComplexArray
from ctxrecon.io._place import stated_affine
from ctxrecon.metadata import ScanMetadata
from ctxrecon.npz import Archive, array_layout
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

# Optional arrays, with the number of axes at which the first axis counts slices.
_ARRAYS = {"kspace": 4, "mask": 3, "coil_maps": 4, "target": 3, "calibration": 4}
_OTHERS = ("metadata", "prompts", "noise_std", "voxel_size", "affine")


def read_array(path: Path) -> np.ndarray:
    """Memory-map the array of a ``.npy`` file after validating its header."""
    with path.open("rb") as file:
        shape = array_layout(path, file, path.stat().st_size, "the array").shape
    if 0 in shape:
        raise InputError(f"{path}: the array of shape {shape} is empty: nothing was measured")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def npy_shape(path: Path) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """Return (slices, coils, ny, nx) and dtype of the k-space in a ``.npy`` file."""
    array = ComplexArray(path, read_array(path))
    return kspace_layout(path, array.shape), array.dtype, {}


def read_npy(path: Path, slices: SliceChoice = None) -> Scan:
    """Read k-space ``(ny, nx)``, ``(coils, ny, nx)`` or ``(slices, coils, ny, nx)``.

    The array is complex, or real with an additional first or last axis of real and imaginary parts.
    """
    array = ComplexArray(path, read_array(path))
    layout = kspace_layout(path, array.shape)
    chosen = pick_slices(path, slices, layout[0])
    if len(array.shape) == 4:
        return build_scan(path, read_slices(array, chosen))
    return build_scan(path, np.concatenate([array[...].reshape(layout)] * len(chosen)))


def _kspace_shape(archive: Archive) -> tuple[tuple[int, int, int, int], np.dtype]:
    """Return (slices, coils, ny, nx) and dtype of the array named ``kspace``."""
    if "kspace" not in archive.names:
        found = ", ".join(sorted(archive.names)[:8]) or "nothing"
        raise InputError(
            f"{archive.path}: expected an array named 'kspace', found {found}: save it with "
            "numpy.savez(file, kspace=...)"
        )
    layout = archive.layout("kspace")
    check_complex(archive.path, layout.dtype)
    return kspace_layout(archive.path, layout.shape), layout.dtype


def npz_shape(path: Path) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """Return (slices, coils, ny, nx) and dtype of the k-space in a ``.npz`` archive."""
    with Archive(path) as archive:
        return *_kspace_shape(archive), {}


def _text_metadata(path: Path, archive: Archive, num_slices: int) -> tuple[ScanMetadata, ...]:
    """Read metadata from the JSON string ``metadata`` or, if it is absent, from ``prompts``."""
    for name in ("metadata", "prompts"):
        values = archive.get(name)
        if values is None:
            continue
        if values.dtype.kind != "U":
            raise InputError(f"{path}: expected strings in {name!r}, got {values.dtype}")
        try:
            texts = [str(text) for text in values.reshape(-1)]
        except ValueError as error:
            raise InputError(f"{path}: {name!r} is not text ({error})") from error
        if name == "metadata":
            if len(texts) != 1:
                raise InputError(f"{path}: expected one JSON string in 'metadata'")
            items = metadata_from_json(path, texts[0])
        else:
            items = metadata_from_prompts(path, texts)
        if len(items) not in {0, num_slices}:
            raise InputError(
                f"{path}: expected {name} for each of the {num_slices} slices, got {len(items)}"
            )
        return items
    return ()


def read_npz(path: Path, slices: SliceChoice = None) -> Scan:
    """Read ``kspace`` and, if present, ``mask``, ``coil_maps``, ``target`` and ``prompts``.

    ``prompts`` is an array of strings, one per slice. Files written by this package also contain
    ``metadata`` (JSON), ``noise_std``, ``voxel_size``, ``affine`` and ``calibration``. Of arrays
    with one entry per slice, only the selected entries are kept.
    """
    with Archive(path) as archive:
        layout, _ = _kspace_shape(archive)
        unknown = sorted(set(archive.names) - {*_ARRAYS, *_OTHERS})
        if unknown:
            named = ", ".join(repr(name[:40]) for name in unknown[:8])
            logger.warning("%s: ignored %d arrays of unknown name: %s", path, len(unknown), named)
        num_slices = layout[0]
        chosen = pick_slices(path, slices, num_slices)
        arrays = {}
        for name, ndim in _ARRAYS.items():
            shape = archive.layout(name).shape if name in archive.names else ()
            per_slice = len(shape) >= ndim and shape[0] == num_slices > 1
            arrays[name] = archive.get(name, chosen if per_slice else None)
        items = _text_metadata(path, archive, num_slices)
        noise, edges = archive.get("noise_std"), archive.get("voxel_size")
        affine = stated_affine(path, archive.get("affine"), chosen)
    if noise is not None and (noise.size != 1 or noise.dtype.kind not in "fiu"):
        raise InputError(f"{path}: expected one number in 'noise_std', got shape {noise.shape}")
    if edges is not None and (edges.shape != (3,) or edges.dtype.kind not in "fiu"):
        raise InputError(f"{path}: expected three numbers in 'voxel_size', got {edges.shape}")
    kspace = arrays["kspace"]
    assert kspace is not None
    scan = build_scan(
        path,
        kspace.reshape((-1, *layout[1:])),
        mask=arrays["mask"],
        coil_maps=arrays["coil_maps"],
        target=arrays["target"],
        metadata=tuple(items[index] for index in chosen) if items else (),
        noise_std=None if noise is None else float(noise.reshape(())),
        voxel_size=None if edges is None else (float(edges[0]), float(edges[1]), float(edges[2])),
        affine=affine,
    )
    return stated_calibration(path, scan, arrays["calibration"])


def write_npz(path: Path, scan: Scan) -> None:
    """Write a scan; :func:`read_npz` returns the same scan."""
    arrays: dict[str, Any] = {
        "kspace": to_numpy(scan.kspace),
        "mask": to_numpy(scan.cartesian_mask),
    }
    for name in ("coil_maps", "target", "calibration"):
        value = getattr(scan, name)
        if value is not None:
            arrays[name] = to_numpy(value)
    if scan.metadata:
        arrays["metadata"] = np.array(metadata_to_json(scan.metadata))
        arrays["prompts"] = np.array([item.to_prompt() for item in scan.metadata])
    if scan.noise_std is not None:
        arrays["noise_std"] = np.array(scan.noise_std)
    if scan.voxel_size is not None:
        arrays["voxel_size"] = np.array(scan.voxel_size, np.float64)
    if scan.affine is not None:
        arrays["affine"] = to_numpy(scan.affine)
    with written_beside(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_images(path: Path, images: np.ndarray) -> tuple[Path, ...]:
    """Write ``(batch, ny, nx)`` images to ``.npy``, or to ``.npz`` as the array ``images``."""
    with written_beside(path) as temporary, temporary.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez_compressed(file, images=images)
        else:
            np.save(file, images, allow_pickle=False)
    return (path,)
