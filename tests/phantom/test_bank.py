"""Banks of anatomies from files: whole, or refused with one sentence."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank, brain_anatomy, knee_anatomy

NOTES = {"names": ["knee", "brain"], "pathologies": [["Joint Effusion"], []]}
ARRAYS = {
    "labels": np.ones((2, 8, 8), np.uint8),
    "voxel_mm": np.ones(2, np.float32),
    "slices": np.array([3, -1], np.int32),
    "subjects": np.arange(2, dtype=np.int32),
    "structures": np.zeros((2, 8, 8), np.uint8),
}


def write(path: Path, noted: dict[str, Any] | None = None, **changed: Any) -> Path:
    """Write a bank with changed arrays and notes; ``None`` leaves an array out."""
    text = json.dumps(NOTES | (noted or {})).encode()
    arrays = {**ARRAYS, "notes": np.frombuffer(text, np.uint8), **changed}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_a_bank_is_read_as_it_was_written(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    bank = AnatomyBank.build([draw(generator, size=64) for draw in (brain_anatomy, knee_anatomy)])
    bank.save(tmp_path / "bank.npz")
    back = AnatomyBank.load(tmp_path / "bank.npz")
    assert (back.names, back.pathologies, back.persons) == (
        bank.names,
        bank.pathologies,
        bank.persons,
    )
    for name in ("labels", "voxel_mm", "slices", "subjects", "structures"):
        np.testing.assert_array_equal(getattr(back, name), getattr(bank, name))
    assert [path.name for path in tmp_path.iterdir()] == ["bank.npz"]


def test_old_banks_lack_subjects_structures_and_persons(tmp_path: Path) -> None:
    bank = AnatomyBank.load(write(tmp_path / "a.npz", subjects=None, structures=None))
    assert bank[0].pathologies == ("Joint Effusion",)
    assert (bank[1].slice, bank[1].structures, bank[1].person) == (None, None, None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": None}, "lacks labels"),
        ({"labels": np.ones((2, 8, 8), np.float32)}, "labels .* uint8"),
        ({"labels": np.ones(2, np.uint8)}, "labels .* uint8"),
        ({"labels": np.full((2, 8, 8), 255, np.uint8)}, "labels below"),
        ({"labels": np.ones((3, 8, 8), np.uint8), "structures": None}, "3 entries of labels"),
        ({"structures": np.zeros((2, 4, 4), np.uint8)}, "different shapes"),
        ({"voxel_mm": np.ones(1, np.float32)}, "1 entries of voxel_mm"),
        ({"voxel_mm": np.array([1, np.nan])}, "positive values in voxel_mm"),
        ({"slices": np.ones((2, 2), np.int32)}, "in slices"),
        ({"subjects": np.arange(1, dtype=np.int32)}, "1 entries of subjects"),
        ({"notes": np.frombuffer(b"{", np.uint8)}, "anatomy bank"),
        ({"notes": np.ones(3)}, "anatomy bank"),
    ],
)
def test_damaged_arrays(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AnatomyBank.load(write(tmp_path / "a.npz", **changed))


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"pathologies": [[]]}, "1 entries of pathologies"),
        ({"pathologies": 3}, "anatomy bank"),
        ({"persons": [[40, "F"]]}, "1 entries of persons"),
        ({"persons": [[4, "F"], None]}, "adult"),
        ({"persons": [[40, "F", 2], None]}, "anatomy bank"),
    ],
)
def test_damaged_notes(tmp_path: Path, notes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        AnatomyBank.load(write(tmp_path / "a.npz", notes))


def test_sizes_that_no_file_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", labels=None)
    header = io.BytesIO()
    claimed = {"descr": "|u1", "fortran_order": False, "shape": (2, 2**25, 2**24)}
    np.lib.format.write_array_header_1_0(header, claimed)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("labels.npy", header.getvalue())
    with pytest.raises(InputError, match="truncated or damaged"):
        AnatomyBank.load(path)


def test_a_bank_that_cannot_be_written(tmp_path: Path) -> None:
    bank = AnatomyBank.load(write(tmp_path / "a.npz"))
    with pytest.raises(InputError, match="none"):
        bank.save(tmp_path / "none" / "b.npz")
