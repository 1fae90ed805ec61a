"""Where a command writes, checked before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctxrecon.errors import InputError

OVERWRITE = "Replace files that are there. An input is never replaced."
"""Help of ``--overwrite``."""

NIFTI, DICOM = (".nii.gz", ".nii"), ".dcm"
"""Suffixes of the formats that keep the place of images."""

_IMAGE_SUFFIXES = (".npy", ".npz", ".cfl", *NIFTI, DICOM, ".png")
# Package that writes a format -> its name on PyPI, and what it is for.
_WRITERS = dict.fromkeys(NIFTI, ("nibabel", "NIfTI")) | {DICOM: ("pydicom", "DICOM")}


@dataclass(frozen=True)
class Outputs:
    """The files of one reconstruction; the figure and the metrics lie beside the image.

    Attributes:
        image: in the format that its suffix names.
        suffix: that of ``image``.
        folder: that is to be made first, or ``None``.
    """

    image: Path
    suffix: str
    folder: Path | None = None

    @property
    def std(self) -> Path:
        """Standard deviation of the posterior samples, in the format of the image."""
        return self.method("std")

    @property
    def phase(self) -> Path:
        """Phase of the image; beside ``…_part-mag_…`` it is named as BIDS does."""
        if "_part-mag_" in self.image.name:
            return self.image.with_name(self.image.name.replace("_part-mag_", "_part-phase_"))
        return self.method("phase")

    @property
    def figure(self) -> Path:
        """PNG."""
        return self._beside("_figure.png")

    @property
    def metrics(self) -> Path:
        """JSON."""
        return self._beside("_metrics.json")

    @property
    def masks(self) -> Path:
        """``.npy``, of a model that chooses its samples."""
        return self.array("masks")

    @property
    def lines(self) -> Path:
        """JSON, of such a model."""
        return self._beside("_lines.json")

    @property
    def t2star(self) -> Path:
        """Of such a model: in the format of the image where that keeps places, else ``.npy``."""
        if self.suffix.lower() in (*NIFTI, DICOM):
            return self.method("t2star")
        return self.array("t2star")

    @property
    def summary(self) -> Path:
        """JSON, of a model that reads a task."""
        return self._beside("_summary.json")

    @property
    def partial(self) -> Path:
        """Folder of the slices that are done, until all are."""
        return self.image.with_name(self.image.name + ".partial")

    def method(self, name: str) -> Path:
        """Another image beside this one, in its format."""
        return self._beside(f"_{name}{self.suffix}")

    def array(self, name: str) -> Path:
        """``.npy`` beside the image, of any number of axes."""
        return self._beside(f"_{name}.npy")

    def _beside(self, ending: str) -> Path:
        return self.image.with_name(self.image.name[: -len(self.suffix)] + ending)


def output_folder(path: Path) -> Path:
    """An existing folder, or a new one.

    Raises:
        InputError: a file, or a folder that cannot be made.
    """
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"cannot write into {path}: it is a file, name a folder")
        path.mkdir(exist_ok=True, parents=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {path}: {error.strerror or error}, name another place"
        ) from error
    except ValueError as error:  # a NUL in the name
        raise InputError(f"cannot make the folder {str(path)!r}: {error}") from error
    return path


def image_outputs(out: Path, name: str = "reconstruction") -> Outputs:
    """The files that ``--out`` stands for: an image file, or a folder for ``reconstruction.npy``.

    A name without a suffix is a folder; :func:`check_outputs` makes it if it is not there.

    Args:
        out: as given.
        name: of the image in a folder.

    Raises:
        InputError: a suffix that no image format has, or a format whose package is not installed.
    """
    folder = None
    if os.path.isdir(out) or not out.suffix:
        if os.path.isfile(out):
            raise InputError(f"cannot write into {out}: it is a file, name a folder")
        folder, out = out, out / f"{name}.npy"
    suffix = next((s for s in _IMAGE_SUFFIXES if out.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(
            f"cannot write {out}: expected a folder, or a name that ends in "
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
    """The files that :func:`ctxrecon.io.write_image` makes of so many images."""
    suffix = path.suffix.lower()
    if count > 1 and (suffix == ".png" or (suffix == DICOM and single_frames)):
        return [path.with_stem(f"{path.stem}_{index:03d}") for index in range(count)]
    return [path, path.with_suffix(".hdr")] if suffix == ".cfl" else [path]


def input_files(*paths: Path | str | None) -> list[Path]:
    """All files that a command reads: those of folders, and both files of a BART pair."""
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
    """Refuse outputs that cannot be written or would replace what is to be kept.

    Args:
        outputs: every file that the command may write.
        inputs: every file that it reads, see :func:`input_files`; these are never replaced.
        overwrite: whether other files may be replaced.
        folder: that is made first; removed again if there is something to refuse.
        remedy: end of the sentence about a file that is there.

    Raises:
        InputError: naming the file, for each in a sentence of its own.
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
                    f"cannot write {path}: it is the input {other}, name another --out"
                )
        for path in outputs:
            if os.path.lexists(path) and not overwrite:
                raise InputError(f"{path} exists{remedy}")
    except InputError:
        if new and folder is not None:
            with suppress(OSError):
                folder.rmdir()
        raise
