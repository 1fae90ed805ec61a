"""Where a command writes, checked before any work is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctxrecon.errors import InputError

_IMAGE_SUFFIXES = (".npy", ".npz", ".cfl", ".nii.gz", ".nii", ".png")


@dataclass(frozen=True)
class Outputs:
    """The files of one reconstruction; the figure and the metrics lie beside the image.

    Attributes:
        image: in the format that its suffix names.
        std: standard deviation of the posterior samples, in the same format.
        figure: PNG.
        metrics: JSON.
        masks: ``.npy``, of a model that chooses its samples.
        lines: JSON, of such a model.
        t2star: ``.npy``, of such a model.
    """

    image: Path
    std: Path
    figure: Path
    metrics: Path
    masks: Path
    lines: Path
    t2star: Path


def check_parent(path: Path) -> None:
    """Refuse a path whose folder is not there."""
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist, create it")


def output_folder(path: Path) -> Path:
    """An existing folder, or a new one in an existing folder."""
    if path.is_file():
        raise InputError(f"cannot write into {path}: it is a file, name a folder")
    check_parent(path)
    path.mkdir(exist_ok=True)
    return path


def image_outputs(out: Path) -> Outputs:
    """The files that ``--out`` stands for: an image file, or a folder for ``reconstruction.npy``.

    A name without a suffix is a folder, made if it is not there.
    """
    if out.is_dir() or not out.suffix:
        out = output_folder(out) / "reconstruction.npy"
    check_parent(out)
    suffix = next((s for s in _IMAGE_SUFFIXES if out.name.lower().endswith(s)), None)
    if suffix is None:
        raise InputError(
            f"cannot write {out}: expected a folder, or a name that ends in "
            f"{', '.join(_IMAGE_SUFFIXES)}, got {out.suffix}"
        )
    if suffix in {".nii", ".nii.gz"}:
        import importlib.util

        if importlib.util.find_spec("nibabel") is None:
            raise InputError(
                f"cannot write {out}: NIfTI needs nibabel, install it with "
                "pip install 'ctxrecon[io]'"
            )
    stem = out.name[: -len(suffix)]

    def beside(ending: str) -> Path:
        return out.with_name(stem + ending)

    endings = ("_figure.png", "_metrics.json", "_masks.npy", "_lines.json", "_t2star.npy")
    return Outputs(out, beside(f"_std{suffix}"), *map(beside, endings))
