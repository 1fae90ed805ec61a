"""Scan files to :class:`~ctxrecon.scan.Scan` and back; one module a format.

========================  ==========================================  =====================
format                    k-space axes in the file                    read, write
========================  ==========================================  =====================
NumPy ``.npy``            ([[slices,] coils,] ny, nx)                 scan; images
NumPy ``.npz``            the same, under ``kspace``                  scan, images; both
fastMRI ``.h5``           (slices, [coils,] ny, nx)                   scan; scan
ISMRMRD ``.h5``           single readouts with encoding or trajectory scan
BART ``.cfl`` + ``.hdr``  0 readout, 1 phase, 3 coil, 13 slice        scan; images
NIfTI ``.nii[.gz]``       (nx, ny, slices), with their place          images (write)
DICOM ``.dcm``            one Enhanced MR file, or one file a slice    images (write)
PNG ``.png``              one file a slice, or a montage; magnitude   images (write)
========================  ==========================================  =====================

Everywhere ``ny`` is the readout and ``nx`` the phase encoding. Files are not trusted: nothing is
unpickled, no link out of a file is followed, and sizes are checked before memory is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.files import check_input, sniff
from ctxrecon.io import bart, fastmri, ismrmrd, numpy_format
from ctxrecon.io._arrays import SliceChoice, check_maps, override_metadata, pick_slices
from ctxrecon.io._choice import Choice
from ctxrecon.io.dicom import DicomHeader
from ctxrecon.io.hdf5 import open_hdf5
from ctxrecon.io.images import write_image
from ctxrecon.metadata import ScanMetadata
from ctxrecon.scan import Scan

__all__ = [
    "DicomHeader",
    "overwrites",
    "read_scan",
    "scan_info",
    "scan_shape",
    "write_image",
    "write_scan",
]

_HINTS = {
    ".dat": "convert the Siemens raw data to ISMRMRD .h5 first (siemens_to_ismrmrd)",
    ".dcm": "DICOM holds images, not k-space",
    ".nii": "NIfTI holds images, of which ctxrecon simulate makes a scan",
    ".gz": "NIfTI holds images, of which ctxrecon simulate makes a scan",
    ".png": "PNG holds images, not k-space",
    ".mat": "save the k-space as .npy, .npz or .cfl",
}
_EXPECTED = {".npy": "NumPy .npy", ".npz": "NumPy .npz", ".h5": "HDF5 .h5", ".hdf5": "HDF5 .h5"}


def _format(path: str | os.PathLike[str]) -> tuple[str, Path]:
    """The format of a scan file by its extension and content, and the file that holds its data."""
    path = Path(path)
    if bart.is_bart(path):
        path = check_input(bart.data_file(path))
        return "BART", path
    path = check_input(path)
    suffix = path.suffix.lower()
    if suffix not in _EXPECTED:
        hint = _HINTS.get(suffix)
        raise InputError(
            f"{path}: expected a scan file .npy, .npz, .h5 or .cfl, got "
            f"{suffix or 'no extension'}" + (f": {hint}" if hint else "")
        )
    found = sniff(path)
    if found != _EXPECTED[suffix]:
        content = f"the content of {found}" if found else "other content"
        raise InputError(
            f"{path} is named {suffix} but has {content}: give it its right name or copy it again"
        )
    if suffix in {".npy", ".npz"}:
        return suffix[1:], path
    with open_hdf5(path) as file:
        if "kspace" in file:
            return "fastMRI", path
        if ismrmrd.find_groups(file):
            return "ISMRMRD", path
        names = ", ".join(repr(name[:40]) for name in list(file)[:8]) or "nothing"
    raise InputError(
        f"{path}: expected fastMRI's 'kspace' or ISMRMRD's 'dataset/data' in the HDF5 file, "
        f"found {names}"
    )


def read_scan(
    path: str | os.PathLike[str],
    *,
    slices: SliceChoice = None,
    metadata: ScanMetadata | Sequence[ScanMetadata] | None = None,
    coil_maps: str | os.PathLike[str] | None = None,
    crop_readout: bool | None = None,
    prewhiten: bool = True,
    repetition: int = 0,
    contrast: int = 0,
    phase: int = 0,
    set: int = 0,
    average: int | None = None,
    group: str | None = None,
    calibration: str | os.PathLike[str] | None = None,
) -> Scan:
    """Read measured k-space with everything that its file says about it.

    Args:
        path: ``.npy``, ``.npz``, fastMRI or ISMRMRD ``.h5``, or BART ``.cfl``.
        slices: which slices to read (an index, a ``slice``, several indices); all by default.
            Only these are read from big files.
        metadata: replaces what the file says: one for each slice read, or one for all.
        coil_maps: a ``.npy`` or ``.cfl`` file with ``(coils, ny, nx)`` or
            ``(slices, coils, ny, nx)`` coil maps that belong to the scan, before prewhitening.
        crop_readout: crop the readout oversampling away. By default this is done for ISMRMRD raw
            data and not for fastMRI files; the other formats do not say how much there is.
        prewhiten: decorrelate the coils of an ISMRMRD file that holds noise readouts, and give
            each the mean noise of all, so that ``noise_std`` is that of every coil. Coil maps are
            transformed likewise; the units of k-space and the power of the maps stay.
        repetition: which repetition of an ISMRMRD file, counted from 0 among those it holds.
        contrast: which contrast (echo) of an ISMRMRD file, counted in the same way.
        phase: which cardiac phase of an ISMRMRD file, counted in the same way.
        set: which set (such as a velocity encoding) of an ISMRMRD file, counted in the same way.
        average: which average of an ISMRMRD file, counted in the same way; the mean of all by
            default.
        group: name of the measurement in an ISMRMRD file that holds several.
        calibration: another scan file, of any format, whose fully sampled center serves to
            estimate the coil maps; of the same slices or of one.

    Returns:
        The scan; the mask is inferred from exact zeros where the file holds none, and logged.

    Raises:
        InputError: one sentence with the file's name for anything that cannot be read.
    """
    kind, path = _format(path)
    choice = Choice(repetition, contrast, phase, set, average, group)
    if kind != "ISMRMRD":
        choice.refuse_in(path, kind)
    whitening = None
    if kind == "ISMRMRD":
        scan, whitening = ismrmrd.read_ismrmrd(
            path,
            slices,
            crop_readout=crop_readout is not False,
            prewhiten=prewhiten,
            choice=choice,
        )
    elif kind == "fastMRI":
        scan = fastmri.read_fastmri(path, slices, crop_readout=bool(crop_readout))
    elif crop_readout:
        raise InputError(
            f"{path}: a {kind} file does not state its readout oversampling: leave crop_readout out"
        )
    elif kind == "BART":
        scan = bart.read_bart(path, slices)
    elif kind == "npz":
        scan = numpy_format.read_npz(path, slices)
    else:
        scan = numpy_format.read_npy(path, slices)
    if metadata is not None:
        scan = replace(scan, metadata=override_metadata(path, metadata, len(scan)))
    if coil_maps is not None:
        scan = _with_coil_maps(scan, path, coil_maps, slices, whitening)
    return scan


def _with_coil_maps(
    scan: Scan,
    path: Path,
    coil_maps: str | os.PathLike[str],
    slices: SliceChoice,
    whitening: Tensor | None,
) -> Scan:
    """The scan with the coil maps of another file, whitened as the scan was."""
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
    return scan if whitening is None else replace(scan, coil_maps=_whitened(checked, whitening))


def _whitened(coil_maps: Tensor, whitening: Tensor) -> Tensor:
    """Maps ``(batch, coils, ny, nx)`` of whitened coils, each pixel of the power it had."""
    white = torch.einsum("dc,bcyx->bdyx", whitening, coil_maps)
    power, before = (maps.norm(dim=1, keepdim=True) for maps in (white, coil_maps))
    return torch.where(power > 0, white * (before / power.clamp_min(1e-30)), 0)


_SHAPES = {
    "npy": numpy_format.npy_shape,
    "npz": numpy_format.npz_shape,
    "BART": bart.bart_shape,
    "fastMRI": fastmri.fastmri_shape,
}


def scan_shape(
    path: str | os.PathLike[str],
    *,
    crop_readout: bool | None = None,
    repetition: int = 0,
    contrast: int = 0,
    phase: int = 0,
    set: int = 0,
    average: int | None = None,
    group: str | None = None,
) -> tuple[int, int, int, int]:
    """(slices, coils, ny, nx) of the k-space in a scan file, reading no samples.

    ``ny`` counts the readout oversampling, which :func:`read_scan` may crop. For going through a
    volume that is larger than the memory, some ``slices`` of :func:`read_scan` after the other.

    Args:
        path: as for :func:`read_scan`, and so are the others.
        crop_readout: of three-dimensional scans, whose slices may lie along the readout.
        repetition: which repetition.
        contrast: which contrast.
        phase: which cardiac phase.
        set: which set.
        average: which average.
        group: which measurement.

    Raises:
        InputError: one sentence with the file's name for anything that cannot be read.
    """
    kind, path = _format(path)
    choice = Choice(repetition, contrast, phase, set, average, group)
    return _layout(kind, path, crop_readout, choice)[0]


def _layout(
    kind: str, path: Path, crop_readout: bool | None, choice: Choice
) -> tuple[tuple[int, int, int, int], np.dtype, dict[str, Any]]:
    """(slices, coils, ny, nx), dtype, and what else the file states."""
    if kind == "ISMRMRD":
        return ismrmrd.ismrmrd_shape(path, crop_readout=crop_readout is not False, choice=choice)
    choice.refuse_in(path, kind)
    return _SHAPES[kind](path)


def scan_info(
    path: str | os.PathLike[str],
    *,
    crop_readout: bool | None = None,
    repetition: int = 0,
    contrast: int = 0,
    phase: int = 0,
    set: int = 0,
    average: int | None = None,
    group: str | None = None,
    calibration: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """What is in a scan file, reading the sizes of all of it and the samples of one slice.

    Args:
        path: as for :func:`read_scan`, and so are the others.
        crop_readout: whether the readout oversampling is cropped.
        repetition: which repetition.
        contrast: which contrast.
        phase: which cardiac phase.
        set: which set.
        average: which average.
        group: which measurement.
        calibration: another file, for coil maps.

    Returns:
        ``path``, ``format``, ``size_on_disk`` (bytes), ``dtype``, ``slices``, ``coils``,
        ``shape`` (ny, nx) of the k-space as :func:`read_scan` gives it; of the middle slice:
        ``sampled_fraction``, ``acceleration``, ``calibration_region`` (ny, nx; ``None`` if there is
        none), ``metadata``,
        ``prompt`` (``None`` if nothing is known), ``noise_std``, and whether there are
        ``coil_maps`` and a ``target``; ``voxel_size`` (ny, nx, slice) in mm of images of this
        ``shape``, or ``None``; and, for ISMRMRD, ``repetitions`` and ``contrasts``. Along a
        trajectory ``shape`` is that of the image, ``sampled_fraction`` and ``calibration_region``
        are ``None``, ``acceleration`` is relative to the Nyquist criterion, and there are
        ``trajectory`` (its kind), ``shots`` and ``samples`` (of each).
    """
    kind, path = _format(path)
    choice = Choice(repetition, contrast, phase, set, average, group)
    layout, dtype, stated = _layout(kind, path, crop_readout, choice)
    middle = read_scan(
        path,
        slices=layout[0] // 2,
        crop_readout=crop_readout,
        calibration=calibration,
        **asdict(choice),
    )
    item = middle.metadata[0] if middle.metadata else None
    files = [path, bart.header_file(path)] if kind == "BART" else [path]
    return {
        "path": str(path),
        "format": kind,
        "size_on_disk": sum(file.stat().st_size for file in files),
        "dtype": str(dtype),
        "slices": layout[0],
        "coils": middle.kspace.shape[1],
        "shape": middle.image_shape,
        **_sampling(middle),
        "metadata": item,
        "prompt": (item.to_prompt() or None) if item else None,
        "noise_std": middle.noise_std,
        "coil_maps": middle.coil_maps is not None,
        "target": middle.target is not None,
        "voxel_size": middle.voxel_size,
        **stated,
    }


def _sampling(middle: Scan) -> dict[str, Any]:
    """What :func:`scan_info` says of how a slice is sampled."""
    from ctxrecon.coils import find_calibration_region
    from ctxrecon.masks import nyquist_undersampling

    if middle.trajectory is not None:
        acceleration = nyquist_undersampling(middle.trajectory[0], middle.image_shape)
        shots, samples = middle.kspace.shape[2:]
        return {
            "sampled_fraction": None,
            "acceleration": acceleration,
            "calibration_region": None,
            "shots": shots,
            "samples": samples,
        }
    mask = middle.cartesian_mask
    longest = max(mask.shape)
    fraction = mask.float().mean().item()
    try:
        region = find_calibration_region(mask, max_size=(longest, longest))
        calibration = tuple(part.stop - part.start for part in region)
    except InputError:  # too few central samples: a fact to report here, not an error
        calibration = None
    return {
        "sampled_fraction": fraction,
        "acceleration": 1 / fraction,
        "calibration_region": calibration,
    }


def write_scan(path: str | os.PathLike[str], scan: Scan) -> Path:
    """Write a Cartesian scan with everything it holds to ``.npz`` or fastMRI's ``.h5``, losslessly.

    Raises:
        InputError: another extension, or a scan along a trajectory.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        numpy_format.write_npz(path, scan)
    elif suffix in {".h5", ".hdf5"}:
        fastmri.write_fastmri(path, scan)
    else:
        raise InputError(
            f"cannot write {path}: expected a scan as .npz or .h5, got {suffix or 'no extension'}"
        )
    return path


def overwrites(
    output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]
) -> Path | None:
    """The first of the ``inputs`` that writing ``output`` would replace, or ``None``.

    A file is the same by another path, a symbolic or a hard link; a BART array is two files.
    """
    written = _files_of(Path(output))
    for name in inputs:
        if any(_same_file(one, other) for one in written for other in _files_of(Path(name))):
            return Path(name)
    return None


def _files_of(path: Path) -> list[Path]:
    """The files of a name: two of a BART array, else the one."""
    if bart.is_bart(path):
        return [bart.data_file(path), bart.header_file(path)]
    return [path]


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there yet, or cannot be looked at
        return os.path.realpath(one) == os.path.realpath(other)
