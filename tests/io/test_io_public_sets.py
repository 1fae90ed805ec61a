"""MATLAB files and the layouts of public data sets, made small."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.io import read_scan, scan_info, scan_shape

NY, NX = 12, 8
PAIR = np.dtype([("real", "<f4"), ("imag", "<f4")])


def noise(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def compound(values: np.ndarray) -> np.ndarray:
    """As MATLAB stores complex numbers in HDF5."""
    pairs = np.zeros(values.shape, PAIR)
    pairs["real"], pairs["imag"] = values.real, values.imag
    return pairs


def write_v73(path: Path, **arrays: np.ndarray) -> Path:
    """Arrays by MATLAB's indices to v7.3: HDF5 with the axes in reverse, behind 512 bytes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            file[name] = compound(values.T) if values.dtype.kind == "c" else values.T
    raw = bytearray(path.read_bytes())
    raw[:19] = b"MATLAB 7.3 MAT-file"
    path.write_bytes(raw)
    return path


def write_v7(path: Path, **arrays: np.ndarray) -> Path:
    scipy.io.savemat(path, arrays, do_compression=True)
    return path


@pytest.mark.parametrize("write", [write_v73, write_v7])
def test_mat_by_matlab_indices(tmp_path, write, caplog):
    """CMRxRecon: kspace_full(readout, phase encode, coil, slice, frame)."""
    k = noise(NY, NX, 3, 2, 4)
    path = write(tmp_path / "cine_sax.mat", kspace_full=k, mask04=np.ones((NY, NX)))
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        scan = read_scan(path, phase=3)
    assert "phase 3 (of 0 to 3)" in caplog.text
    assert np.array_equal(scan.kspace, k[..., 3].transpose(3, 2, 0, 1))
    assert scan_shape(path) == (2, 3, NY, NX)
    assert scan_info(path)["phases"] == 4
    assert np.array_equal(
        read_scan(path, slices=[1]).kspace[0], k[:, :, :, 1, 0].transpose(2, 0, 1)
    )
    with pytest.raises(InputError, match="4 phases"):
        read_scan(path, phase=4)


@pytest.mark.parametrize("write", [write_v73, write_v7])
@pytest.mark.parametrize("ndim", [2, 3, 4])
def test_mat_with_fewer_axes(tmp_path, write, ndim):
    k = noise(NY, NX, 3, 2)[(slice(None),) * ndim + (0,) * (4 - ndim)]
    expected = k[(...,) + (None,) * (4 - ndim)].transpose(3, 2, 0, 1)
    scan = read_scan(write(tmp_path / "k.mat", k=k))
    assert np.array_equal(scan.kspace, expected)


@pytest.mark.parametrize("write", [write_v73, write_v7])
def test_single_coil_files_have_no_axis_of_coils(tmp_path, write):
    k = noise(NY, NX, 3, 2)
    scan = read_scan(write(tmp_path / "k.mat", kspace_single_full=k), phase=1)
    assert np.array_equal(scan.kspace, k[..., 1].transpose(2, 0, 1)[:, None])


@pytest.mark.parametrize("write", [write_v73, write_v7])
def test_one_of_several_variables(tmp_path, write):
    k, maps = noise(NY, NX, 3), 2 * noise(NY, NX, 3)
    path = write(tmp_path / "k.mat", rawdata=k, maps=maps)
    with pytest.raises(InputError, match="group"):
        read_scan(path)
    assert np.array_equal(read_scan(path, group="maps").kspace[0], maps.transpose(2, 0, 1))
    with pytest.raises(InputError, match=r"'other'.*'maps'"):
        scan_shape(path, group="other")
    beside = write(tmp_path / "k2.mat", rawdata=k, vector=noise(1, 5), name=np.arange(3.0))
    assert np.array_equal(read_scan(beside).kspace[0], k.transpose(2, 0, 1))


def test_old_files_agree_with_scipy(tmp_path):
    """Types of numbers, text and structures beside them, and small elements."""
    k = noise(NY, NX, 3)
    others = {"x": 3, "note": "text", "s": {"a": 1}, "c": np.array([[1, "b"]], object)}
    for compressed in (False, True):
        for dtype in (np.complex64, np.complex128):
            scipy.io.savemat(
                tmp_path / "k.mat", {**others, "k": k.astype(dtype)}, do_compression=compressed
            )
            assert np.array_equal(read_scan(tmp_path / "k.mat").kspace[0], k.transpose(2, 0, 1))
    whole = np.round(8 * k.real) + 1j * np.round(8 * k.imag)
    scipy.io.savemat(tmp_path / "k.mat", {"a_name_of_some_length": whole})
    loaded = scipy.io.loadmat(tmp_path / "k.mat")["a_name_of_some_length"]
    assert np.array_equal(read_scan(tmp_path / "k.mat").kspace[0], loaded.transpose(2, 0, 1))


