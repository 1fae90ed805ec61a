"""Separate calibration scans: lines, encoding spaces and files of their own."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from command_line import run
from narrow import present
from test_io_ismrmrd import CALIBRATION, NOISE, header_xml, write_raw

from ctxrecon import Measurement
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.io import read_scan, scan_info, write_scan
from ctxrecon.metrics import psnr
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import BaselinePipeline
from ctxrecon.scan import Scan

N, COILS, R = 48, 6, 3
BOTH = 1 << 20
SEPARATE = "<parallelImaging><calibrationMode>separate</calibrationMode></parallelImaging>"


@pytest.fixture(scope="module")
def brain():
    generator = torch.Generator().manual_seed(3)
    return phantom_scan("brain", shape=(N, N), num_coils=COILS, snr=60, generator=generator)


def header(mode: str | None = "separate") -> str:
    extra = "" if mode is None else SEPARATE.replace("separate", mode)
    return header_xml((N, N, 1), (N, N, 1), N // 2, N - 1, extra=extra)


def lines(kspace: torch.Tensor, which, **fields) -> list[dict]:
    return [{"data": kspace[:, :, n].numpy(), "kspace_encode_step_1": n, **fields} for n in which]


IMAGE, CENTER = range(0, N, R), range(N // 2 - 10, N // 2 + 10)


def quality(scan: Scan, brain) -> float:
    images = BaselinePipeline("cg_sense")(Measurement.from_scan(scan)).images
    return float(psnr(images.abs(), brain.target[:1].abs()))


@pytest.fixture(scope="module")
def known(brain) -> float:
    """The quality with the true coil maps."""
    mask = torch.zeros(1, 1, N, N, dtype=torch.bool)
    mask[..., IMAGE] = True
    return quality(Scan(brain.kspace[:1] * mask, mask, brain.coil_maps[:1]), brain)


@pytest.mark.parametrize("mode", ["separate", "external", None])
def test_lines_of_their_own_serve_the_coil_maps_alone(brain, known, tmp_path, mode):
    kspace = brain.kspace[0]
    other = kspace * 5j  # of another contrast than the image
    readouts = lines(other, CENTER, flags=CALIBRATION) + lines(kspace, IMAGE)
    path = write_raw(tmp_path / "raw.h5", readouts, header(mode))
    scan = read_scan(path)
    assert scan.cartesian_mask[0, 0, 0].nonzero().flatten().tolist() == list(IMAGE)
    torch.testing.assert_close(scan.kspace[0, :, :, ::R], kspace[:, :, ::R])
    torch.testing.assert_close(present(scan.calibration)[0], other[:, :, CENTER])
    if mode == "separate":
        assert quality(scan, brain) > known - 1
    info = scan_info(path)
    assert info["calibration_scan"] == (N, len(CENTER))
    assert any("separate calibration" in note for note in info["notes"])


def test_lines_of_image_and_calibration_belong_to_both(brain, tmp_path):
    kspace = brain.kspace[0]
    readouts = lines(kspace, IMAGE) + lines(kspace, CENTER, flags=BOTH)
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts, header()))
    assert scan.calibration is None
    assert scan.cartesian_mask[0, 0, 0, CENTER].all()


def test_calibration_lines_outside_the_matrix_are_left_out(brain, tmp_path, caplog):
    kspace = brain.kspace[0]
    readouts = lines(kspace, CENTER, flags=CALIBRATION) + lines(kspace, IMAGE)
    readouts[0]["kspace_encode_step_1"] = N + 5
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts, header()))
    assert scan.calibration is None
    assert "the calibration scan is ignored" in caplog.text
    torch.testing.assert_close(scan.kspace[0, :, :, ::R], kspace[:, :, ::R])


@pytest.mark.parametrize("flag", [CALIBRATION, 0])
def test_an_encoding_space_of_its_own(brain, known, tmp_path, flag):
    """Of twice the field of view along the phase, and half the samples along the readout."""
    kspace = brain.kspace[0]
    wide = torch.zeros(COILS, N, 2 * N, dtype=torch.complex64)
    wide[:, :, N // 2 : N // 2 + N] = brain.coil_maps[0] * brain.target[0]
    wide = fft2c(wide)[:, N // 4 : -N // 4]
    own = [
        {
            "data": wide[:, :, n].numpy(),
            "kspace_encode_step_1": n - N + 20,
            "flags": flag,
            "encoding_space_ref": 1,
        }
        for n in range(N - 20, N + 20)
    ]
    first = header()
    second = re.search("<encoding>.*</encoding>", header_xml((N // 2, 2 * N, 1), (N, N, 1), 20))
    assert second is not None
    block = second[0].replace(f"<x>{N}</x>", f"<x>{2 * N}</x>", 1)  # field of view along x
    xml = first.replace("</encoding>", "</encoding>" + block)
    scan = read_scan(write_raw(tmp_path / "raw.h5", own + lines(kspace, IMAGE), xml))
    assert present(scan.calibration).shape == (1, COILS, N // 2, 20)
    if flag:
        assert quality(scan, brain) > known - 1


def test_a_file_of_its_own(brain, known, tmp_path):
    kspace = brain.kspace[0]
    image = write_raw(tmp_path / "image.h5", lines(kspace, IMAGE), header("external"))
    with pytest.raises(InputError, match="calibration region"):
        Measurement.from_scan(read_scan(image))
    found = []
    for flags in (0, CALIBRATION):
        readouts = lines(kspace, CENTER, flags=flags)
        own = write_raw(tmp_path / "own.h5", readouts, header("external"))
        found.append(read_scan(image, calibration=own))
    np.save(tmp_path / "own.npy", kspace.numpy())
    found.append(read_scan(image, calibration=tmp_path / "own.npy"))
    for scan in found[:2]:
        torch.testing.assert_close(present(scan.calibration)[0], kspace[:, :, CENTER])
    torch.testing.assert_close(present(found[2].calibration)[0], kspace)
    assert scan_info(image, calibration=own)["calibration_scan"] == (N, len(CENTER))
    command = ("reconstruct", image, "--out", tmp_path / "x.npy", "--method", "cg-sense")
    assert run(*command, "--calibration", own) == 0
    images = torch.from_numpy(np.load(tmp_path / "x.npy"))
    assert float(psnr(images.abs(), brain.target[:1].abs())) > known - 1
    np.save(tmp_path / "own.npy", kspace[1:].numpy())
    with pytest.raises(InputError, match="does not belong to"):
        read_scan(image, calibration=tmp_path / "own.npy")
    np.save(tmp_path / "own.npy", (kspace * (torch.arange(N) % 2)).numpy())
    with pytest.raises(InputError, match="no sampled center"):
        read_scan(image, calibration=tmp_path / "own.npy")


def test_one_calibration_scan_for_all_slices(brain, tmp_path):
    kspace = brain.kspace[0]
    readouts = lines(kspace, CENTER, flags=CALIBRATION)
    readouts += [line for s in range(3) for line in lines((s + 1) * kspace, IMAGE, slice=s)]
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts, header()))
    assert len(present(scan.calibration)) == 1
    measurement = Measurement.from_scan(scan)
    assert len(present(measurement.coil_maps)) == 1
    assert len(present(scan[1:].calibration)) == 1
    images = BaselinePipeline("cg_sense")(measurement).images
    torch.testing.assert_close(images[2], 3 * images[0], rtol=1e-3, atol=1e-4)


def test_lines_that_are_too_few_are_left_out(brain, tmp_path, caplog):
    kspace = brain.kspace[0]
    readouts = lines(kspace, (20, 24), flags=CALIBRATION) + lines(kspace, IMAGE)
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts, header()))
    assert scan.calibration is None
    assert "ignored" in caplog.text


def test_a_calibration_scan_of_other_coils_is_left_out(brain, tmp_path, caplog):
    kspace = brain.kspace[0]
    random = np.random.default_rng(0)
    noise = random.normal(size=(COILS, 200, 2)) @ np.array([1, 1j])
    readouts = [{"data": noise, "flags": NOISE}]
    readouts += lines(kspace[:-1], CENTER, flags=CALIBRATION) + lines(kspace, IMAGE)
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts, header()))
    assert scan.calibration is None
    assert f"{COILS - 1} coils and the image {COILS}" in caplog.text


@pytest.mark.parametrize("undersampled", ["partition", "readout"])
def test_a_volume_with_a_calibration_scan(tmp_path, undersampled):
    generator = torch.Generator().manual_seed(0)
    maps = simulate_coil_maps(4, (24, 20), generator=generator)[0]
    depth = torch.linspace(0.5, 1.5, 8)
    image = torch.zeros(24, 20)
    image[4:20, 4:16] = 1
    volume = (maps * image)[..., None] * depth  # (coils, readout, phase, partition)
    axes = (1, 2, 3)
    kspace = torch.fft.ifftshift(volume, dim=axes)
    kspace = torch.fft.fftshift(torch.fft.fftn(kspace, dim=axes, norm="ortho"), dim=axes)
    readouts = []
    for line in range(20):
        for partition in range(8):
            field = {"kspace_encode_step_1": line, "kspace_encode_step_2": partition}
            data = kspace[:, :, line, partition].numpy()
            if 4 <= line < 16:
                readouts.append({"data": data, "flags": CALIBRATION, **field})
            step = 2 if undersampled == "partition" else 2 + partition % 2
            if line % step == 0:
                readouts.append({"data": data, **field})
    xml = header_xml((24, 20, 8), (24, 20, 8), 10, 19, extra=SEPARATE)
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts, xml))
    block = present(scan.calibration)
    if undersampled == "partition":
        assert (scan.kspace.shape, block.shape) == ((8, 4, 24, 20), (8, 4, 24, 12))
        expected = fft2c(volume.movedim(3, 0))[..., 4:16]
    else:
        assert (scan.kspace.shape, block.shape) == ((24, 4, 8, 20), (24, 4, 8, 12))
        expected = fft2c(volume.permute(1, 0, 3, 2))[..., 4:16]
    torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-4)


def test_a_calibration_scan_has_the_coils_of_the_scan():
    kspace, mask = torch.zeros(2, 4, 8, 8) + 0j, torch.ones(1, 1, 8, 8, dtype=torch.bool)
    for shape in ((2, 3, 6, 6), (3, 4, 6, 6)):
        with pytest.raises(InputError, match="calibration"):
            Scan(kspace, mask, calibration=torch.ones(shape) + 0j)
    with pytest.raises(InputError, match="calibration scan"):
        Measurement.from_arrays(kspace + 1, mask, calibration=torch.ones(3, 4, 6, 6) + 0j)


def test_files_of_another_volume_are_refused_for_chosen_slices_too(brain, tmp_path):
    image = tmp_path / "image.npz"
    mask = torch.ones(1, 1, N, N, dtype=torch.bool)
    write_scan(image, Scan(brain.kspace[:1].expand(3, -1, -1, -1), mask))
    np.save(tmp_path / "maps.npy", brain.coil_maps[:1].expand(5, -1, -1, -1).numpy())
    np.save(tmp_path / "own.npy", brain.kspace[:1].expand(5, -1, -1, -1).numpy())
    for options in ({"coil_maps": tmp_path / "maps.npy"}, {"calibration": tmp_path / "own.npy"}):
        with pytest.raises(InputError, match="5 slices and the scan 3"):
            read_scan(image, slices=1, **options)
