"""Scan files to :class:`~ctxrecon.scan.Scan` and back; one module a format.

========================  ==========================================  =====================
format                    k-space axes in the file                    read, write
========================  ==========================================  =====================
NumPy ``.npy``            ([[slices,] coils,] ny, nx)                 scan; images
NumPy ``.npz``            the same, under ``kspace``                  scan, images; both
fastMRI ``.h5``           ([averages,] slices, [coils,] ny, nx)       scan; scan
Calgary-Campinas ``.h5``  (slices, ny, nx, 2 coils), real             scan
ISMRMRD ``.h5``           single readouts with encoding or trajectory scan
Siemens ``.dat``          single readouts                             scan
MATLAB ``.mat``           (ny, nx, coils, slices, frames)             scan
BART ``.cfl`` + ``.hdr``  0 readout, 1 phase, 3 coil, 13 slice, …     scan; images
NIfTI ``.nii[.gz]``       (nx, ny, slices), with their place          images (write)
DICOM ``.dcm``            one Enhanced MR file, or one file a slice    images (write)
PNG ``.png``              one file a slice, or a montage; magnitude   images (write)
========================  ==========================================  =====================

``docs/formats.md`` says what of each. Everywhere ``ny`` is the readout and ``nx`` the phase
encoding. Files are not trusted: nothing is unpickled, no link out of a file is followed, and sizes
are checked before memory is taken.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.io import bart, fastmri, numpy_format
from ctxrecon.io._arrays import SliceChoice, override_metadata
from ctxrecon.io._calibration import calibration_of
from ctxrecon.io._choice import Choice
from ctxrecon.io._coil_maps import with_coil_maps
from ctxrecon.io._formats import find_reader, read_with, shape_with
from ctxrecon.io._info import describe
from ctxrecon.io._notes import Notes
from ctxrecon.io._overwriting import overwrites
from ctxrecon.io._reader import Options
from ctxrecon.io.dicom import DicomHeader
from ctxrecon.io.images import write_image
from ctxrecon.metadata import ScanMetadata
from ctxrecon.scan import Scan

__all__ = [
    "DicomHeader",
    "overwrites",
    "read_scan",
    "reads_whole",
    "scan_info",
    "scan_shape",
    "write_image",
    "write_scan",
]


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
        path: ``.npy``, ``.npz``, fastMRI, ISMRMRD or Calgary-Campinas ``.h5``, Siemens ``.dat``,
            MATLAB ``.mat``, or BART ``.cfl``.
        slices: which slices to read (an index, a ``slice``, several indices); all by default.
            Only these are read from big files.
        metadata: replaces what the file says: one for each slice read, or one for all.
        coil_maps: a ``.npy`` or ``.cfl`` file with ``(coils, ny, nx)`` or
            ``(slices, coils, ny, nx)`` coil maps that belong to the scan, before prewhitening.
        crop_readout: crop the readout oversampling away. By default this is done for ISMRMRD and
            Siemens raw data and not for fastMRI files; the other formats do not say how much there
            is.
        prewhiten: decorrelate the coils of raw data that hold noise readouts, and give each the
            mean noise of all, so that ``noise_std`` is that of every coil. Coil maps are
            transformed likewise; the units of k-space and the power of the maps stay.
        repetition: which repetition of raw data, counted from 0 among those there; in BART
            files the place in dimension 10.
        contrast: which contrast (echo), counted in the same way; in BART files in dimension 5.
        phase: which cardiac phase, counted in the same way; in BART files in dimension 11, of
            MATLAB arrays on the fifth axis.
        set: which set (such as a velocity encoding) of raw data, counted in the same way.
        average: which average, counted in the same way; in BART files in dimension 14, and on the
            first of five axes in fastMRI files. The mean of all by default.
        group: name of the measurement in an ISMRMRD file, or of the variable in a MATLAB file,
            that holds several.
        calibration: another scan file, of any format, whose fully sampled center serves to
            estimate the coil maps; of the same slices or of one.

    Returns:
        The scan; the mask is inferred from exact zeros where the file holds none, and logged.

    Raises:
        InputError: one sentence with the file's name for anything that cannot be read.
    """
    reader, path = find_reader(path)
    choice = Choice(repetition, contrast, phase, set, average, group)
    notes = Notes(path)
    scan, whitening = read_with(
        reader, path, slices, Options(crop_readout, prewhiten, choice), notes
    )
    if metadata is not None:
        scan = replace(scan, metadata=override_metadata(path, metadata, len(scan)))
    if coil_maps is not None:
        scan = with_coil_maps(scan, path, coil_maps, slices, whitening)
    if calibration is not None:
        scan = _with_calibration(scan, path, calibration, slices, whitening, notes)
    return scan


