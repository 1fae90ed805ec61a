"""Siemens raw data: layouts, flags, geometry, noise, damage, and two real phantoms."""

from __future__ import annotations

import logging
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from narrow import present
from test_io_ismrmrd import phantom

from benchmarks.fuzz.twix_file import write_twix
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.io import read_scan, reads_whole, scan_info, scan_shape

pytest.importorskip("twixtools")

K = phantom()  # (coils 2, readout 16, lines 8) complex64


def lines(kspace: np.ndarray = K, numbers: Any = None, **fields: Any) -> list[dict[str, Any]]:
    """A readout for each line of (coils, readout, lines), with zero frequency in the middle."""
    _, ny, nx = kspace.shape
    chosen = range(nx) if numbers is None else numbers
    center = (ny // 2, nx // 2, 0)
    return [{"data": kspace[:, :, n], "line": n, "center": center, **fields} for n in chosen]


def image(kspace: torch.Tensor) -> torch.Tensor:
    return ifft2c(kspace)


@pytest.mark.parametrize("vd", [True, False])
def test_samples_metadata_and_size(tmp_path, vd):
    path = write_twix(tmp_path / "meas.dat", lines(), vd=vd)
    scan = read_scan(path, crop_readout=False)
    assert np.array_equal(scan.kspace[0], K)
    assert scan.voxel_size == (20.0, 20.0, 5.0)
    item = scan.metadata[0]
    assert (item.tr, item.te, item.flip_angle, item.field_strength) == (3150, 33, 140, 2.89362)
    assert (item.sequence, item.anatomy, item.sex, item.contrast) == (
        "TurboSpinEcho",
        "knee",
        "F",
        "T2",
    )
    assert scan_shape(path) == (1, 2, 16, 8)
    assert scan_info(path)["format"] == "Siemens"


def test_oversampling_is_cropped_to_the_middle(tmp_path):
    path = write_twix(tmp_path / "meas.dat", lines())
    cropped = read_scan(path)
    assert cropped.voxel_size == (20.0, 20.0, 5.0)
    whole = image(torch.from_numpy(K)[None])
    torch.testing.assert_close(image(cropped.kspace), whole[:, :, 4:12])
    same = write_twix(tmp_path / "one.dat", lines(), parameters={"flReadoutOSFactor": "{ 1  }"})
    assert read_scan(same).kspace.shape == (1, 2, 16, 8)


def test_each_counter_has_its_place(tmp_path):
    readouts = []
    for s in range(3):
        for echo in range(2):
            for rep in range(2):
                for average in range(2):
                    scale = (s + 1) * (echo + 10) * (rep + 100) * (average + 1) / 1.5
                    readouts += lines(
                        scale * K,
                        slice=s,
                        contrast=echo,
                        repetition=rep,
                        average=average,
                        position=(0, 0, (0.0, 20.0, 10.0)[s]),  # the middle one last
                    )
    path = write_twix(tmp_path / "meas.dat", readouts)
    scan = read_scan(path, contrast=1, repetition=1, crop_readout=False)
    scales = torch.tensor([1, 3, 2]) * 11 * 101.0
    torch.testing.assert_close(
        scan.kspace, scales.view(3, 1, 1, 1) * torch.from_numpy(K), rtol=1e-5, atol=1e-2
    )
    assert [item.te for item in scan.metadata] == [66.0] * 3
    second = read_scan(path, average=1, slices=[2], crop_readout=False)
    torch.testing.assert_close(second.kspace[0], 2 * 10 * 100 * 2 / 1.5 * torch.from_numpy(K))
    assert present(scan.affine)[2, 2] == 10
    info = scan_info(path)
    assert (info["contrasts"], info["repetitions"]) == (2, 2)
    with pytest.raises(InputError, match="2 contrasts"):
        read_scan(path, contrast=2)


def test_reversed_lines_and_partial_echoes(tmp_path):
    for center in (8, 7):  # two conventions of the center of a reversed readout
        readouts = lines()
        for one in readouts[1::2]:
            one.update(data=one["data"][:, ::-1], flags=("REFLECT",), center=(center, 4, 0))
        path = write_twix(tmp_path / "meas.dat", readouts)
        assert np.array_equal(read_scan(path, crop_readout=False).kspace[0], K)
    partial = [{**one, "data": one["data"][:, 4:], "center": (4, 4, 0)} for one in lines()[2:]]
    scan = read_scan(write_twix(tmp_path / "partial.dat", partial))
    expected = K.copy()
    expected[:, :4] = 0
    expected[:, :, :2] = 0
    assert np.array_equal(scan.kspace[0], expected)


def test_noise_calibration_and_other_readouts(tmp_path, caplog):
    rng = np.random.default_rng(0)
    mixing = np.array([[1, 0], [0.6, 0.8]])
    noise = rng.standard_normal((2, 400)) + 1j * rng.standard_normal((2, 400))
    adjustment = [{"data": mixing @ noise, "flags": ("NOISEADJSCAN",)}]
    separate = lines(9 * K, [2, 3, 4, 5, 6], flags=("PATREFSCAN",))
    both = lines(K, [5], flags=("PATREFSCAN", "PATREFANDIMASCAN"))
    navigator = lines(7 * K, [4], flags=("PHASCOR",))
    readouts = [*lines(K, [0, 2, 4, 6]), *both, *separate, *navigator]
    path = write_twix(tmp_path / "meas.dat", readouts, earlier=[adjustment])
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        plain = read_scan(path, prewhiten=False, crop_readout=False)
    assert "separate calibration scan" in caplog.text
    assert present(plain.calibration).shape == (1, 2, 16, 5)
    assert plain.cartesian_mask[0, 0, 0].tolist() == [n in {0, 2, 4, 5, 6} for n in range(8)]
    assert np.array_equal(plain.kspace[0, :, :, 4], K[:, :, 4])
    assert present(plain.noise_std) == pytest.approx((2 / 0.793) ** 0.5, rel=0.1)
    white = read_scan(path, crop_readout=False)
    assert not torch.allclose(white.kspace, plain.kspace)
    in_place = write_twix(
        tmp_path / "in.dat", readouts, {"sPat.ucRefScanMode": "0x2"}, earlier=[adjustment]
    )
    assert read_scan(in_place).cartesian_mask[0, 0, 0].sum() == 6


def test_the_place_in_the_scanner(tmp_path):
    """A transverse slice with the readout to the left: x is then the phase encoding, to the front.

    By the quaternion phase encoding goes to posterior; images grow against both directions.
    """
    half = 0.5**0.5
    readouts = []
    for s in range(2):
        readouts += lines(slice=s, position=(3, -7, 6.0 * s), quaternion=(half, 0, 0, half))
    affine = present(read_scan(write_twix(tmp_path / "meas.dat", readouts)).affine)
    center = affine @ torch.tensor([4, 4, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(center, torch.tensor([-3.0, 7, 0, 1], dtype=torch.float64))
    expected = torch.tensor([[-20.0, 0, 0], [0, 20, 0], [0, 0, 6]], dtype=torch.float64)
    torch.testing.assert_close(affine[:3, :3], expected, atol=1e-5, rtol=0)
    fan = [*lines(), *lines(slice=1, quaternion=(half, 0, half, 0), position=(0, 0, 6))]
    assert read_scan(write_twix(tmp_path / "fan.dat", fan)).affine is None


def test_slices_of_3d_scans(tmp_path):
    """They lie along the partitions where those are complete, else along the readout."""
    rng = np.random.default_rng(1)
    volume = rng.standard_normal((2, 8, 6, 4)) + 1j * rng.standard_normal((2, 8, 6, 4))
    volume = volume.astype(np.complex64)
    readouts: list[dict[str, Any]] = [
        {"data": volume[:, :, n, p], "line": n, "partition": p, "center": (4, 3, 2)}
        for n in range(6)
        for p in range(4)
    ]
    path = write_twix(tmp_path / "meas.dat", readouts)
    scan = read_scan(path, crop_readout=False)
    assert scan_shape(path) == tuple(scan.kspace.shape) == (4, 2, 8, 6)
    assert reads_whole(path)
    assert not reads_whole(write_twix(tmp_path / "flat.dat", lines()))
    torch.testing.assert_close(scan.kspace.numpy(), inverse(volume, 3).transpose(3, 0, 1, 2))
    assert scan.voxel_size == pytest.approx((40, 160 / 6, 5 / 4))
    holes = [one for one in readouts if (one["line"] + one["partition"]) % 3]
    path = write_twix(tmp_path / "holes.dat", holes)
    scan = read_scan(path)
    assert scan_shape(path) == tuple(scan.kspace.shape) == (4, 2, 4, 6)
    whole = inverse(volume, 1)[:, 2:6].transpose(1, 0, 3, 2)
    torch.testing.assert_close(scan.kspace.numpy(), whole * scan.cartesian_mask.numpy())
    assert scan.cartesian_mask.sum() == len(holes)


def inverse(kspace: np.ndarray, axis: int) -> np.ndarray:
    """Centered orthonormal inverse transform along one axis."""
    shifted = np.fft.ifft(np.fft.ifftshift(kspace, axes=axis), axis=axis, norm="ortho")
    return np.fft.fftshift(shifted, axes=axis).astype(np.complex64)


def test_echoes_that_pulseq_does_not_count(tmp_path, caplog):
    echoes = [K, 2 * K, 3 * K]
    square = [np.concatenate([echo, echo], axis=2) for echo in echoes]
    square = [fft2c(image(torch.from_numpy(one))).numpy() for one in square]
    square = [np.pad(one[:, :, 4:12], ((0, 0), (0, 0), (4, 4))) + 1e-3 for one in square]
    by_turns = [
        {"data": square[n % 3][:, :, n // 3], "line": n, "center": (8, 0, 0)} for n in range(48)
    ]
    protocol = {"tSequenceFileName": '"%CustomerSeq%\\pulseq"'}
    path = write_twix(tmp_path / "meas.dat", by_turns, protocol)
    for number in range(3):
        scan = read_scan(path, contrast=number, crop_readout=False)
        assert np.array_equal(scan.kspace[0], square[number])
    assert "3 interleaved echoes" in caplog.text
    assert scan.metadata[0].tr is None
    one_by_one = [
        {"data": square[n // 16][:, :, n % 16], "line": n, "center": (8, 0, 0)} for n in range(48)
    ]
    path = write_twix(tmp_path / "blocks.dat", one_by_one, protocol)
    assert np.array_equal(read_scan(path, contrast=2, crop_readout=False).kspace[0], square[2])


def claim(path: Path, offset: int, layout: str, value: int) -> Path:
    raw = bytearray(path.read_bytes())
    struct.pack_into(layout, raw, offset, value)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("offset", "layout", "value", "sentence"),
    [
        (16, "<Q", 2**60, "measurement 0 states"),
        (24, "<Q", 2**60, "measurement 0 states"),
        (4, "<I", 0, "no measurement"),
        (10240, "<I", 2**31, "header states"),
    ],
)
def test_sizes_that_lie(tmp_path, offset, layout, value, sentence):
    path = claim(write_twix(tmp_path / "meas.dat", lines()), offset, layout, value)
    with pytest.raises(InputError, match=sentence):
        read_scan(path)


def test_readouts_that_lie(tmp_path):
    path = write_twix(tmp_path / "meas.dat", lines())
    (length,) = struct.unpack_from("<I", path.read_bytes(), 10240)
    first = 10240 + length
    with pytest.raises(InputError, match="readout at byte"):
        read_scan(claim(path, first + 48, "<H", 65535))
    sync = write_twix(tmp_path / "sync.dat", [*lines(), {**lines()[0], "flags": ("SYNCDATA",)}])
    last = first + 8 * (192 + 2 * (32 + 8 * 16))
    with pytest.raises(InputError, match="readout at byte"):
        read_scan(claim(sync, last, "<I", 0))


@pytest.mark.parametrize("vd", [True, False])
@pytest.mark.parametrize(
    ("block", "offset", "value"),
    [
        (3, 4, 7),  # of another measurement
        (3, 8, 2),  # numbered as the one before
        (8, 4, 7),  # an end of another measurement
    ],
)
def test_blocks_that_do_not_follow(tmp_path, caplog, vd, block, offset, value):
    path = write_twix(tmp_path / "meas.dat", lines(), vd=vd)
    start = 10240 if vd else 0
    (length,) = struct.unpack_from("<I", path.read_bytes(), start)
    size = 192 + 2 * (32 + 8 * 16) if vd else 2 * (128 + 8 * 16)
    read_scan(path)
    assert "inconsistent" not in caplog.text
    read_scan(claim(path, start + length + block * size + offset, "<I", value))
    assert "1 of 9 blocks are inconsistent" in caplog.text


def test_readouts_without_an_end(tmp_path, caplog):
    path = write_twix(tmp_path / "meas.dat", lines(), vd=False)
    read_scan(path)
    assert "no end marker" not in caplog.text
    path.write_bytes(path.read_bytes()[:-128])
    assert read_scan(path).kspace.shape == (1, 2, 8, 8)
    assert "no end marker" in caplog.text


@pytest.mark.parametrize(
    ("readouts", "protocol", "sentence"),
    [
        (lines(flags=("NOISEADJSCAN",)), {}, "none of its 8"),
        ([*lines(), *lines(K[:1])], {}, r"same coils.*\[1, 2\]"),
        (lines(), {"sKSpace.ucTrajectory": "0x2"}, "Cartesian"),
    ],
)
def test_what_is_not_read(tmp_path, readouts, protocol, sentence):
    with pytest.raises(InputError, match=sentence):
        read_scan(write_twix(tmp_path / "meas.dat", readouts, protocol))


def test_the_library_is_optional(tmp_path, monkeypatch):
    path = write_twix(tmp_path / "meas.dat", lines())
    monkeypatch.setitem(sys.modules, "twixtools", None)
    with pytest.raises(InputError, match="twixtools"):
        read_scan(path)


def test_real_phantoms(shared_data):
    folder = shared_data / "siemens_phantoms"
    scan = read_scan(folder / "gre_16ch.dat")
    assert scan.kspace.shape == (1, 16, 128, 128)
    magnitude = image(scan.kspace).abs().square().sum(1).sqrt()[0]
    assert magnitude[54:74, 54:74].mean() > 20 * magnitude[:10, :10].mean()
    assert scan.voxel_size == pytest.approx((2, 2, 3))
    means = []
    for echo in range(3):
        one = read_scan(folder / "gre_3echoes.dat", contrast=echo)
        assert one.kspace.shape == (1, 1, 256, 256)
        magnitude = image(one.kspace).abs()[0, 0]
        assert magnitude[118:138, 118:138].mean() > 10 * magnitude[:20, :20].mean()
        means.append(float(magnitude.mean()))
    assert means[0] > means[1] > means[2]  # T2* decay
