"""BART files: what BART writes is read, and the other way round."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.io import read_scan, scan_info, scan_shape, write_image

# ---------------------------------------------------------------- BART

needs_bart = pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.complex64)


@needs_bart
def test_bart_reads_ours_and_we_read_bart(tmp_path):
    def bart(*arguments: str) -> None:
        subprocess.run(["bart", *arguments], cwd=tmp_path, check=True, capture_output=True)

    bart("phantom", "-k", "-x32", "-s4", "kspace")
    bart("fft", "-i", "-u", "3", "kspace", "coils")
    bart("ecalib", "-m1", "-r16", "kspace", "maps")
    scan = read_scan(tmp_path / "kspace", coil_maps=tmp_path / "maps.cfl")
    assert scan.kspace.shape == present(scan.coil_maps).shape == (1, 4, 32, 32)
    ours = ifft2c(scan.kspace)
    theirs = read_scan(tmp_path / "coils.cfl").kspace
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())

    rss = ours.abs().square().sum(1).sqrt()
    write_image(tmp_path / "ours.cfl", rss)
    bart("rss", "8", "coils", "theirs")
    bart("nrmse", "-t", "1e-4", "theirs", "ours")
    assert scan_info(tmp_path / "kspace.hdr")["format"] == "BART"


@needs_bart
def test_bart_slices_lie_in_dimension_13(tmp_path):
    write_image(tmp_path / "image.cfl", noise(3, 6, 4))
    run = subprocess.run(
        ["bart", "show", "-d", "13", "image"], cwd=tmp_path, check=True, capture_output=True
    )
    assert run.stdout.strip() == b"3"


def write_cfl(path: Path, array: np.ndarray) -> Path:
    """An array with BART's dimensions, of 16 at most."""
    dims = " ".join(map(str, array.shape))
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{dims}\n")
    path.with_suffix(".cfl").write_bytes(array.astype("<c8").tobytes(order="F"))
    return path.with_suffix(".cfl")


def bart_array(**sizes: int) -> np.ndarray:
    """Noise of 8 x 6 samples and 2 coils, with these dimensions (``d5=3``)."""
    shape = [8, 6, 1, 2] + [1] * 12
    for name, size in sizes.items():
        shape[int(name[1:])] = size
    return noise(*shape).numpy()


def test_echoes_frames_and_slices_have_dimensions_of_their_own(tmp_path, caplog):
    array = bart_array(d5=3, d10=2, d11=2, d13=4)
    path = write_cfl(tmp_path / "k", array)
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        scan = read_scan(path, contrast=2, repetition=1, phase=1)
    assert "contrast 2 (of 0 to 2)" in caplog.text
    taken = array[:, :, 0, :, 0, 2, 0, 0, 0, 0, 1, 1, 0, :, 0, 0]  # (8, 6, coils, slices)
    assert np.array_equal(scan.kspace, taken.transpose(3, 2, 0, 1))
    info = scan_info(path)
    assert (info["slices"], info["contrasts"], info["repetitions"]) == (4, 3, 2)
    with pytest.raises(InputError, match="3 contrasts"):
        read_scan(path, contrast=3)


def test_averages_are_of_the_samples_that_were_measured(tmp_path):
    array = bart_array(d14=3)
    array[:, ::2, ..., 0, :] = 0
    array[:, 1::2, ..., 1:, :] = 0
    path = write_cfl(tmp_path / "k", array)
    k = array[:, :, 0, :, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, :, 0].transpose(3, 2, 0, 1)
    expected = np.where(k[0] != 0, k[0], (k[1] + k[2]) / 2)
    torch.testing.assert_close(read_scan(path).kspace[0].numpy(), expected)
    assert np.array_equal(read_scan(path, average=1).kspace[0], k[1])


@needs_bart
def test_slices_of_3d_lie_along_the_readout(tmp_path):
    array = bart_array(d2=4)
    array[:, ::2, 1] = 0
    path = write_cfl(tmp_path / "k", array)
    subprocess.run(
        ["bart", "fft", "-u", "-i", "1", "k", "h"], cwd=tmp_path, check=True, capture_output=True
    )
    theirs = np.fromfile(tmp_path / "h.cfl", "<c8").reshape(array.shape[:4], order="F")
    scan = read_scan(path)
    assert scan_shape(path) == tuple(scan.kspace.shape) == (8, 2, 6, 4)
    torch.testing.assert_close(scan.kspace.numpy(), theirs.transpose(0, 3, 1, 2))
    assert not scan.cartesian_mask[0, 0, ::2, 1].any()
    assert scan.cartesian_mask.sum() == 21
    one = read_scan(path, slices=[5], coil_maps=path)  # maps of any values, of the same size
    torch.testing.assert_close(one.kspace, scan.kspace[5:6])
    array[3, 1, 0] = 0
    with pytest.raises(InputError, match="fully sampled readout"):
        read_scan(write_cfl(tmp_path / "k", array))