def _with_calibration(
    scan: Scan,
    path: Path,
    calibration: str | os.PathLike[str],
    slices: SliceChoice,
    whitening: Tensor | None,
    notes: Notes,
) -> Scan:
    """The scan with the center of another scan file, whitened as the scan was."""
    reader, other_path = find_reader(calibration)
    options = Options(prewhiten=False)
    whole = reader.shape(other_path, options)[0][0]
    chosen = None if whole == 1 else slices
    other, _ = reader.read(other_path, chosen, options, Notes(other_path))
    block = calibration_of(other_path, other, scan)
    if whitening is not None and block.shape[1] == len(whitening):
        block = torch.einsum("dc,bcyx->bdyx", whitening, block)
    notes.add(f"coil maps come from the calibration scan {other_path}")
    try:
        return replace(scan, calibration=block)
    except InputError as error:
        raise InputError(f"{other_path} does not belong to {path}: {error}") from error


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
    reader, path = find_reader(path)
    choice = Choice(repetition, contrast, phase, set, average, group)
    return shape_with(reader, path, Options(crop_readout, choice=choice))[0]


def reads_whole(
    path: str | os.PathLike[str],
    *,
    crop_readout: bool | None = None,
    repetition: int = 0,
    contrast: int = 0,
    phase: int = 0,
    set: int = 0,
    average: int | None = None,
    group: str | None = None,
) -> bool:
    """Whether reading a slice of a scan file takes reading, or decompressing, all of it.

    Such files are read once, and not some slices after the other, where they fit into memory.

    Args:
        path: as for :func:`scan_shape`, and so are the others.
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
    reader, path = find_reader(path)
    choice = Choice(repetition, contrast, phase, set, average, group)
    return reader.reads_whole(path, Options(crop_readout, choice=choice))


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
        ``shape``, or ``None``; whether the ``affine`` is known; ``calibration_scan`` (ny, nx) of a
        separate one, or ``None``; ``notes``, sentences on what is done with the file and why; for
        BART, ISMRMRD and Siemens files whether they hold a 3-D scan, ``is_3d``; and, for the last
        two, ``repetitions``, ``contrasts``, ``phases``, ``sets``, ``averages`` and
        ``groups`` (the names of the measurements). Along a
        trajectory ``shape`` is that of the image, ``sampled_fraction`` and ``calibration_region``
        are ``None``, ``acceleration`` is relative to the Nyquist criterion, and there are
        ``trajectory`` (its kind), ``shots`` and ``samples`` (of each).
    """
    reader, path = find_reader(path)
    options = Options(crop_readout, choice=Choice(repetition, contrast, phase, set, average, group))
    layout, dtype, stated = shape_with(reader, path, options)
    notes = Notes(path)
    middle = read_with(reader, path, layout[0] // 2, options, notes)[0]
    if calibration is not None:
        middle = _with_calibration(middle, path, calibration, layout[0] // 2, None, notes)
    files = [path, bart.header_file(path)] if reader.name == "BART" else [path]
    return {
        "path": str(path),
        "format": reader.name,
        "size_on_disk": sum(file.stat().st_size for file in files),
        "dtype": str(dtype),
        "slices": layout[0],
        **describe(middle),
        "notes": tuple(notes.sentences),
        **stated,
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
