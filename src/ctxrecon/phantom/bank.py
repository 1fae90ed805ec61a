"""A bank of cached anatomies, so that training draws phantom slices on the fly."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.person import Person
from ctxrecon.phantom.structures import Structure

OLD_BANK = (
    "these anatomies carry no segmentation, their bank is from before it was noted: make the bank "
    "again with training/build_bank.py"
)

# What NumPy, zipfile and json raise for a damaged archive.
_DAMAGE = (
    LookupError,
    ValueError,
    TypeError,
    OSError,
    EOFError,
    BadZipFile,
    RuntimeError,
    SyntaxError,
    TokenError,
    zlib.error,
)


@dataclass(frozen=True)
class AnatomyBank:
    """Many anatomies of one size, kept as bytes.

    Attributes:
        labels: ``(count, ny, nx)`` uint8 tissue labels.
        names, voxel_mm, pathologies: one entry for each anatomy, see :class:`Anatomy`.
        slices: likewise, −1 for one without a number.
        subjects: number of the person that each anatomy is of; ``None`` in old banks.
        persons: age and sex of that person, ``None`` where they are not known.
        structures: ``(count, ny, nx)`` uint8, see :class:`Anatomy`; ``None`` in old banks.
    """

    labels: NDArray[np.uint8]
    names: tuple[str, ...]
    voxel_mm: NDArray[np.float32]
    slices: NDArray[np.int32]
    pathologies: tuple[tuple[str, ...], ...]
    subjects: NDArray[np.int32] | None
    persons: tuple[Person | None, ...]
    structures: NDArray[np.uint8] | None = None

    @classmethod
    def build(
        cls, anatomies: Sequence[Anatomy], subjects: Sequence[int] | None = None
    ) -> AnatomyBank:
        """Keep anatomies, which must be of one size.

        Args:
            anatomies: one or more.
            subjects: the person that each is of; by default everyone is another.
        """
        if not anatomies:
            raise InputError("an anatomy bank needs at least one anatomy, got none")
        if len({anatomy.labels.shape for anatomy in anatomies}) != 1:
            raise InputError("expected anatomies of one size in a bank; draw them with one `size`")
        segmented = [one.structures for one in anatomies if one.structures is not None]
        return cls(
            labels=np.stack([anatomy.labels for anatomy in anatomies]),
            names=tuple(anatomy.name for anatomy in anatomies),
            voxel_mm=np.array([anatomy.voxel_mm for anatomy in anatomies], np.float32),
            slices=np.array(
                [-1 if one.slice is None else one.slice for one in anatomies], np.int32
            ),
            pathologies=tuple(anatomy.pathologies for anatomy in anatomies),
            subjects=np.array(range(len(anatomies)) if subjects is None else subjects, np.int32),
            persons=tuple(anatomy.person for anatomy in anatomies),
            structures=None if len(segmented) < len(anatomies) else np.stack(segmented),
        )

    def split(self, share: float, *, seed: int = 0) -> tuple[AnatomyBank, AnatomyBank]:
        """Two banks without a common person, the first with this share of the people.

        Raises:
            InputError: a share that leaves one of them empty, or a bank from before people were
                noted.
        """
        if self.subjects is None:
            raise InputError(
                "this bank does not say who is who: make it again with training/build_bank.py"
            )
        people = np.random.default_rng(seed).permutation(np.unique(self.subjects))
        count = round(share * len(people))
        if not 0 < count < len(people):
            raise InputError(
                f"expected a share that splits {len(people)} people in two, got {share:g}"
            )
        first = np.isin(self.subjects, people[:count])
        return self._part(np.flatnonzero(first)), self._part(np.flatnonzero(~first))

    def of_anatomy(self, name: str) -> AnatomyBank:
        """The part of the bank with this anatomy, such as ``"knee"``.

        Raises:
            InputError: a bank without any.
        """
        numbers = [number for number, each in enumerate(self.names) if each == name]
        if not numbers:
            known = ", ".join(sorted(set(self.names)))
            raise InputError(f"this bank has no {name}, only {known}: build one with it")
        return self._part(np.array(numbers))

    def showing(self, structures: Collection[Structure], *, pixels: int = 1) -> AnatomyBank:
        """The part of the bank that shows one of these structures.

        Args:
            structures: such as ``[Structure.MASS]``.
            pixels: of the anatomy that it covers at least.

        Raises:
            InputError: a bank without any, or from before structures were noted.
        """
        if self.structures is None:
            raise InputError(OLD_BANK)
        wanted = np.zeros(256, bool)
        wanted[list(structures)] = True
        seen = [int(wanted[one].sum()) >= pixels for one in self.structures]
        if not any(seen):
            named = ", ".join(structure.name.lower() for structure in structures)
            raise InputError(f"no anatomy of this bank shows {named}: build one with it")
        return self._part(np.flatnonzero(seen))

    def _part(self, numbers: NDArray[np.int64]) -> AnatomyBank:
        return AnatomyBank(
            labels=self.labels[numbers],
            names=tuple(self.names[number] for number in numbers),
            voxel_mm=self.voxel_mm[numbers],
            slices=self.slices[numbers],
            pathologies=tuple(self.pathologies[number] for number in numbers),
            subjects=None if self.subjects is None else self.subjects[numbers],
            persons=tuple(self.persons[number] for number in numbers),
            structures=None if self.structures is None else self.structures[numbers],
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Anatomy:
        return Anatomy(
            name=self.names[index],
            labels=self.labels[index],
            voxel_mm=float(self.voxel_mm[index]),
            slice=None if self.slices[index] < 0 else int(self.slices[index]),
            pathologies=self.pathologies[index],
            structures=None if self.structures is None else self.structures[index],
            person=self.persons[index],
        )

    def save(self, path: str | Path) -> None:
        """Write as ``.npz`` (written beside, then renamed)."""
        path = Path(path)
        beside = path.with_name(f".{path.name}.partial")
        persons = [None if one is None else [one.age, one.sex] for one in self.persons]
        notes = json.dumps(
            {"names": self.names, "pathologies": self.pathologies, "persons": persons}
        )
        with beside.open("wb") as file:
            known: dict[str, Any] = {}
            if self.subjects is not None:
                known["subjects"] = self.subjects
            if self.structures is not None:
                known["structures"] = self.structures
            np.savez_compressed(
                file,
                labels=self.labels,
                voxel_mm=self.voxel_mm,
                slices=self.slices,
                notes=np.frombuffer(notes.encode(), np.uint8),
                **known,
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
                persons = notes.get("persons", [None] * len(notes["names"]))
                return cls(
                    labels=file["labels"],
                    names=tuple(notes["names"]),
                    voxel_mm=file["voxel_mm"],
                    slices=file["slices"],
                    pathologies=tuple(tuple(found) for found in notes["pathologies"]),
                    subjects=file.get("subjects"),
                    persons=tuple(None if one is None else Person(*one) for one in persons),
                    structures=file.get("structures"),
                )
        except _DAMAGE as e:
            raise InputError(f"{path} is not an anatomy bank, or damaged: {e!s:.200}") from e
