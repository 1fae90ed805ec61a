"""Every malformed file raises a specific error that names the file."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
from test_io_ismrmrd import HEAD, header_xml, lines, phantom, write_raw

from ctxrecon.errors import InputError
from ctxrecon.io import read_scan

K = phantom()  # (coils 2, ny 16, nx 8) complex64


def npy(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array)


def npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def content(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def npy_header(shape: str, descr: str = "'<c8'", data: bytes = b"") -> Callable[[Path], object]:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return content(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)


def pickled() -> np.ndarray:
    return np.array([{"a": 1}], dtype=object)


def pickled_npz(path: Path) -> None:
    np.savez(path, kspace=K, prompts=pickled())


def cut(make: Callable[[Path], object], keep: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        make(path)
        os.truncate(path, int(path.stat().st_size * keep))

    return write


def bomb(path: Path) -> None:
    header = io.BytesIO()
    shape = (20, 8, 512, 512)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<c8", "fortran_order": False, "shape": shape}
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("kspace.npy", "w", force_zip64=True) as member,
    ):
        member.write(header.getvalue())
        zeros = bytes(2**24)
        for _ in range(20):
            member.write(zeros)


def hdf5(**members: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for name, value in members.items():
                file[name] = value

    return write


def other_storage(kind: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        other = path.with_name("other.h5")
        hdf5(kspace=K[None])(other)
        with h5py.File(path, "w") as file:
            if kind == "virtual":
                layout = h5py.VirtualLayout((1, *K.shape), K.dtype)
                layout[:] = h5py.VirtualSource(str(other), "kspace", (1, *K.shape))
                file.create_virtual_dataset("kspace", layout)
            else:
                size = h5py.h5f.UNLIMITED
                file.create_dataset("kspace", (1, *K.shape), "c8", external=[(str(other), 0, size)])

    return write


def mat(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda path: scipy.io.savemat(path, arrays)


def cfl(header: str | None, data: bytes = K.tobytes()) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)
        if header is not None:
            path.with_suffix(".hdr").write_text(header)

    return write


def raw(xml: str | None = None, **fields: int) -> Callable[[Path], Path]:
    return lambda path: write_raw(path, lines(K, **fields), xml)


def short_readout(path: Path) -> None:
    write_raw(path, lines(K))
    with h5py.File(path, "r+") as file:
        row = file["dataset/data"][3]
        row["data"] = row["data"][:-2]
        file["dataset/data"][3] = row


def different_coils(path: Path) -> None:
    write_raw(path, [*lines(K, (0,)), *lines(K[:1], (1,))])


def table_without(field: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        names = [name for name in HEAD.names or () if name != field]
        head = np.dtype([(name, HEAD[name]) for name in names])
        table = np.zeros(2, np.dtype([("head", head), ("data", "<f4", 4)]))
        hdf5(**{"dataset/xml": header_xml(), "dataset/data": table})(path)

    return write


def fractional_flags(path: Path) -> None:
    types = {name: HEAD[name] for name in HEAD.names or ()} | {"flags": np.dtype("<f8")}
    table = np.zeros(2, np.dtype([("head", np.dtype(list(types.items()))), ("data", "<f4", 4)]))
    hdf5(**{"dataset/xml": header_xml(), "dataset/data": table})(path)


def time_type(path: Path) -> None:
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((1, 8, 8))
        h5py.h5d.create(file.id, b"kspace", h5py.h5t.UNIX_D32LE, space)


def a_billion_slices(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", (10**9, 8, 8), "c8", chunks=(1, 8, 8))


def attribute(name: str, value: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        hdf5(kspace=K[None])(path)
        with h5py.File(path, "r+") as file:
            file.attrs[name] = value

    return write


REAL = np.stack([K[0].real] * 3)
NAN = K.copy()
NAN[0, 0, :3] = np.nan
HUGE = np.full((8, 8), 1e60 + 0j)
ENTITY = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'
DIMS = "# Dimensions\n"
CASES = {
    # name: (file name, how to write it, what the sentence says)
    "folder": ("scan.h5", lambda path: path.mkdir(), "is a folder"),
    "absent": ("scan.npy", lambda path: None, "does not exist"),
    "a billion slices": ("scan.h5", a_billion_slices, "states 1000000000 slices"),
    "fifo": ("scan.npy", os.mkfifo, "is not a regular file"),
    "empty": ("scan.npz", content(b""), "is empty"),
    "unknown extension": ("scan.xyz", content(b"x"), r"got \.xyz"),
    "no extension": ("scan", content(b"x"), "no extension"),
    "siemens": ("meas.dat", content(b"x"), "Siemens"),
    "ge": ("P12345.7", content(b"x"), "ge_to_ismrmrd"),
    "ge archive": ("ScanArchive_1.h5", hdf5(a=1), "ge_to_ismrmrd"),
    "philips": ("raw_000.data", content(b"x"), "philips_to_ismrmrd"),
    "bruker": ("fid", content(b"x"), "brukerapi"),
    "dicom": ("scan.dcm", content(b"x"), "DICOM"),
    "hdf5 named npy": ("scan.npy", lambda p: hdf5(a=1)(p), "named .npy .* HDF5"),
    "text named h5": ("scan.h5", content(b"not HDF5 at all"), "named .h5"),
    # NumPy
    "npy real": ("k.npy", npy(REAL), "complex k-space.*float32"),
    "npy 1-D": ("k.npy", npy(K[0, 0]), r"k-space .*\(8,\)"),
    "npy 5-D": ("k.npy", npy(K[None, None]), r"got shape \(1, 1, 2, 16, 8\)"),
    "npy no values": ("k.npy", npy(K[:0]), "is empty"),
    "npy pickled": ("k.npy", npy(pickled()), "pickle"),
    "npy truncated": ("k.npy", cut(npy(K), 0.6), "truncated .* 2048 bytes"),
    "npy cut header": ("k.npy", cut(npy(K), 0.02), "header"),
    "npy absurd": ("k.npy", npy_header("(10**9,)"), "header"),
    "npy open bracket": ("k.npy", npy_header("(2, (2"), r"k\.npy: .* header"),
    "npy overflow": ("k.npy", npy_header("(4294967296, 4294967296)"), "147573952589676412928 byt"),
    "npy negative": (
        "k.npy",
        npy_header("(-2, -2)", data=bytes(32)),
        r"shape \(-2, -2\) complex64",
    ),
    "npy nan": ("k.npy", npy(NAN), "3 of the 256"),
    "npy too large": ("k.npy", npy(HUGE), "64 of the 64"),
    "npy zeros": ("k.npy", npy(0 * K), "only zeros"),
    "npz no kspace": ("k.npz", npz(image=K), "'kspace', found image"),
    "npz pickled": ("k.npz", pickled_npz, "prompts .*pickle"),
    "npz truncated": ("k.npz", cut(npz(kspace=K), 0.5), "truncated"),
    "npz bomb": ("k.npz", bomb, "320 MiB"),
    "npz mask shape": ("k.npz", npz(kspace=K, mask=np.ones(5)), r"mask .*\(5,\)"),
    "npz mask values": ("k.npz", npz(kspace=K, mask=np.full(8, 0.5)), "mask .*got oth"),
    "npz mask text": ("k.npz", npz(kspace=K, mask=np.array(["a"] * 8)), "a mask of booleans"),
    "npz mask empty": ("k.npz", npz(kspace=K, mask=np.zeros(8)), "mask is empty"),
    "npz maps": ("k.npz", npz(kspace=K, coil_maps=K[:1]), r"coil_maps of shape \(1, 1, 16, 8\)"),
    "npz maps real": ("k.npz", npz(kspace=K, coil_maps=K.real), "complex coil maps"),
    "npz target": ("k.npz", npz(kspace=K, target=K[0, :, :4]), r"target of shape \(1, 16, 4\)"),
    "npz prompts": ("k.npz", npz(kspace=K, prompts=["a", "b"]), "prompts .* 1 slices"),
    "npz prompt type": ("k.npz", npz(kspace=K, prompts=[1.0]), "expected strings in 'prompts'"),
    "npz metadata": (
        "k.npz",
        npz(kspace=K, metadata='[{"colour": 1}]'),
        "JSON",
    ),
    "npz noise": ("k.npz", npz(kspace=K, noise_std=-1.0), r"noise level .*-1\.0"),
    # MATLAB
    "mat text": ("k.mat", content(b"not MATLAB at all"), "named .mat"),
    "mat cut": ("k.mat", cut(mat(kspace=K), 0.5), "truncated"),
    "mat real": ("k.mat", mat(kspace=K.real), "found none"),
    "mat two": ("k.mat", mat(kspace=K, maps=K), "'kspace', 'maps'.*group"),
    "mat coils first": ("k.mat", mat(kspace=np.ones((3, 16, 8)) + 1j), r"\(3, 16, 8\): permute"),
    "mat v7.3": ("k.mat", hdf5(a=1), "found none"),
    # HDF5
    "h5 truncated": (
        "k.h5",
        cut(hdf5(kspace=np.stack([K] * 99)), 0.5),
        "truncated",
    ),
    "h5 neither": ("k.h5", hdf5(image=K), "'dataset/data'.* 'image'"),
    "h5 nothing": ("k.h5", hdf5(), "'dataset/data'.* nothing"),
    "h5 external link": (
        "k.h5",
        hdf5(kspace=h5py.ExternalLink("/etc/x.h5", "/k")),
        "'kspace' is a li",
    ),
    "h5 soft link": ("k.h5", hdf5(a=K[None], kspace=h5py.SoftLink("/a")), "links are not followed"),
    "h5 virtual": ("k.h5", other_storage("virtual"), "other files"),
    "h5 external data": ("k.h5", other_storage("external"), "in other"),
    "fastmri group": ("k.h5", hdf5(**{"kspace/a": 1}), "not an array"),
    "fastmri real": ("k.h5", hdf5(kspace=REAL), "complex k-space.*float32"),
    "fastmri 2-D": ("k.h5", hdf5(kspace=K[0]), r"fastMRI k-space .* got shape \(16, 8\)"),
    "fastmri header": ("k.h5", hdf5(kspace=K, ismrmrd_header="<a"), "malformed XML"),
    "fastmri entity": (
        "k.h5",
        hdf5(kspace=K, ismrmrd_header=ENTITY),
        "document type",
    ),
    "fastmri number": ("k.h5", hdf5(kspace=K, ismrmrd_header=3), "a string in 'ismrmrd_header'"),
    "breast": ("fastMRI_breast_001_2.h5", hdf5(kspace=K), "radial"),
    "fastmri time": ("k.h5", time_type, "unsupported type"),
    "fastmri null": ("k.h5", hdf5(kspace=h5py.Empty("c8")), "'kspace', got nei"),
    "fastmri noise": ("k.h5", attribute("ctxrecon_noise_std", "a"), "one number, got 'a'"),
    # ISMRMRD
    "raw group": (
        "k.h5",
        hdf5(**{"d/xml": header_xml(), "d/data/a": 1}),
        "a table of ISMRMRD",
    ),
    "raw flags": ("k.h5", fractional_flags, r"integer .* \['flags'\]"),
    "raw no encoding": ("k.h5", raw("<a/>"), "has no <encoding>"),
    "raw no number": ("k.h5", raw(header_xml(center="x")), "<center> .* 'x'"),
    "raw matrix": ("k.h5", raw(header_xml((10**6, 8, 1))), "from 1 to 65535"),
    "raw radial": (
        "k.h5",
        raw(header_xml(trajectory="radial")),
        r"2 or 3 coordinates .*\[0\]",
    ),
    "raw epi": ("k.h5", raw(header_xml(trajectory="epi")), "Cartesian .* got 'epi'"),
    "raw outside": ("k.h5", raw(header_xml((16, 4, 1))), "matrix of 4"),
    "raw absurd": ("k.h5", raw(header_xml((65535, 65535, 1))), "64.0 GiB"),
    "raw partitions": ("k.h5", raw(kspace_encode_step_2=1), "partition 1.* outside"),
    "raw all noise": ("k.h5", raw(flags=1 << 18), "none of its 8"),
    "raw short": ("k.h5", short_readout, "readout 3 .*62.* 64"),
    "raw coils": ("k.h5", different_coils, r"same coils .*\[1, 2\]"),
    "raw no readouts": ("k.h5", lambda p: write_raw(p, []), "contains no readouts"),
    "raw table": ("k.h5", table_without("flags"), r"\['flags'\]"),
    # BART
    "cfl alone": ("k.cfl", cfl(None), "k.hdr"),
    "cfl no sizes": ("k.cfl", cfl("# Command\n"), "expected a line '# Dimensions'"),
    "cfl words": ("k.cfl", cfl(DIMS + "16 eight"), "'16 eight'"),
    "cfl zero": ("k.cfl", cfl(DIMS + "16 0"), r"\[16, 0\]"),
    "cfl many": ("k.cfl", cfl(DIMS + "1 " * 16 + "2"), "expected at most 16 sizes"),
    "cfl absurd": (
        "k.cfl",
        cfl(DIMS + "999999999 " * 4),
        "require 7999999968000000047999.* bytes, .* 2048",
    ),
    "cfl truncated": (
        "k.cfl",
        cfl(DIMS + "16 8 1 2", K.tobytes()[:-8]),
        "require 2048 bytes, .* 2040",
    ),
    "cfl slabs": ("k.cfl", cfl(DIMS + "4 8 4 1 1 1 1 1 1 1 1 1 1 2"), r"one slab.*SLICE \(13\)"),
    "cfl maps": ("k.cfl", cfl(DIMS + "16 8 1 1 2"), r"MAPS \(4\).* 2.*bart slice"),
    "cfl level": ("k.cfl", cfl(DIMS + "16 8 1 1 1 1 1 1 1 1 1 1 2"), r"LEVEL \(12\)"),
    "cfl line": ("k.cfl", cfl(DIMS + "256"), "expected a 2-D k-space"),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Exception | None]]:
    """The file of each case, with what reading it raised."""
    found: dict[str, tuple[Path, Exception | None]] = {}
    for case, (name, write, _) in CASES.items():
        path = tmp_path_factory.mktemp("malformed") / name
        write(path)
        found[case] = (path, None)
        try:
            read_scan(path)
        except Exception as error:
            found[case] = (path, error)
    return found


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_that_names_the_file(refusals, case):
    path, error = refusals[case]
    with pytest.raises(InputError, match=CASES[case][2]):
        raise error or AssertionError("it was read")
    message = str(error)
    assert str(path.with_suffix("")) in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))


def test_kinds_of_damage_have_sentences_of_their_own(refusals):
    sentences = {str(error).replace(str(path), "") for path, error in refusals.values()}
    assert len(sentences) > 0.8 * len(CASES)


def test_cropping_needs_a_header_and_whole_lines(tmp_path):
    hdf5(kspace=K)(tmp_path / "k.h5")
    with pytest.raises(InputError, match="ismrmrd_header"):
        read_scan(tmp_path / "k.h5", crop_readout=True)
    hdf5(kspace=K, ismrmrd_header=header_xml(), mask=np.ones((16, 8)))(tmp_path / "m.h5")
    with pytest.raises(InputError, match="whole lines"):
        read_scan(tmp_path / "m.h5", crop_readout=True)


def test_names_of_npz_members_that_no_text_is(tmp_path):
    path = tmp_path / "scan.npz"
    np.savez(path, kspace=np.ones((1, 2, 4, 4), np.complex64))
    raw = bytearray(path.read_bytes())
    raw[30] = 0xD2  # the name in the member's own header, which the directory calls UTF-8
    flags = raw.index(b"PK\x01\x02") + 8
    raw[flags : flags + 2] = (0x800).to_bytes(2, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match="damaged"):
        read_scan(path)
