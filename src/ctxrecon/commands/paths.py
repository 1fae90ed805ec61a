"""Output files of the commands, checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctxrecon.errors import InputError

OVERWRITE = "Replace existing files; input files are never replaced."
"""Help of ``--overwrite``."""

NIFTI, DICOM = (".nii.gz", ".nii"), ".dcm"
"""Suffixes of the formats that store the position of images in the scanner."""

_IMAGE_SUFFIXES = (".npy", ".npz", ".cfl", *NIFTI, DICOM, ".png")
# Suffix -> package that writes the format, and the format's name.
_WRITERS = dict.fromkeys(NIFTI, ("nibabel", "NIfTI")) | {DICOM: ("pydicom", "DICOM")}


@dataclass(frozen=True)
class Outputs:
    """Output files of one reconstruction; the figure and the metrics lie next to the image.

    Attributes:
        image: Image file, in the format of its suffix.
        suffix: Suffix of ``image``, which may have two parts, such as ``.nii.gz``.
        folder: Folder to create first, or ``None``.
    """

    image: Path
    suffix: str
    folder: Path | None = None

    @property
    def std(self) -> Path:
        """Path of the standard deviation of the posterior samples, in the image's format."""
        return self.method("std")

    @property
    def phase(self) -> Path:
        """Path of the phase image; for ``…_part-mag_…`` it follows the BIDS naming."""
        if "_part-mag_" in self.image.name:
            return self.image.with_name(self.image.name.replace("_part-mag_", "_part-phase_"))
        return self.method("phase")

    @property
    def figure(self) -> Path:
        """Path of the figure (PNG)."""
        return self._beside("_figure.png")

    @property
    def metrics(self) -> Path:
        """Path of the metrics (JSON)."""
        return self._beside("_metrics.json")

    @property
    def masks(self) -> Path:
        """Path of the sampling masks (``.npy``) of a model that chooses its samples."""
        return self.array("masks")

    @property
    def lines(self) -> Path:
        """Path of the line order (JSON) of a model that chooses its samples."""
        return self._beside("_lines.json")

    @property
    def t2star(self) -> Path:
        """Path of the T2* map, in the image's format if that stores positions, else ``.npy``."""
        if self.suffix.lower() in (*NIFTI, DICOM):
            return self.method("t2star")
        return self.array("t2star")

    @property
    def summary(self) -> Path:
        """Path of the summary (JSON) of a task model."""
        return self._beside("_summary.json")

    @property
    def partial(self) -> Path:
        """Path of the folder that keeps finished slices until all are done."""
        return self.image.with_name(self.image.name + ".partial")

    def method(self, name: str) -> Path:
        """Return the path of another image next to this one, in its format."""
        return self._beside(f"_{name}{self.suffix}")

    def array(self, name: str) -> Path:
        """Return the path of a ``.npy`` array next to the image."""
        return self._beside(f"_{name}.npy")

    def _beside(self, ending: str) -> Path:
        return self.image.with_name(self.image.name[: -len(self.suffix)] + ending)


def output_folder(path: Path) -> Path:
    """Return a folder, which is created if it does not exist.

    Raises:
        InputError: If the path is a file, or the folder cannot be created.
    """
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"cannot write into {path}: it is a file, give a folder")
        path.mkdir(exist_ok=True, parents=True)
    except OSError as error:
        raise InputError(
            f"cannot create the folder {path}: {error.strerror or error}; give another path"
        ) from error
    except ValueError as error:  # a NUL character in the name
        raise InputError(f"cannot create the folder {str(path)!r}: {error}") from error
    return path


def image_outputs(out: Path, name: str = "reconstruction") -> Outputs:
    """Return the output files for ``--out``: an image file, or a folder for ``NAME.npy``.

    A path without a suffix is a folder; :func:`check_outputs` creates it if it does not exist.

    Args:
        out: Path given to ``--out``.
        name: Stem of the image in a folder.

    Raises:
        InputError: If the suffix is not that of an image format, or if the package that writes
            the format is not installed.
    """
    folder = None
    if os.path.isdir(out) or not out.suffix:
        if os.path.isfile(out):
            raise InputError(f"cannot write into {out}: it is a file, give a folder")
        folder, out = out, out / f"{name}.npy"
    suffix = next((s for s in _IMAGE_SUFFIXES if out.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(
            f"cannot write {out}: expected a folder, or a name ending in "
            f"{', '.join(_IMAGE_SUFFIXES)}, got {out.suffix}"
        )
    if suffix in _WRITERS:
        import importlib.util

        package, title = _WRITERS[suffix]
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"cannot write {out}: {title} needs {package}, install it with pip install "
                f"{package}"
            )
    return Outputs(out, out.name[-len(suffix) :], folder)


def image_files(path: Path, count: int, *, single_frames: bool = False) -> list[Path]:
    """Return the files that :func:`ctxrecon.io.write_image` writes for ``count`` images."""
    suffix = path.suffix.lower()
    if count > 1 and (suffix == ".png" or (suffix == DICOM and single_frames)):
        return [path.with_stem(f"{path.stem}_{index:03d}") for index in range(count)]
    return [path, path.with_suffix(".hdr")] if suffix == ".cfl" else [path]


def input_files(*paths: Path | str | None) -> list[Path]:
    """Return all files that a command reads: folder contents, and both files of a BART pair."""
    files: list[Path] = []
    for path in (Path(path) for path in paths if path is not None):
        if os.path.isdir(path):
            files += [child for child in path.rglob("*") if child.is_file()]
            continue
        pair = [path.with_name(path.name + ending) for ending in (".cfl", ".hdr")]
        if path.suffix.lower() in {".cfl", ".hdr"}:
            pair = [path.with_suffix(ending) for ending in (".cfl", ".hdr")]
        files += [file for file in (path, *pair) if os.path.isfile(file)]
    return files


def check_outputs(
    outputs: Iterable[Path],
    inputs: Iterable[Path] = (),
    *,
    overwrite: bool = False,
    folder: Path | None = None,
    remedy: str = ": give --overwrite to replace it, or another --out",
) -> None:
    """Check that outputs can be written and would not replace existing files or inputs.

    Args:
        outputs: Every file that the command may write.
        inputs: Every file that it reads, see :func:`input_files`; these are never replaced.
        overwrite: Whether other existing files may be replaced.
        folder: Folder to create first; removed again if a check fails.
        remedy: End of the error message about an existing file.

    Raises:
        InputError: If an output cannot be written, is also an input, or exists and may not be
            replaced.
    """
    from ctxrecon.files import check_output
    from ctxrecon.io import overwrites

    new = folder is not None and not os.path.isdir(folder)
    if folder is not None:
        output_folder(folder)
    outputs, inputs = list(outputs), list(inputs)
    try:
        for path in outputs:
            check_output(path)
            other = overwrites(path, inputs)
            if other is not None:
                raise InputError(
                    f"cannot write {path}: it is the input {other}, give another --out"
                )
        for path in outputs:
            if os.path.lexists(path) and not overwrite:
                raise InputError(f"{path} exists{remedy}")
    except InputError:
        if new and folder is not None:
            with suppress(OSError):
                folder.rmdir()
        raise
