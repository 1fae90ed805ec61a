"""Bank of cached anatomies from which training draws phantom slices on the fly."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.npz import Archive
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.person import Person
from ctxrecon.phantom.structures import Structure
from ctxrecon.phantom.tissues import Tissue

OLD_BANK = (
    "this bank of anatomies was made before segmentations were stored and has none: make the bank "
    "again with training/build_bank.py"
)

_NEEDED = ("labels", "voxel_mm", "slices", "notes")
"""Arrays that every bank has."""
# Errors of damaged notes, and of :meth:`AnatomyBank._check`
_DAMAGE = (LookupError, ValueError, TypeError, AttributeError, RecursionError)


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
        """Write the bank as ``.npz``, to a temporary file that is then renamed.

        Raises:
            InputError: If the file cannot be written.
        """
        path = Path(path)
        persons = [None if one is None else [one.age, one.sex] for one in self.persons]
        notes = json.dumps(
            {"names": self.names, "pathologies": self.pathologies, "persons": persons}
        )
        with written_beside(path) as beside, beside.open("wb") as file:
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
            with Archive(path, of_labels=True) as file:
                arrays = {name: file.get(name) for name in (*_NEEDED, "subjects", "structures")}
            if missing := [name for name in _NEEDED if arrays[name] is None]:
                raise ValueError(f"it lacks {' and '.join(missing)}")
            found: dict[str, Any] = arrays
            notes = json.loads(found.pop("notes").tobytes().decode())
            names = tuple(map(str, notes["names"]))
            persons = notes.get("persons", [None] * len(names))
            bank = cls(
                names=names,
                pathologies=tuple(tuple(map(str, each)) for each in notes["pathologies"]),
                persons=tuple(None if one is None else Person(*one) for one in persons),
                **found,
            )
            bank._check()
        except _DAMAGE as e:
            raise InputError(f"{path} is not an anatomy bank, or damaged: {e!s:.200}") from e
        return bank

    def _check(self) -> None:
        """Validate the types, lengths and values of all fields.

        Raises:
            ValueError: If one of them is wrong.
        """
        count = len(self)
        for name in ("labels", "structures"):
            maps = getattr(self, name)
            if maps is not None and (maps.dtype != np.uint8 or maps.ndim != 3 or not maps.size):
                raise ValueError(f"expected {name} (count, ny, nx) of uint8")
        if self.structures is not None and self.structures.shape != self.labels.shape:
            raise ValueError("its structures and labels have different shapes")
        if self.labels.max() >= len(Tissue):
            raise ValueError(f"expected labels below {len(Tissue)}, got {self.labels.max()}")
        for name, kinds in (("voxel_mm", "f"), ("slices", "i"), ("subjects", "i")):
            values = getattr(self, name)
            if values is not None and (values.dtype.kind not in kinds or values.ndim != 1):
                raise ValueError(f"expected one number for each anatomy in {name}")
        if not (np.isfinite(self.voxel_mm) & (self.voxel_mm > 0)).all():
            raise ValueError("expected positive values in voxel_mm")
        for name in ("labels", "voxel_mm", "slices", "pathologies", "subjects", "persons"):
            values = getattr(self, name)
            if values is not None and len(values) != count:
                raise ValueError(f"it has {count} names, but {len(values)} entries of {name}")