def test_compressed_arrays_larger_than_believable(tmp_path):
    zeros = zlib.compress(struct.pack("<II", 14, 2**31) + bytes(2**22))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "k.mat").write_bytes(header + struct.pack("<II", 15, len(zeros)) + zeros)
    with pytest.raises(InputError, match=r"2\.0 GiB"):
        read_scan(tmp_path / "k.mat")


@pytest.mark.parametrize("axis", [0, -1])
def test_real_and_imaginary_parts_along_an_axis(tmp_path, axis, caplog):
    k = noise(3, NY, NX)
    parts = np.stack([k.real, k.imag], axis=axis)
    np.save(tmp_path / "k.npy", parts)
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        scan = read_scan(tmp_path / "k.npy")
    assert np.array_equal(scan.kspace[0], k)
    assert f"along its {'last' if axis else 'first'} axis" in caplog.text
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = np.stack([k[None].real, k[None].imag], axis=axis)
    assert np.array_equal(read_scan(tmp_path / "k.h5").kspace[0], k)
    assert scan_shape(tmp_path / "k.h5") == (1, 3, NY, NX)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (noise(2, NY, NX, 2).real, "both are"),
        (noise(3, NY, NX).real, "neither is"),
        (np.abs(noise(2, NY, NX)), "magnitudes"),
    ],
)
def test_real_numbers_that_are_no_pairs(tmp_path, parts, sentence):
    np.save(tmp_path / "k.npy", parts)
    with pytest.raises(InputError, match=sentence):
        read_scan(tmp_path / "k.npy")


def test_pairs_in_hdf5(tmp_path):
    k = noise(2, 3, NY, NX)
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = compound(k)
    assert np.array_equal(read_scan(tmp_path / "k.h5").kspace, k)


def test_prostate_averages_share_the_lines(tmp_path, caplog):
    """fastMRI prostate: (averages, slices, coils, ny, nx), of every other line each."""
    k = noise(3, 2, 4, NY, NX)
    k[:2, ..., ::2] = 0
    k[2, ..., 1::2] = 0
    with h5py.File(tmp_path / "file_prostate_AXT2_001.h5", "w") as file:
        file["kspace"] = k
        file["calibration_data"] = noise(2, 4, NY, 4)
    path = tmp_path / "file_prostate_AXT2_001.h5"
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        scan = read_scan(path)
    assert "3 averages" in caplog.text
    expected = np.where(k[2] != 0, k[2], (k[0] + k[1]) / 2)
    torch.testing.assert_close(scan.kspace.numpy(), expected)
    assert np.array_equal(read_scan(path, average=1, slices=[1]).kspace[0], k[1, 1])
    assert scan_shape(path) == (2, 4, NY, NX)
    with pytest.raises(InputError, match="3 averages"):
        read_scan(path, average=3)


def test_calgary_campinas(tmp_path, caplog):
    """(x, ky, kz, 2 coils) real, zero frequency at index 0, images by an FFT without shifts."""
    images = noise(5, NY, NX, 3)
    k = np.fft.fft2(images, axes=(1, 2), norm="ortho").astype(np.complex64)
    k[:, :, 3] = 0
    images = np.fft.ifft2(k, axes=(1, 2), norm="ortho")
    parts = np.zeros((5, NY, NX, 6), np.float32)
    parts[..., ::2], parts[..., 1::2] = k.real, k.imag
    with h5py.File(tmp_path / "e14110s3_P59904.7.h5", "w") as file:
        file["kspace"] = parts
    path = tmp_path / "e14110s3_P59904.7.h5"
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        scan = read_scan(path, slices=[1, 3])
    assert "Calgary" in caplog.text
    expected = torch.from_numpy(images[[1, 3]].transpose(0, 3, 1, 2).astype(np.complex64))
    torch.testing.assert_close(ifft2c(scan.kspace), expected, atol=1e-5, rtol=1e-5)
    assert scan.cartesian_mask.sum() == NY * (NX - 1)
    assert scan_info(path)["format"] == "Calgary-Campinas"
    assert scan_shape(path) == (5, 3, NY, NX)


def test_m4raw(tmp_path):
    """As fastMRI's files: one repetition a file, with a header and a sum of squares."""
    from test_io_ismrmrd import header_xml

    k = noise(2, 4, NY, NX)
    with h5py.File(tmp_path / "2022061003_T101.h5", "w") as file:
        file["kspace"] = k
        file["ismrmrd_header"] = header_xml((NY, NX, 1), (NY, NX, 1), NX // 2, NX - 1)
        file["reconstruction_rss"] = np.ones((2, NY, NX), np.float32)
        file.attrs["acquisition"] = "AXT1"
    scan = read_scan(tmp_path / "2022061003_T101.h5")
    assert np.array_equal(scan.kspace, k)
    assert scan.target is not None
    assert scan.metadata[0].contrast == "T1"


def test_magnitudes_are_no_calgary_campinas_data(tmp_path):
    path = tmp_path / "k.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = np.abs(noise(4, 3, 16, 16))
    with pytest.raises(InputError, match="no negative values"):
        read_scan(path)
