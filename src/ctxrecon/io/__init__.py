"""Reading of scan files into :class:`~ctxrecon.scan.Scan`, and writing of scans and images.

========================  ==========================================  =====================
format                    k-space axes in the file                    read, write
========================  ==========================================  =====================
NumPy ``.npy``            ([[slices,] coils,] ny, nx)                 scan; images
NumPy ``.npz``            as ``.npy``, in the array ``kspace``        scan, images; both
fastMRI ``.h5``           ([averages,] slices, [coils,] ny, nx)       scan; scan
Calgary-Campinas ``.h5``  (slices, ny, nx, 2 coils), real             scan
ISMRMRD ``.h5``           readouts with encoding or trajectory        scan
Siemens ``.dat``          single readouts                             scan
MATLAB ``.mat``           (ny, nx, coils, slices, frames)             scan
BART ``.cfl`` + ``.hdr``  0 readout, 1 phase, 3 coil, 13 slice, …     scan; images
NIfTI ``.nii[.gz]``       (nx, ny, slices), with their position       images (write)
DICOM ``.dcm``            one Enhanced MR file, or one per slice      images (write)
PNG ``.png``              magnitudes, one per slice or a montage      images (write)
========================  ==========================================  =====================

``docs/formats.md`` describes each format; each has its own module. In all of them ``ny`` is the
readout and ``nx`` the phase-encoding direction. Files are untrusted: nothing is unpickled, links to
other files are not followed, and sizes are validated before memory is allocated.
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
from ctxrecon.io._coil_maps import check_total, with_coil_maps
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
    """Read measured k-space together with its mask, coil maps, metadata and position.

    Args:
        path: Scan file: ``.npy``, ``.npz``, fastMRI, ISMRMRD or Calgary-Campinas ``.h5``, Siemens
            ``.dat``, MATLAB ``.mat``, or BART ``.cfl``.
        slices: Slices to read: an index, a ``slice``, or several indices (default: all). Of large
            files, only these slices are loaded.
        metadata: Metadata that replace the file's, one per slice that is read or one for all.
        coil_maps: ``.npy`` or ``.cfl`` file with coil maps of shape ``(coils, ny, nx)`` or
            ``(slices, coils, ny, nx)``, for the coils before prewhitening.
        crop_readout: Whether to remove readout oversampling. By default it is removed for ISMRMRD
            and Siemens raw data and kept for fastMRI files; the other formats do not state it.
        prewhiten: Whether to prewhiten the coils of raw data that contain noise readouts. All
            coils then have the noise level ``noise_std``, their mean noise. Coil maps are
            transformed accordingly, so that images and the units of k-space stay the same.
        repetition: Repetition to read from raw data, counted from 0 among those in the file; in
            BART files the index in dimension 10.
        contrast: Contrast (echo) to read, counted from 0 among those in the file; in BART files
            the index in dimension 5.
        phase: Cardiac phase to read, counted from 0 among those in the file; in BART files the
            index in dimension 11, in MATLAB arrays on the fifth axis.
        set: Set (such as a velocity encoding) to read from raw data, counted from 0 among those in
            the file.
        average: Average to read, counted from 0 among those in the file (default: the mean of
            all); in BART files the index in dimension 14, in fastMRI files on the first of five
            axes.
        group: Name of the measurement to read from an ISMRMRD file, or of the variable from a
            MATLAB file, if the file contains several.
        calibration: Scan file of any format from whose fully sampled center the coil maps are
            estimated; it has the same slices as the scan, or one.

    Returns:
        The scan. If the file has no mask, the mask is inferred from exact zeros, which is logged.

    Raises:
        InputError: If the file cannot be read or does not match the options; the message names
            the file.

    Example:
        >>> from importlib.resources import files
        >>> from ctxrecon.io import read_scan
        >>> scan = read_scan(files("ctxrecon.checkpoints") / "demo_scan.npz")
        >>> scan.kspace.shape  # (slices, coils, ny, nx)
        torch.Size([1, 8, 128, 128])
    """
    reader, path = find_reader(path)
    choice = Choice(repetition, contrast, phase, set, average, group)
    notes = Notes(path)
    scan, whitening = read_with(
        reader, path, slices, Options(crop_readout, prewhiten, choice), notes
    )
    if metadata is not None:
        scan = replace(scan, metadata=override_metadata(path, metadata, len(scan)))
    if coil_maps is not None or calibration is not None:
        total = reader.shape(path, Options(crop_readout, prewhiten, choice))[0][0]
        if coil_maps is not None:
            scan = with_coil_maps(scan, path, coil_maps, slices, total, whitening)
        if calibration is not None:
            scan = _with_calibration(scan, path, calibration, slices, total, whitening, notes)
    return scan


def _with_calibration(
    scan: Scan,
    path: Path,
    calibration: str | os.PathLike[str],
    slices: SliceChoice,
    total: int,
    whitening: Tensor | None,
    notes: Notes,
) -> Scan:
    """Return the scan with the center of a calibration scan, prewhitened like the scan."""
    reader, other_path = find_reader(calibration)
    options = Options(prewhiten=False)
    whole = reader.shape(other_path, options)[0][0]
    check_total(other_path, whole, path, total)
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
    """Return the k-space shape (slices, coils, ny, nx) of a scan file without reading samples.

    ``ny`` includes readout oversampling, which :func:`read_scan` may remove. Use it to read a
    volume that is larger than the memory with several calls of :func:`read_scan`.

    Args:
        path: Scan file of any format of :func:`read_scan`.
        crop_readout: Whether readout oversampling is removed; this matters for three-dimensional
            scans whose slices lie along the readout.
        repetition: Repetition, counted from 0.
        contrast: Contrast (echo), counted from 0.
        phase: Cardiac phase, counted from 0.
        set: Set, counted from 0.
        average: Average, counted from 0, or ``None`` for the mean of all.
        group: Name of the measurement or variable.

    Raises:
        InputError: If the file cannot be read or does not match the options; the message names
            the file.

    Example:
        >>> from importlib.resources import files
        >>> from ctxrecon.io import scan_shape
        >>> scan_shape(files("ctxrecon.checkpoints") / "demo_scan.npz")
        (1, 8, 128, 128)
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
    """Return whether reading one slice requires reading or decompressing the whole scan file.

    If such a file fits into memory, read all slices at once.

    Args:
        path: Scan file of any format of :func:`read_scan`.
        crop_readout: Whether readout oversampling is removed; this matters for three-dimensional
            scans whose slices lie along the readout.
        repetition: Repetition, counted from 0.
        contrast: Contrast (echo), counted from 0.
        phase: Cardiac phase, counted from 0.
        set: Set, counted from 0.
        average: Average, counted from 0, or ``None`` for the mean of all.
        group: Name of the measurement or variable.

    Raises:
        InputError: If the file cannot be read or does not match the options; the message names
            the file.

    Example:
        >>> from importlib.resources import files
        >>> from ctxrecon.io import reads_whole
        >>> reads_whole(files("ctxrecon.checkpoints") / "demo_scan.npz")
        True
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
    """Summarize a scan file, reading all sizes but the samples of only one slice.

    Args:
        path: Scan file of any format of :func:`read_scan`.
        crop_readout: Whether readout oversampling is removed.
        repetition: Repetition, counted from 0.
        contrast: Contrast (echo), counted from 0.
        phase: Cardiac phase, counted from 0.
        set: Set, counted from 0.
        average: Average, counted from 0, or ``None`` for the mean of all.
        group: Name of the measurement or variable.
        calibration: Separate calibration scan for the coil maps.

    Returns:
        A dictionary. All files have the entries ``path``, ``format``, ``size_on_disk`` (bytes),
        ``dtype``, ``slices``, ``coils`` and ``shape`` (ny, nx), the last as :func:`read_scan`
        returns the k-space. Further entries describe the middle slice: ``sampled_fraction``,
        ``acceleration``, ``calibration_region`` (ny, nx; ``None`` if there is none), ``metadata``,
        ``prompt`` (``None`` without metadata), ``noise_std``, ``coil_maps`` and ``target``
        (whether the file has them), ``voxel_size`` (ny, nx, slice) in mm for images of this
        ``shape`` or ``None``, ``affine`` (whether it is known), ``calibration_scan`` (ny, nx) of a
        separate calibration scan or ``None``, and ``notes``, sentences on the processing of the
        file and the reasons for it. BART, ISMRMRD and Siemens files have ``is_3d``, whether they
        hold a 3-D scan; ISMRMRD and Siemens files also have ``repetitions``, ``contrasts``,
        ``phases``, ``sets`` and ``averages``, and ISMRMRD files ``groups``, the names of the
        measurements. For non-Cartesian scans ``shape`` is that of the image, ``sampled_fraction``
        and ``calibration_region`` are ``None``, ``acceleration`` is relative to the Nyquist
        criterion, and there are ``trajectory`` (its kind), ``shots`` and ``samples`` (per shot).

    Raises:
        InputError: If the file cannot be read or does not match the options; the message names
            the file.

    Example:
        >>> from importlib.resources import files
        >>> from ctxrecon.io import scan_info
        >>> info = scan_info(files("ctxrecon.checkpoints") / "demo_scan.npz")
        >>> info["format"], info["coils"], info["shape"]
        ('npz', 8, (128, 128))
    """
    reader, path = find_reader(path)
    options = Options(crop_readout, choice=Choice(repetition, contrast, phase, set, average, group))
    layout, dtype, stated = shape_with(reader, path, options)
    notes = Notes(path)
    middle = read_with(reader, path, layout[0] // 2, options, notes)[0]
    if calibration is not None:
        middle = _with_calibration(
            middle, path, calibration, layout[0] // 2, layout[0], None, notes
        )
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
    """Write a Cartesian scan and everything that belongs to it, without loss.

    Args:
        path: Output file: ``.npz``, or ``.h5`` in fastMRI's layout.
        scan: Scan to write; :func:`read_scan` returns an identical one.

    Returns:
        The path of the file.

    Raises:
        InputError: If the extension is another one, or the scan is non-Cartesian or only zeros.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from ctxrecon.io import scan_shape, write_scan
        >>> from ctxrecon.scan import Scan
        >>> scan = Scan(torch.ones(2, 4, 8, 8, dtype=torch.complex64), torch.ones(1, 1, 8, 8) > 0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scan_shape(write_scan(Path(folder) / "scan.h5", scan))
        (2, 4, 8, 8)
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in {".npz", ".h5", ".hdf5"}:
        raise InputError(
            f"cannot write {path}: expected a scan as .npz or .h5, got {suffix or 'no extension'}"
        )
    if scan.trajectory is None and not bool(scan.kspace.any()):
        raise InputError(
            f"cannot write {path}: expected k-space with signal, got only zeros: write the slice "
            "together with others of its volume"
        )
    if suffix == ".npz":
        numpy_format.write_npz(path, scan)
    else:
        fastmri.write_fastmri(path, scan)
    return path
