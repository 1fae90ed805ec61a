"""Damaged files of every format are read or rejected with an error; the process never ends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks.fuzz.harness import FAILURES, HANG, MEMORY, REFUSED, Limits, Mutant, fuzz
from benchmarks.fuzz.mutations import PAYLOAD, STRUCTURE, mutate
from benchmarks.fuzz.subjects import SUBJECTS, Subject
from ctxrecon.errors import InputError
from ctxrecon.io import read_scan

_NEEDS = {"twix": "twixtools", "NIfTI": "nibabel", "DICOM": "pydicom"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_no_mutation_ends_the_process(subject):
    for name, package in _NEEDS.items():
        if subject.name.startswith(name):
            pytest.importorskip(package)
    results = list(fuzz(subject, range(25), seed=1))
    assert [result for result in results if result.outcome in FAILURES] == []
    assert REFUSED in {result.outcome for result in results}


def test_the_same_seed_gives_the_same_mutations(tmp_path):
    subject = next(one for one in SUBJECTS if one.name == "npy")
    written: list[bytes] = []
    for seed in (0, 0, 1):
        folder = tmp_path / str(len(written))
        folder.mkdir()
        Mutant(subject, folder, seed).write(7)
        written.append((folder / "f.npy").read_bytes())
    assert written[0] == written[1] != written[2]


def test_parts_are_told_apart():
    raw = bytes(range(256)) * 4
    parts: Counter[str] = Counter()
    for index in range(300):
        data, part = mutate(raw, [(100, 1000)], np.random.default_rng(index))
        if part == STRUCTURE and len(data) == len(raw):
            assert data[100:1000] == raw[100:1000]
        parts[part] += 1
    assert parts[PAYLOAD] > 10
    assert parts[STRUCTURE] > 150


def _bad(kind: str) -> Subject:
    def read(path: Path) -> object:
        if path.read_bytes() == b"0123456789":
            return "whole"
        if kind == HANG:
            while True:
                pass
        return len(bytearray(3 * 2**30))

    return Subject("bad", ("f",), lambda folder: (folder / "f").write_bytes(b"0123456789"), read)


@pytest.mark.parametrize("kind", [HANG, MEMORY])
def test_limits_hold(kind):
    results = list(fuzz(_bad(kind), range(3), seed=0, limits=Limits(2**30, 0.3)))
    assert [result.outcome for result in results] == [kind] * 3


def test_a_heap_that_never_ends(tmp_path):
    """HDF5 goes round in free space of no size for ever."""
    path = tmp_path / "k.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = [[[1 + 1j] * 4] * 4]
        file["ismrmrd_header"] = "<ismrmrdHeader/>"
    raw = bytearray(path.read_bytes())
    heap = raw.index(b"GCOL")
    raw[heap + 16 : heap + 32] = bytes(16)
    path.write_bytes(raw)
    with pytest.raises(InputError, match="heap"):
        read_scan(path)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("userblock", [0, 512])
def test_bytes_behind_the_end_of_hdf5(tmp_path, caplog, libver, userblock):
    path = tmp_path / "k.h5"
    with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
        file["kspace"] = [[[1 + 1j] * 4] * 4]
    read_scan(path) if not userblock else h5py.File(path).close()
    assert "after its end" not in caplog.text
    path.write_bytes(path.read_bytes() + b"12345")
    if userblock:
        path = path.rename(path.with_suffix(".mat"))
        raw = bytearray(path.read_bytes())
        raw[:6] = b"MATLAB"
        path.write_bytes(raw)
    read_scan(path)
    assert "5 bytes after its end" in caplog.text
