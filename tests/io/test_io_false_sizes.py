"""Sizes that an HDF5 file claims are checked before memory is taken."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_io_ismrmrd import header_xml, lines, phantom, write_raw

from ctxrecon.errors import InputError
from ctxrecon.io import read_scan

K = phantom()


def claim(path: Path, name: str, member: str | None) -> None:
    """Have the first sequence of a dataset claim 2³¹ − 1 elements."""
    with h5py.File(path) as file:
        dataset = file[name].id
        place, kind = dataset.get_offset(), dataset.get_type()
        if place is None:
            place = dataset.get_chunk_info(0).byte_offset
        if member is not None:
            place += kind.get_member_offset(kind.get_member_index(member.encode()))
    raw = bytearray(path.read_bytes())
    raw[place : place + 4] = (2**31 - 1).to_bytes(4, "little")
    path.write_bytes(raw)


@pytest.mark.parametrize("chunks", [None, (3,)])
@pytest.mark.parametrize("member", ["data", "traj", None])
def test_sequences_longer_than_the_file(tmp_path, chunks, member):
    path = write_raw(tmp_path / "raw.h5", lines(K))
    with h5py.File(path, "r+") as file:
        table = file["dataset/data"]
        values, dtype = table[:], table.dtype
        del file["dataset/data"]
        file["dataset"].create_dataset("data", data=values, dtype=dtype, chunks=chunks)
    assert len(read_scan(path)) == 1
    claim(path, "dataset/data" if member else "dataset/xml", member)
    with pytest.raises(InputError, match=f"{member or 'xml'}' states"):
        read_scan(path)


def test_elements_and_chunks_larger_than_the_file(tmp_path):
    path = tmp_path / "k.h5"
    with h5py.File(path, "w") as file:
        kind = h5py.h5t.create(h5py.h5t.COMPOUND, 2**31)
        for place, part in enumerate((b"r", b"i")):
            kind.insert(part, 4 * place, h5py.h5t.IEEE_F32LE)
        h5py.h5d.create(file.id, b"kspace", kind, h5py.h5s.create_simple((1, 8, 8)))
    with pytest.raises(InputError, match="2048 MiB"):
        read_scan(path)
    with h5py.File(path, "w") as file:
        shape = (1, 1, 2, 2)
        chunks = (2, 8, 2048, 2048)
        file.create_dataset("kspace", shape, "c8", maxshape=(None,) * 4, chunks=chunks)
    with pytest.raises(InputError, match="a chunk of 'kspace' states"):
        read_scan(path)


def test_few_readouts_of_a_large_matrix(tmp_path):
    size = (64, 60000, 1)
    readouts = lines(phantom(ny=64))
    path = write_raw(tmp_path / "raw.h5", readouts, header_xml(size, size, 30000, 59999))
    with pytest.raises(InputError, match="states"):
        read_scan(path)


def test_a_damaged_member_of_another_compression(tmp_path):
    content = io.BytesIO()
    np.save(content, K)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("kspace.npy", content.getvalue())
    raw = bytearray(path.read_bytes())
    raw[60:90] = b"\xff" * 30
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.npz"):
        read_scan(path)
