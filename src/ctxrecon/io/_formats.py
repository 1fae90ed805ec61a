"""Table of the scan formats, and detection of a file's format."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.files import check_input, sniff
from ctxrecon.io import bart, calgary, fastmri, ismrmrd, matlab, numpy_format, siemens
from ctxrecon.io._arrays import SliceChoice
from ctxrecon.io._choice import Choice
from ctxrecon.io._notes import Notes
from ctxrecon.io._reader import Layout, Options, Reader
from ctxrecon.io.hdf5 import open_hdf5
from ctxrecon.scan import Scan

_IMAGES = "contains images, not k-space"
_PHILIPS = "convert Philips raw data to ISMRMRD .h5 first (philips_to_ismrmrd)"
_BRUKER = "Bruker raw data can be read with brukerapi or MRIReco.jl: save its k-space as .npy"
_GE = "convert GE raw data to ISMRMRD .h5 first (ge_to_ismrmrd, with GE's Orchestra)"
_HINTS = {
    ".dcm": f"DICOM {_IMAGES}",
    ".nii": f"NIfTI {_IMAGES}: simulate a scan from it with ctxrecon simulate",
    ".gz": f"NIfTI {_IMAGES}: simulate a scan from it with ctxrecon simulate",
    ".png": f"PNG {_IMAGES}",
    ".7": _GE,
    ".raw": _PHILIPS,
    ".lab": _PHILIPS,
    ".sin": _PHILIPS,
    ".list": _PHILIPS,
    ".data": _PHILIPS,
    ".job0": _BRUKER,
    "fid": _BRUKER,
    "ser": _BRUKER,
}


_Read: TypeAlias = Callable[[Path, SliceChoice, Options, Notes], tuple[Scan, Tensor | None]]


def _shape_of_readouts(shape: Callable[..., Layout]) -> Callable[[Path, Options], Layout]:
    """Return the layout function for files of single readouts, cropped by default."""
    return lambda path, options: shape(
        path, crop_readout=options.crop_readout is not False, choice=options.choice
    )


def _reader_of_readouts(read: Callable[..., tuple[Scan, Tensor | None]]) -> _Read:
    """Return the reading function for files of single readouts."""
    return lambda path, slices, options, notes: read(
        path,
        slices,
        crop_readout=options.crop_readout is not False,
        prewhiten=options.prewhiten,
        choice=options.choice,
        notes=notes,
    )


_siemens_shape = _shape_of_readouts(siemens.siemens_shape)
_ismrmrd_shape = _shape_of_readouts(ismrmrd.ismrmrd_shape)

# Formats that share a suffix are tested in this order.
READERS = (
    Reader(
        "npy",
        (".npy",),
        ("NumPy .npy",),
        lambda path, _: numpy_format.npy_shape(path),
        lambda path, slices, *_: (numpy_format.read_npy(path, slices), None),
    ),
    Reader(
        "npz",
        (".npz",),
        ("NumPy .npz",),
        lambda path, _: numpy_format.npz_shape(path),
        lambda path, slices, *_: (numpy_format.read_npz(path, slices), None),
        reads_whole=lambda path, _: True,
    ),
    Reader(
        "BART",
        (".cfl",),
        (),
        lambda path, options: bart.bart_shape(path, options.choice),
        lambda path, slices, options, _: (bart.read_bart(path, slices, options.choice), None),
        choices=("repetition", "contrast", "phase", "average"),
        reads_whole=lambda path, options: bart.bart_shape(path, options.choice)[2]["is_3d"],
    ),
    Reader(
        "MATLAB",
        (".mat",),
        ("MATLAB .mat", "HDF5 .h5"),
        lambda path, options: matlab.matlab_shape(path, options.choice),
        lambda path, slices, options, _: (matlab.read_matlab(path, slices, options.choice), None),
        choices=("phase", "group"),
        reads_whole=lambda path, _: not matlab.is_hdf5(path),
    ),
    Reader(
        "Calgary-Campinas",
        (".h5", ".hdf5"),
        ("HDF5 .h5",),
        lambda path, _: calgary.calgary_shape(path),
        lambda path, slices, *_: (calgary.read_calgary(path, slices), None),
        holds=calgary.is_calgary,
    ),
    Reader(
        "Siemens",
        (".dat",),
        (None,),
        _siemens_shape,
        _reader_of_readouts(siemens.read_siemens),
        choices=("repetition", "contrast", "phase", "set", "average"),
        crops=True,
        reads_whole=lambda path, options: _siemens_shape(path, options)[2]["is_3d"],
    ),
    Reader(
        "fastMRI",
        (".h5", ".hdf5"),
        ("HDF5 .h5",),
        lambda path, _: fastmri.fastmri_shape(path),
        lambda path, slices, options, _: (
            fastmri.read_fastmri(
                path, slices, crop_readout=bool(options.crop_readout), choice=options.choice
            ),
            None,
        ),
        choices=("average",),
        crops=True,
        holds=lambda path, file: "kspace" in file,
    ),
    Reader(
        "ISMRMRD",
        (".h5", ".hdf5"),
        ("HDF5 .h5",),
        _ismrmrd_shape,
        _reader_of_readouts(ismrmrd.read_ismrmrd),
        choices=("repetition", "contrast", "phase", "set", "average", "group"),
        crops=True,
        reads_whole=lambda path, options: _ismrmrd_shape(path, options)[2]["is_3d"],
        holds=lambda path, file: bool(ismrmrd.find_groups(file)),
    ),
)


# Command-line options that are named differently from the fields of Choice.
_COMMAND_LINE = {"phase": "--cardiac-phase"}


def find_reader(path: str | os.PathLike[str]) -> tuple[Reader, Path]:
    """Find the reader of a scan file by extension and content, and the file with its data.

    Raises:
        InputError: If the file cannot be read, or its format is not supported.
    """
    path = Path(path)
    # BART also refers to its pair of files by their common stem.
    path = check_input(bart.data_file(path) if bart.is_bart(path) else path)
    suffix = path.suffix.lower()
    if suffix == ".h5" and path.name.startswith("ScanArchive"):
        raise InputError(f"{path} is named like a GE ScanArchive: {_GE}")
    readers = [reader for reader in READERS if suffix in reader.suffixes]
    if not readers:
        hint = _HINTS.get(suffix or path.name.lower())
        raise InputError(
            f"{path}: expected a scan file .npy, .npz, .h5, .mat, .dat or .cfl, got "
            f"{suffix or 'no extension'}" + (f": {hint}" if hint else "")
        )
    contents, found = readers[0].contents, sniff(path)
    if contents and found not in contents:
        content = f"the content of {found}" if found else "other content"
        raise InputError(f"{path} is named {suffix} but has {content}: rename it or copy it again")
    if readers[0].holds is None:
        return readers[0], path
    with open_hdf5(path) as file:
        for reader in readers:
            if reader.holds is not None and reader.holds(path, file):
                return reader, path
        names = ", ".join(repr(name[:40]) for name in list(file)[:8]) or "nothing"
    raise InputError(
        f"{path}: expected fastMRI's 'kspace' or ISMRMRD's 'dataset/data' in the HDF5 file, "
        f"found {names}"
    )


def read_with(
    reader: Reader, path: Path, slices: SliceChoice, options: Options, notes: Notes
) -> tuple[Scan, Tensor | None]:
    """Read a scan after validating that the options apply to its format.

    All-zero slices, such as slices of air, are accepted; files of only zeros are not.

    Raises:
        InputError: If the format has no such choice or readout cropping, or if the file contains
            only zeros.
    """
    _check_choice(reader, path, options)
    if options.crop_readout and not reader.crops:
        raise InputError(
            f"{path}: {reader.name} files do not state their readout oversampling: leave "
            "crop_readout (--crop-readout) out"
        )
    scan, whitening = reader.read(path, slices, options, notes)
    if not bool(scan.kspace.any()) and len(scan) >= reader.shape(path, options)[0][0]:
        raise InputError(f"{path}: the k-space contains only zeros: nothing was measured")
    return scan, whitening


def shape_with(reader: Reader, path: Path, options: Options) -> Layout:
    """Read the layout of a file after validating that the choice applies to its format.

    Raises:
        InputError: If the format has no such choice.
    """
    _check_choice(reader, path, options)
    return reader.shape(path, options)


def _check_choice(reader: Reader, path: Path, options: Options) -> None:
    for item in fields(Choice):
        if item.name in reader.choices or getattr(options.choice, item.name) == item.default:
            continue
        others = ", ".join(other.name for other in READERS if item.name in other.choices)
        option = _COMMAND_LINE.get(item.name, f"--{item.name}")
        raise InputError(
            f"{path}: {reader.name} files have no {item.name}s to choose from, only {others} "
            f"files have them: leave {item.name} ({option}) out"
        )
