"""Bank of cached anatomies from which training draws phantom slices on the fly."""

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
    "this bank of anatomies was made before segmentations were stored and has none: make the bank "
    "again with training/build_bank.py"
)

# Errors that NumPy, zipfile and json raise for damaged archives
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
    """Many anatomies of one size, stored compactly.

    Attributes:
        labels: Tissue labels, uint8 ``(count, ny, nx)``.
        names, voxel_mm, pathologies: One entry per anatomy; see :class:`Anatomy`.
        slices: Slice number of each anatomy, −1 for none.
        subjects: Number of the person of each anatomy; ``None`` in old banks.
        persons: Age and sex of the person of each anatomy; ``None`` if unknown.
        structures: Structure labels, uint8 ``(count, ny, nx)``; ``None`` in old banks.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import AnatomyBank, brain_anatomy
        >>> bank = AnatomyBank.build([brain_anatomy(torch.Generator().manual_seed(0), size=64)])
        >>> len(bank), bank[0].name
        (1, 'brain')
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
        """Build a bank from anatomies of one size.

        Args:
            anatomies: One anatomy or more.
            subjects: Number of the person of each anatomy; by default all are different persons.

        Raises:
            InputError: If there are no anatomies, or their sizes differ.
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
        """Split the bank into two without common persons, the first with this share of persons.

        Raises:
            InputError: If the share leaves one part empty, or the bank has no subject numbers.
        """
        if self.subjects is None:
            raise InputError(
                "this bank does not store its subjects: make it again with training/build_bank.py"
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
        """Return the part of the bank with this anatomy, such as ``"knee"``.

        Raises:
            InputError: If there is none.
        """
        numbers = [number for number, each in enumerate(self.names) if each == name]
        if not numbers:
            known = ", ".join(sorted(set(self.names)))
            raise InputError(f"this bank has no {name}, only {known}: build one with it")
        return self._part(np.array(numbers))

    def showing(self, structures: Collection[Structure], *, pixels: int = 1) -> AnatomyBank:
        """Return the part of the bank that shows one of these structures.

        Args:
            structures: Structures, such as ``[Structure.MASS]``.
            pixels: Minimum number of pixels that they cover.

        Raises:
            InputError: If no anatomy shows them, or the bank has no structures.
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
        """Write the bank as ``.npz``, to a temporary file that is then renamed."""
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
        """Read a bank written by :meth:`save`.

        Raises:
            InputError: If there is no such file, or it is not a bank or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"no anatomy bank at {path}; make one with training/build_bank.py")
        try:
            with np.load(path, allow_pickle=False) as file:
                notes = json.loads(file["notes"].tobytes().decode())
                names, found = len(notes["names"]), len(file["labels"])
                if names != found:
                    raise ValueError(f"it has {names} names for {found} anatomies")
                persons = notes.get("persons", [None] * names)
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
