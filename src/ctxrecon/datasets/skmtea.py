"""SKM-TEA raw-data track: sagittal slices of the qDESS echoes with patient metadata."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctxrecon.coils import mvue
from ctxrecon.datasets.skmtea_boxes import Box, boxes_digest, read_boxes
from ctxrecon.datasets.source import Slice, VolumeSource, central, check_size, digest
from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.io._arrays import check_complex
from ctxrecon.io.hdf5 import hdf5_member, open_hdf5
from ctxrecon.metadata import ScanMetadata, plausible_metadata

logger = logging.getLogger(__name__)

_ID = "MTR_ID"
_NUMBERS = {
    "age": "PatientAge",
    "tr": "RepetitionTime",
    "te": "EchoTime1",
    "flip_angle": "FlipAngle",
}
_SEX = "PatientSex"
_ECHOES = {"1": (1,), "2": (2,), "both": (1, 2)}
_CONTRASTS = {1: "PD", 2: "T2"}

# Planes below this share of the volume's largest value contain only rounding errors.
_ROUNDING = 1e-6


class SKMTEASource(VolumeSource):
    """Source of SKM-TEA files ``files_recon_calib-24/*.h5`` with their own coil maps.

    A file contains hybrid k-space ``kspace`` ``(x, ky, kz, echoes, coils)``, already transformed
    along the readout, and ``maps`` ``(x, y, z, coils, 1)`` (Desai et al., NeurIPS 2021, DATASET.md
    of StanfordMIMI/skm-tea). Coils are combined by the maps over ``(y, z)`` for each x. A slice of
    the training set is the sagittal plane ``(x, y)`` at one z, as in ContextMRI, whose slices are
    numbered from 0 to 159 at 512 × 512. The contrast of the first echo is ``"PD"`` and that of the
    second ``"T2"``, the two that ContextMRI lists for SKM-TEA. The echo time in its examples
    (5.876, 6.428 ms) is that of the first echo. The second echo forms at 2 TR − TE (Sveinsson et
    al., Magn Reson Imaging 38:63, 2017).

    Args:
        headers: ``all_metadata.csv`` of the data set; its rows are matched to file names by
            ``MTR_ID``.
        size: Image size ``(ny, nx)`` along ``(x, y)``.
        echo: Echo ``"1"``, ``"2"``, or ``"both"``, with all slices of the first echo before those
            of the second.
        annotations: Folder of one version of the boxes, such as ``annotations/v1.0.0``. The
            metadata of a slice list the categories of the boxes that reach into it with a
            confidence of 4 or more.
    """

    kind = "skm-tea"
    suffixes = (".hdf5", ".h5")
    prompt_form = "skm-tea"

    def __init__(
        self,
        *,
        headers: Path,
        size: tuple[int, int] = (512, 512),
        echo: str = "1",
        annotations: Path | None = None,
    ) -> None:
        if echo not in _ECHOES:
            raise InputError(f"expected `echo` as '1', '2' or 'both', got {echo!r}")
        self.size = check_size(size)
        self.echo = echo
        self._known = read_headers(headers)
        self._digest = digest(headers)
        self._boxes = None if annotations is None else read_boxes(annotations)
        self._boxes_digest = None if annotations is None else boxes_digest(annotations)

    def settings(self) -> dict[str, Any]:
        """Return size and echo, and headers and annotations as hashes of their content."""
        return {
            "size": list(self.size),
            "echo": self.echo,
            "headers_sha256": self._digest,
            "annotations_sha256": self._boxes_digest,
        }

    def slices(self, path: Path) -> Iterator[Slice | None]:
        """Yield the sagittal slices of a file; its k-space is read one x at a time."""
        known = self._known.get(self.name(path))
        if known is None:
            raise InputError(
                f"{path}: the table of headers has no row with {_ID} {self.name(path)!r}: pass the "
                "all_metadata.csv that belongs to the files"
            )
        boxes = self._boxes_of(path)
        for echo in _ECHOES[self.echo]:
            volume, rows, columns = _echo_volume(path, self.size, echo)
            largest = [float(np.abs(image).max()) for image in volume]
            metadata = _of_echo(known, echo)
            for index, image in enumerate(volume):
                if largest[index] <= _ROUNDING * max(largest):
                    yield None
                    continue
                seen = [box.name for box in boxes if box.is_seen(rows, columns, index)]
                yield Slice(image, replace(metadata, slice=index, pathologies=tuple(seen)))

    def _boxes_of(self, path: Path) -> tuple[Box, ...]:
        if self._boxes is None:
            return ()
        name = self.name(path)
        if name not in self._boxes:
            logger.warning("%s: the annotations contain no scan %r: no findings", path, name)
        return self._boxes.get(name, ())


def _of_echo(known: ScanMetadata, echo: int) -> ScanMetadata:
    """Convert the metadata of the first echo to those of the given echo."""
    te = known.te
    if echo == 2:
        te = None if te is None or known.tr is None else round(2 * known.tr - te, 6)
    return replace(known, contrast=_CONTRASTS[echo], te=te)


def _echo_volume(
    path: Path, size: tuple[int, int], echo: int
) -> tuple[NDArray[np.complex64], slice, slice]:
    """Return the central MVUE volume as ``(z, x, y)``, and its position in ``(x, y)``."""
    with open_hdf5(path) as file:
        kspace, maps = (_member(path, file, name) for name in ("kspace", "maps"))
        nx, ny, nz, echoes, coils = kspace.shape
        if maps.shape[:4] != (nx, ny, nz, coils):
            raise InputError(
                f"{path}: its maps {maps.shape} do not fit its k-space {kspace.shape}: expected "
                "(x, y, z, coils, 1) and (x, ky, kz, echoes, coils)"
            )
        if echoes < echo:
            raise InputError(f"{path}: expected echo {echo} in its k-space, which has {echoes}")
        rows, columns = central(path, (nx, ny), size)
        volume = np.empty((nz, *size), np.complex64)
        for number, x in enumerate(range(rows.start, rows.stop)):
            plane = _plane(path, kspace[x, :, :, echo - 1, :], "kspace")
            plane_maps = _plane(path, maps[x, :, :, :, 0], "maps")
            volume[:, number] = mvue(plane, plane_maps)[0].T[:, columns].numpy()
    return volume, rows, columns


def _plane(path: Path, array: NDArray[np.complexfloating], name: str) -> Tensor:
    """Convert ``(y, z, coils)`` of a file to a validated ``(1, coils, y, z)``."""
    if not np.isfinite(array).all():
        raise InputError(
            f"{path}: {name!r} contains values that are not finite: the file is damaged, copy it "
            "again"
        )
    return torch.from_numpy(np.moveaxis(array, -1, 0).astype(np.complex64, order="C")[None])


def _member(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    if name not in file:
        raise InputError(
            f"{path}: expected {name!r} of SKM-TEA's raw-data track (files_recon_calib-24), found "
            f"{', '.join(repr(key[:40]) for key in list(file)[:8]) or 'nothing'}"
        )
    dataset = hdf5_member(path, file, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 5 or min(dataset.shape) < 1:
        raise InputError(
            f"{path}: expected {name!r} as an array of 5 axes, got shape "
            f"{getattr(dataset, 'shape', None)}"
        )
    check_complex(path, dataset.dtype, name)
    check_expansion(path, dataset.nbytes, dataset.id.get_storage_size(), name)
    return dataset


def read_headers(path: Path) -> dict[str, ScanMetadata]:
    """Read SKM-TEA's table of headers, ``all_metadata.csv``.

    Args:
        path: CSV file with the columns ``MTR_ID``, ``PatientAge``, ``PatientSex``,
            ``RepetitionTime``, ``EchoTime1`` and ``FlipAngle`` (years, ms, degrees). Empty fields
            are unknown; implausible ones are omitted with a warning.

    Returns:
        Scan id → metadata of every slice of the scan.

    Raises:
        InputError: If the file does not exist, is not CSV, lacks a column, or repeats a scan.
    """
    if not path.is_file():
        raise InputError(f"no table of SKM-TEA headers at {path}; expected all_metadata.csv")
    found: dict[str, ScanMetadata] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            expected = (_ID, _SEX, *_NUMBERS.values())
            if missing := [name for name in expected if name not in columns]:
                raise InputError(f"{path}: expected the column {missing[0]!r}, got {list(columns)}")
            for row in reader:
                scan, where = (row[_ID] or "").strip(), f"{path}, line {reader.line_num}"
                if not scan or scan in found:
                    raise InputError(f"{where}: expected one row per {_ID}, got {scan!r}")
                found[scan] = _metadata(row, where)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: expected a CSV file in UTF-8 ({error})") from error
    return found


def _metadata(row: dict[str, str], where: str) -> ScanMetadata:
    texts = {field: (row[column] or "").strip() for field, column in _NUMBERS.items()}
    values: dict[str, Any] = {}
    for field, text in texts.items():
        try:
            values[field] = float(text) if text else None
        except ValueError:
            logger.warning("%s: expected %s as a number, got %r: omitted", where, field, text)
    return plausible_metadata(
        where, anatomy="knee", sequence="Qdess", sex=(row[_SEX] or "").strip() or None, **values
    )
