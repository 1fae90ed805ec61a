"""NumPy ``.npy`` and ``.npz``: k-space with what belongs to it, never pickled objects."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from ctxrecon.errors import InputError
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
from ctxrecon.io._files import check_expansion, written_beside
from ctxrecon.metadata import ScanMetadata
from ctxrecon.scan import Scan

# What NumPy raises for damaged headers, which are Python literals.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    SyntaxError,
    EOFError,
    RecursionError,
    tokenize.TokenError,
    zlib.error,
)


def _header(path: Path, file: IO[bytes], num_bytes: int, name: str) -> tuple[Any, np.dtype, int]:
    """Shape, dtype and data offset of a ``.npy``, once they agree with its real size."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"format version {version}")
    except _HEADER_ERRORS as error:
        raise InputError(
            f"{path}: the NumPy header of {name} cannot be read, save it again with numpy.save "
            f"({' '.join(str(error).split())[:120]})"
        ) from error
    if dtype.hasobject:
        raise InputError(
            f"{path}: {name} holds pickled Python objects, which are never loaded: "
            "save plain numbers or strings"
        )
    expected = dtype.itemsize
    for length in shape:
        expected *= length  # Python integers: no overflow
    offset = file.tell()
    if min(shape, default=1) < 0 or expected != num_bytes - offset:
        raise InputError(
            f"{path} is truncated or damaged: {name} of shape {shape} {dtype} needs {expected} "
            f"bytes, {num_bytes - offset} are there"
        )
    return shape, dtype, offset


def read_array(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, memory-mapped, after its header was checked."""
    with path.open("rb") as file:
        shape, _, _ = _header(path, file, path.stat().st_size, "the array")
    if 0 in shape:
        raise InputError(f"{path}: the array of shape {shape} is empty: nothing was measured")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def npy_shape(path: Path) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """(slices, coils, ny, nx) and dtype of the k-space in a ``.npy`` file."""
    array = read_array(path)
    check_complex(path, array.dtype)
    return kspace_layout(path, array.shape), array.dtype, {}


def read_npy(path: Path, slices: SliceChoice = None) -> Scan:
    """Read complex k-space ``(ny, nx)``, ``(coils, ny, nx)`` or ``(slices, coils, ny, nx)``."""
    layout, _, _ = npy_shape(path)
    kspace = read_array(path).reshape(layout)
    return build_scan(path, read_slices(kspace, pick_slices(path, slices, layout[0])))


class _Archive:
    """A ``.npz`` whose members are checked before they are decompressed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"{path} is truncated or is not a NumPy .npz archive ({error})"
            ) from error
        self.names = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def shape(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        info = self.names[name]
        check_expansion(self.path, info.file_size, info.compress_size, name)
        try:
            with self._zip.open(info) as member:
                shape, dtype, _ = _header(self.path, member, info.file_size, name)
        except (zipfile.BadZipFile, OSError, RuntimeError) as error:
            raise InputError(f"{self.path} is damaged: {name} cannot be read ({error})") from error
        return shape, dtype

    def get(self, name: str) -> np.ndarray | None:
        if name not in self.names:
            return None
        self.shape(name)
        try:
            with self._zip.open(self.names[name]) as member:
                return np.lib.format.read_array(member, allow_pickle=False)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
            raise InputError(f"{self.path} is damaged: {name} cannot be read ({error})") from error

    def kspace_shape(self) -> tuple[tuple[int, int, int, int], np.dtype]:
        if "kspace" not in self.names:
            found = ", ".join(sorted(self.names)[:8]) or "nothing"
            raise InputError(
                f"{self.path}: expected an array named 'kspace', found {found}: save it with "
                "numpy.savez(file, kspace=...)"
            )
        shape, dtype = self.shape("kspace")
        check_complex(self.path, dtype)
        return kspace_layout(self.path, shape), dtype


def npz_shape(path: Path) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """(slices, coils, ny, nx) and dtype of the k-space in a ``.npz`` archive."""
    with _Archive(path) as archive:
        return *archive.kspace_shape(), {}


def _text_metadata(path: Path, archive: _Archive, num_slices: int) -> tuple[ScanMetadata, ...]:
    """Metadata from the JSON string ``metadata`` or, where it is absent, from ``prompts``."""
    for name in ("metadata", "prompts"):
        values = archive.get(name)
        if values is None:
            continue
        if values.dtype.kind != "U":
            raise InputError(f"{path}: expected strings in {name!r}, got {values.dtype}")
        if name == "metadata":
            if values.size != 1:
                raise InputError(f"{path}: expected one JSON string in 'metadata'")
            items = metadata_from_json(path, str(values.reshape(())))
        else:
            items = metadata_from_prompts(path, [str(text) for text in values.reshape(-1)])
        if len(items) not in {0, num_slices}:
            raise InputError(
                f"{path}: expected {name} for each of the {num_slices} slices, got {len(items)}"
            )
        return items
    return ()


def read_npz(path: Path, slices: SliceChoice = None) -> Scan:
    """Read ``kspace`` and, where present, ``mask``, ``coil_maps``, ``target``, ``prompts``.

    ``prompts`` is an array of strings, one a slice; files written by this package also hold
    ``metadata`` (JSON) and ``noise_std``. Arrays with one entry a slice are cut to the chosen
    slices.
    """
    with _Archive(path) as archive:
        layout, _ = archive.kspace_shape()
        num_slices = layout[0]
        chosen = pick_slices(path, slices, num_slices)
        arrays = {name: archive.get(name) for name in ("kspace", "mask", "coil_maps", "target")}
        items = _text_metadata(path, archive, num_slices)
        noise = archive.get("noise_std")
    if noise is not None and (noise.size != 1 or noise.dtype.kind not in "fiu"):
        raise InputError(f"{path}: expected one number in 'noise_std', got shape {noise.shape}")
    kspace = arrays["kspace"]
    assert kspace is not None

    def pick(name: str, ndim: int) -> np.ndarray | None:
        value = arrays[name]
        per_slice = value is not None and value.ndim >= ndim and value.shape[0] == num_slices > 1
        return value[chosen] if value is not None and per_slice else value

    return build_scan(
        path,
        kspace.reshape(layout)[chosen],
        mask=pick("mask", 3),
        coil_maps=pick("coil_maps", 4),
        target=pick("target", 3),
        metadata=tuple(items[index] for index in chosen) if items else (),
        noise_std=None if noise is None else float(noise.reshape(())),
    )


def write_npz(path: Path, scan: Scan) -> None:
    """Write everything a scan holds; :func:`read_npz` gives the same scan back."""
    arrays: dict[str, Any] = {"kspace": scan.kspace.cpu().numpy(), "mask": scan.mask.cpu().numpy()}
    for name in ("coil_maps", "target"):
        value = getattr(scan, name)
        if value is not None:
            arrays[name] = value.cpu().numpy()
    if scan.metadata:
        arrays["metadata"] = np.array(metadata_to_json(scan.metadata))
        arrays["prompts"] = np.array([item.to_prompt() for item in scan.metadata])
    if scan.noise_std is not None:
        arrays["noise_std"] = np.array(scan.noise_std)
    with written_beside(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def write_images(path: Path, images: np.ndarray) -> tuple[Path, ...]:
    """Write ``(batch, ny, nx)`` images to ``.npy``, or to ``.npz`` under the name ``images``."""
    with written_beside(path) as temporary, temporary.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez_compressed(file, images=images)
        else:
            np.save(file, images, allow_pickle=False)
    return (path,)
