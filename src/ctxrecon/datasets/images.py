"""Magnitude images of open collections: NIfTI volumes, DICOM series and stored slices."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from ctxrecon.datasets import collection, dicom_series, nifti
from ctxrecon.datasets.people import People
from ctxrecon.datasets.source import LeftOut, Slice, VolumeSource, check_size
from ctxrecon.datasets.volumes import Frame, bright_pixels, cut
from ctxrecon.errors import InputError
from ctxrecon.files import check_input
from ctxrecon.metadata import ScanMetadata

logger = logging.getLogger(__name__)


class ImageSource(VolumeSource):
    """Source of magnitude images, to which training adds phase, shading and noise.

    Inputs are files or folders. Folders are searched for NIfTI volumes, folders of DICOM files,
    and ``slices.npz`` next to ``slices.json`` (see
    :func:`ctxrecon.datasets.collection.load_collection`).

    Args:
        size: Image size ``(ny, nx)``. Images are cropped around their content or zero-padded; if
            the content does not fit, they are resampled in k-space.
        max_slices: Maximum number of evenly spaced slices per volume; collections are used
            completely.
        anatomy: Anatomy of volumes that do not specify theirs.
        contrast: Contrast of volumes that do not specify theirs.
        origin: Source and license of volumes that do not specify theirs.
        people: Selection of people (default: everybody).

    Example:
        >>> from ctxrecon.datasets import ImageSource
        >>> source = ImageSource(size=(256, 256), anatomy="brain")
        >>> source.suffixes
        ('.nii.gz', '.nii', 'slices.npz')
    """

    kind = "images"
    suffixes = (*nifti.SUFFIXES, collection.ARRAYS)

    def __init__(
        self,
        *,
        size: tuple[int, int] = (256, 256),
        max_slices: int = 60,
        anatomy: str | None = None,
        contrast: str | None = None,
        origin: str | None = None,
        people: People | None = None,
    ) -> None:
        self.size = check_size(size)
        if max_slices < 1:
            raise InputError(f"expected `max_slices` of at least 1, got {max_slices}")
        self.max_slices = max_slices
        self.default = ScanMetadata(anatomy=anatomy, contrast=contrast)
        self.origin = origin
        self.people = People() if people is None else people

    def settings(self) -> dict[str, Any]:
        """Return all settings except the volumes."""
        return {
            "size": list(self.size),
            "max_slices": self.max_slices,
            "anatomy": self.default.anatomy,
            "contrast": self.default.contrast,
            "origin": self.origin,
            **self.people.settings(),
        }

    def find(self, path: Path) -> list[tuple[str, Path]]:
        """Return the volumes in a file or folder, named by their path within the folder."""
        if not path.is_dir():
            return [(self.name(path), path)]
        root = path.resolve().parent
        found = []
        for name, folders, files in os.walk(path, onerror=_unreadable):
            folders[:] = sorted(each for each in folders if not each.startswith("."))
            folder = Path(name)
            volumes = [folder / file for file in sorted(files) if _is_volume(folder / file)]
            try:
                if dicom_series.dicom_files(folder):
                    volumes.append(folder)
            except OSError as error:
                _unreadable(error)
            found += [(_name(volume, root), volume) for volume in volumes]
        if not found:
            raise InputError(
                f"{path} contains no images: expected NIfTI volumes, DICOM files or "
                f"{collection.ARRAYS} in it"
            )
        return found

    def files(self, path: Path) -> list[Path]:
        """Return the image files of a volume and their sidecars."""
        if path.is_dir():
            return [check_input(file) for file in dicom_series.dicom_files(path)]
        beside = path.with_name(collection.NOTES)
        if path.name.lower().endswith(nifti.SUFFIXES):
            return [check_input(file) for file in (path, nifti.sidecar(path)) if file is not None]
        return [check_input(path), check_input(beside)]

    def name(self, path: Path) -> str:
        """Return the file name without its suffix; for a collection, the folder name."""
        if path.name == collection.ARRAYS:
            return path.resolve().parent.name
        if not path.name.lower().endswith(nifti.SUFFIXES):
            raise InputError(
                f"{path}: expected {' or '.join(self.suffixes)}, or a folder of such files or of "
                "DICOM files"
            )
        return nifti.stem(path)

    def slices(self, path: Path) -> Iterator[Slice | LeftOut | None]:
        """Yield the magnitude slices of a volume."""
        if path.is_dir():
            yield from self._of_series(path)
        elif path.name == collection.ARRAYS:
            yield from self._of_collection(path)
        else:
            yield from self._of_nifti(path)

    def _of_nifti(self, path: Path) -> Iterator[Slice | LeftOut | None]:
        subject = nifti.person(path)
        if subject not in self.people:
            yield LeftOut(subject)
            return
        known = self._filled(nifti.read_metadata(path))
        origin = nifti.origin(path) or self.origin
        for item in cut(path, nifti.load_volume(path), self.size, self.max_slices):
            if item is None:
                yield None
                continue
            metadata = replace(known, slice=item.number)
            yield Slice(item.image, metadata, subject, origin=origin)

    def _of_series(self, folder: Path) -> Iterator[Slice | LeftOut | None]:
        for series in dicom_series.read_series(folder):
            if series.subject not in self.people:
                yield LeftOut(series.subject)
                continue
            volume, stored = dicom_series.load_series(series)
            known = [self._filled(metadata) for metadata in stored]
            in_stack = volume.stored.index(2)
            for item in cut(folder, volume, self.size, self.max_slices):
                if item is None:
                    yield None
                    continue
                if item.axis == in_stack and item.stored is not None:
                    metadata = known[item.stored]
                else:
                    metadata = replace(known[len(known) // 2], slice=item.number)
                yield Slice(item.image, metadata, series.subject, origin=self.origin)

    def _of_collection(self, path: Path) -> Iterator[Slice | LeftOut | None]:
        images, notes = collection.load_collection(path)
        for index, (stored, note) in enumerate(zip(images, notes, strict=True)):
            if note.subject not in self.people:
                yield LeftOut(note.subject)
                continue
            image = collection.magnitude(stored, index)
            if image.shape != self.size:
                image = Frame.around(bright_pixels(image), self.size).apply(image)
            metadata, origin = self._filled(note.metadata), note.origin or self.origin
            yield Slice(image, metadata, note.subject, note.weight, origin)

    def _filled(self, metadata: ScanMetadata) -> ScanMetadata:
        """Fill in anatomy and contrast where they are unknown."""
        return replace(
            metadata,
            anatomy=metadata.anatomy or self.default.anatomy,
            contrast=metadata.contrast or self.default.contrast,
        )


def _unreadable(error: OSError) -> NoReturn:
    raise InputError(
        f"{error.filename} cannot be read ({error.strerror}): check its permissions"
    ) from error


def _is_volume(path: Path) -> bool:
    """Return whether to prepare a file of a folder; of BIDS files, only images of anatomy."""
    if path.name.startswith("."):
        return False
    if path.name == collection.ARRAYS:
        return True
    if not path.name.lower().endswith(nifti.SUFFIXES):
        return False
    name = nifti.BidsName.read(nifti.stem(path))
    if name is not None and not name.is_anatomical:
        logger.info("%s: skipped, its name is not that of an anatomical magnitude image", path)
        return False
    return True


def _name(volume: Path, root: Path) -> str:
    """Return the path of a volume relative to a folder, joined to one word."""
    place = volume.resolve().relative_to(root) if volume.is_dir() else None
    if volume.name == collection.ARRAYS:
        place = volume.parent.resolve().relative_to(root)
    if place is None:
        place = volume.parent.resolve().relative_to(root) / nifti.stem(volume)
    return "-".join(place.parts)
