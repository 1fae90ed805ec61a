"""fastMRI HDF5 files ``*.h5`` (https://github.com/facebookresearch/fastMRI).

``kspace`` is ``(slices, coils, ny, nx)``, or ``(slices, ny, nx)`` for one coil, with the readout
(2x oversampled) along ``ny`` and the phase encoding along ``nx``, as everywhere in this package.
M4Raw files have the same layout, with one repetition per file. fastMRI's prostate files have an
additional first axis of averages.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ctxrecon.arrays import to_numpy
from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion, written_beside
from ctxrecon.io._arrays import (
    SliceChoice,
    build_scan,
    mean_of_measured,
    metadata_from_header,
    metadata_from_json,
    metadata_to_json,
    pick_slices,
    read_slices,
    remove_oversampling,
)
from ctxrecon.io._calibration import stated_calibration
from ctxrecon.io._choice import Choice, nth
from ctxrecon.io._complex import ComplexArray
from ctxrecon.io._header import EncodingHeader, check_cartesian, parse_header
from ctxrecon.io._place import stated_affine
from ctxrecon.io.hdf5 import decoded, hdf5_member, hdf5_text, open_hdf5
from ctxrecon.metadata import ScanMetadata
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

_FIRST = Choice()
_METADATA, _NOISE = "ctxrecon_metadata", "ctxrecon_noise_std"
_VOXEL_SIZE, _AFFINE = "ctxrecon_voxel_size", "ctxrecon_affine"
# Optional arrays, with the number of axes at which the first axis counts slices.
_OPTIONAL = {
    "mask": 3,
    "coil_maps": 4,
    "target": 3,
    "calibration": 4,
    "reconstruction_rss": 3,
    "reconstruction_esc": 3,
}


def _dataset(path: Path, file: Any, name: str) -> Any:
    import h5py

    dataset = hdf5_member(path, file, name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{path}: {name!r} is not an array: expected an HDF5 dataset")
    return dataset


def _kspace(path: Path, file: Any) -> tuple[ComplexArray, tuple[int, int, int, int, int]]:
    """Return the k-space and its shape (averages, slices, coils, ny, nx)."""
    dataset = _dataset(path, file, "kspace")
    if "temptv" in file or path.name.startswith("fastMRI_breast"):
        raise InputError(
            f"{path}: fastMRI's breast scans are radial stacks of stars without a trajectory: "
            "transform their partitions and save the spokes with a trajectory as ISMRMRD .h5"
        )
    array = ComplexArray(path, dataset)
    shape = array.shape
    if len(shape) not in {3, 4, 5} or min(shape) < 1 or min(shape[-2:]) < 2:
        raise InputError(
            f"{path}: expected fastMRI k-space (slices, coils, ny, nx), (slices, ny, nx) or "
            f"(averages, slices, coils, ny, nx), got shape {shape}"
        )
    if max(shape[:-2]) > path.stat().st_size:  # the slices are enumerated before they are read
        raise InputError(
            f"{path}: kspace states {max(shape[:-2])} slices, more than the file has bytes: it is "
            "damaged or untrustworthy"
        )
    full = {3: (1, shape[0], 1, *shape[1:]), 4: (1, *shape), 5: shape}[len(shape)]
    return array, (full[0], full[1], full[2], full[3], full[4])


def _read_kspace(
    path: Path, file: Any, slices: SliceChoice, average: int | None
) -> tuple[np.ndarray, Sequence[int]]:
    """Read the selected slices (batch, coils, ny, nx) of one average, or the mean of all."""
    array, (averages, num_slices, coils, ny, nx) = _kspace(path, file)
    chosen = pick_slices(path, slices, num_slices)
    wanted = range(averages)
    if average is not None:
        index = nth(path, np.arange(averages), average, "average")
        wanted = range(index, index + 1)
    stored = file["kspace"].id.get_storage_size()
    num_bytes = array.dtype.itemsize * len(wanted) * len(chosen) * coils * ny * nx
    check_expansion(path, num_bytes, stored, "kspace")
    if len(array.shape) < 5:
        return read_slices(array, chosen).reshape(len(chosen), coils, ny, nx), chosen
    parts = [np.stack([array[a, index] for index in chosen]) for a in wanted]
    if len(parts) == 1:
        return parts[0], chosen
    logger.info("%s: the mean of %d averages is read", path, averages)
    return mean_of_measured(np.stack(parts)), chosen


def _load(path: Path, dataset: Any, chosen: Sequence[int] | None = None) -> np.ndarray:
    """Load a dataset or its selected slices after validating that the stated size is plausible."""
    first = dataset.shape[:1] if chosen is None else (len(chosen),)
    num_bytes = dataset.dtype.itemsize * prod((*first, *dataset.shape[1:]))
    check_expansion(path, num_bytes, dataset.id.get_storage_size(), dataset.name.strip("/"))
    return read_slices(dataset, chosen) if chosen is not None else np.asarray(dataset[()])


def _header(path: Path, file: Any) -> tuple[str, EncodingHeader] | None:
    if "ismrmrd_header" not in file:
        return None
    xml = hdf5_text(path, hdf5_member(path, file, "ismrmrd_header"), "ismrmrd_header")
    header = parse_header(path, xml)
    check_cartesian(path, header)
    return xml, header


def _metadata(
    path: Path, file: Any, xml: str | None, chosen: Sequence[int]
) -> tuple[ScanMetadata, ...]:
    if _METADATA in file:
        text = hdf5_text(path, hdf5_member(path, file, _METADATA), _METADATA)
        items = metadata_from_json(path, text)
        if not items:
            return ()
        if len(items) <= max(chosen):
            raise InputError(
                f"{path}: its metadata describe {len(items)} slices, but its k-space has more"
            )
        return tuple(items[index] for index in chosen)
    acquisition = _acquisition(path, file)
    if xml is None and acquisition is None:
        return ()
    return metadata_from_header(path, chosen, xml, acquisition)


def _acquisition(path: Path, file: Any) -> str | None:
    """Return the file's ``acquisition``, a string or an array of one; ignore anything else."""
    value = file.attrs.get("acquisition")
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if value is None or isinstance(value, bytes | str):
        return None if value is None else decoded(path, value, "acquisition")
    logger.warning("%s: ignored its 'acquisition', which is not text: %.60r", path, value)
    return None


