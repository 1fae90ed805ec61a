"""A bank of cached anatomies, so that training draws phantom slices on the fly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.phantom.anatomy import Anatomy


@dataclass(frozen=True)
class AnatomyBank:
    """Many anatomies of one size, kept as bytes.

    Attributes:
        labels: ``(count, ny, nx)`` uint8 tissue labels.
        names, voxel_mm, slices, pathologies: one entry for each anatomy, see :class:`Anatomy`.
    """

    labels: NDArray[np.uint8]
    names: tuple[str, ...]
    voxel_mm: NDArray[np.float32]
    slices: NDArray[np.int32]
    pathologies: tuple[tuple[str, ...], ...]

    @classmethod
    def build(cls, draws: Iterable[Callable[[], Anatomy]]) -> AnatomyBank:
        """Call each draw in turn and keep what it gives; all must be of one size."""
        anatomies = [draw() for draw in draws]
        if not anatomies:
            raise InputError("an anatomy bank needs at least one anatomy, got none")
        if len({anatomy.labels.shape for anatomy in anatomies}) != 1:
            raise InputError("expected anatomies of one size in a bank; draw them with one `size`")
        return cls(
            labels=np.stack([anatomy.labels for anatomy in anatomies]),
            names=tuple(anatomy.name for anatomy in anatomies),
            voxel_mm=np.array([anatomy.voxel_mm for anatomy in anatomies], np.float32),
            slices=np.array([anatomy.slice for anatomy in anatomies], np.int32),
            pathologies=tuple(anatomy.pathologies for anatomy in anatomies),
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Anatomy:
        return Anatomy(
            name=self.names[index],
            labels=self.labels[index],
            voxel_mm=float(self.voxel_mm[index]),
            slice=int(self.slices[index]),
            pathologies=self.pathologies[index],
            structures=self.labels[index],
        )

    def save(self, path: str | Path) -> None:
        """Write as ``.npz`` (written beside, then renamed)."""
        path = Path(path)
        beside = path.with_name(f".{path.name}.partial")
        notes = json.dumps({"names": self.names, "pathologies": self.pathologies})
        with beside.open("wb") as file:
            np.savez_compressed(
                file,
                labels=self.labels,
                voxel_mm=self.voxel_mm,
                slices=self.slices,
                notes=np.frombuffer(notes.encode(), np.uint8),
            )
        os.replace(beside, path)

    @classmethod
    def load(cls, path: str | Path) -> AnatomyBank:
        """Read what :meth:`save` wrote."""
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no anatomy bank at {path}; make one with training/build_bank.py")
        try:
            with np.load(path, allow_pickle=False) as file:
                notes = json.loads(file["notes"].tobytes().decode())
                return cls(
                    labels=file["labels"],
                    names=tuple(notes["names"]),
                    voxel_mm=file["voxel_mm"],
                    slices=file["slices"],
                    pathologies=tuple(tuple(found) for found in notes["pathologies"]),
                )
        except (KeyError, ValueError, OSError) as error:
            raise InputError(f"{path.name} is not an anatomy bank: {error}") from error
