"""BART files: what BART writes is read, and the other way round."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import torch
from narrow import present

from ctxrecon.fourier import ifft2c
from ctxrecon.io import (
    read_scan,
    scan_info,
    write_image,
)

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