def _stated_voxel_size(path: Path, file: Any) -> tuple[float, float, float] | None:
    """Return the voxel size that :func:`write_fastmri` stored."""
    value = file.attrs.get(_VOXEL_SIZE)
    if value is None:
        return None
    edges = np.asarray(value)
    if edges.shape != (3,) or edges.dtype.kind != "f":
        raise InputError(f"{path}: expected {_VOXEL_SIZE!r} as three numbers, got {value!r:.40}")
    return (float(edges[0]), float(edges[1]), float(edges[2]))


def _padding(header: EncodingHeader | None, nx: int) -> tuple[int, int] | None:
    """Return the range ``[start, stop)`` of encoded lines; other lines of ``nx`` are padding."""
    if header is None or header.center is None or header.maximum is None:
        return None
    start = nx // 2 - header.center
    stop = start + header.maximum + 1
    return (start, stop) if 0 <= start < stop <= nx else None


def fastmri_shape(path: Path) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """Return (slices, coils, ny, nx) and dtype of the k-space, and further entries."""
    with open_hdf5(path) as file:
        array, layout = _kspace(path, file)
        stated = {"averages": layout[0]} if layout[0] > 1 else {}
        return layout[1:], array.dtype, stated


def read_fastmri(
    path: Path,
    slices: SliceChoice = None,
    *,
    crop_readout: bool = False,
    choice: Choice = _FIRST,
) -> Scan:
    """Read the selected slices of a fastMRI file.

    The mask is the file's (test and challenge splits), without the zero padding that the header
    states, or else inferred from zeros. The target is ``reconstruction_rss`` (or
    ``reconstruction_esc``) if its size matches the k-space. In the published files it does not, so
    the reference has to be computed from the fully sampled k-space.

    Args:
        path: The ``.h5`` file.
        slices: Slices to read; only these are loaded.
        crop_readout: Whether to crop the readout to the field of view of the header's image.
        choice: Average to read; by default each sample is the mean over the averages in which it
            was measured (fastMRI's prostate scans distribute the lines over three averages).
    """
    with open_hdf5(path) as file:
        num_slices = _kspace(path, file)[1][1]
        kspace, chosen = _read_kspace(path, file, slices, choice.average)
        ny, nx = kspace.shape[-2:]
        header = _header(path, file)
        metadata = _metadata(path, file, header[0] if header else None, chosen)
        voxel_size = _stated_voxel_size(path, file)
        if voxel_size is None and header is not None:
            voxel_size = header[1].voxel_size(ny, nx)
        stated = file.attrs.get(_AFFINE)
        affine = None if stated is None else stated_affine(path, np.asarray(stated), chosen)
        noise = file.attrs.get(_NOISE)
        if not isinstance(noise, float | None):
            raise InputError(
                f"{path}: expected {_NOISE!r} to be one number, got {str(noise)[:40]!r}"
            )
        arrays: dict[str, np.ndarray] = {}
        for name, ndim in _OPTIONAL.items():
            if name in file:
                values = _dataset(path, file, name)
                per_slice = len(values.shape) >= ndim and values.shape[0] == num_slices
                arrays[name] = _load(path, values, chosen if per_slice else None)
    encoding = header[1] if header else None
    mask = arrays.get("mask")
    lines = _padding(encoding, nx)
    if mask is not None and mask.size == nx and lines is not None:
        encoded = np.zeros(nx, bool)
        encoded[lines[0] : lines[1]] = True
        mask = np.where(encoded, mask.reshape(nx), 0)
    if crop_readout:
        if encoding is None:
            raise InputError(
                f"{path}: it has no ismrmrd_header, so the cropped readout size is unknown: read "
                "it with crop_readout=False"
            )
        ny = encoding.readout_size(ny)
        if mask is not None and mask.size != nx:
            raise InputError(
                f"{path}: its mask does not consist of whole lines, and cropping the readout would "
                "mix sampled and unsampled values: read it with crop_readout=False"
            )
        if mask is not None:
            kspace = kspace * mask.astype(bool)
        if affine is not None:
            affine[:, 3] += (kspace.shape[2] // 2 - ny // 2) * affine[:, 0]
        kspace = remove_oversampling(path, kspace, ny)
    scan = build_scan(
        path,
        kspace,
        mask=mask,
        coil_maps=arrays.get("coil_maps"),
        target=_target(path, arrays, (ny, nx)),
        metadata=metadata,
        noise_std=None if noise is None else float(noise),
        voxel_size=voxel_size,
        affine=affine,
    )
    return stated_calibration(path, scan, arrays.get("calibration"))


def _target(path: Path, arrays: dict[str, np.ndarray], size: tuple[int, int]) -> np.ndarray | None:
    for name in ("target", "reconstruction_rss", "reconstruction_esc"):
        if name not in arrays:
            continue
        if name == "target" or arrays[name].shape[-2:] == size:
            return arrays[name]
        logger.info(
            "%s: ignored %s of size %s, as the k-space has the image size %s",
            path,
            name,
            arrays[name].shape[-2:],
            size,
        )
    return None


def write_fastmri(path: Path, scan: Scan) -> None:
    """Write a scan in fastMRI's layout; reading the file returns the same scan."""
    import h5py

    names = ("kspace", "coil_maps", "target", "calibration")
    arrays = {name: getattr(scan, name) for name in names}
    mask = to_numpy(scan.cartesian_mask)
    by_lines = len(mask) == 1 and bool((mask == mask[:, :, :1]).all())
    # Written to memory first: on a full disk HDF5 can neither write nor close, and aborts.
    content = BytesIO()
    with h5py.File(content, "w") as file:
        for name, value in arrays.items():
            if value is not None:
                file.create_dataset(name, data=to_numpy(value), compression="lzf")
        file["mask"] = mask[0, 0, 0] if by_lines else mask
        if scan.metadata:
            file[_METADATA] = metadata_to_json(scan.metadata)
        if scan.noise_std is not None:
            file.attrs[_NOISE] = float(scan.noise_std)
        if scan.voxel_size is not None:
            file.attrs[_VOXEL_SIZE] = np.array(scan.voxel_size, np.float64)
        if scan.affine is not None:
            file.attrs[_AFFINE] = to_numpy(scan.affine)
    with written_beside(path) as temporary:
        temporary.write_bytes(content.getbuffer())
