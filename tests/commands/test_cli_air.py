"""Slices of air and of zeros in a volume on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ctxrecon.cli import app
from ctxrecon.io import read_scan, write_scan
from ctxrecon.phantom import phantom_scan


@pytest.fixture
def volume(tmp_path, generator):
    """Signal, zeros, noise, signal."""
    scan = phantom_scan("knee", shape=(48, 48), num_coils=4, generator=generator)
    noise = 0.02 * torch.randn(scan.kspace.shape, dtype=torch.complex64, generator=generator)
    kspace = torch.cat([scan.kspace, torch.zeros_like(noise), noise, 2 * scan.kspace])
    path = tmp_path / "volume.npy"
    np.save(path, kspace.numpy())
    return path


@pytest.mark.parametrize("method", ["l1-wavelet", "network", "prior --steps 2"])
def test_slices_without_signal_are_zero_and_named(volume, tmp_path, method, caplog):
    out = tmp_path / "out.npy"
    command = ["reconstruct", str(volume), "--method", *method.split(), "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--undersample", "uniform1d"])
    assert result.exit_code == 0, result.output
    peaks = np.abs(np.load(out)).reshape(4, -1).max(axis=1)
    assert np.isfinite(peaks).all()
    assert (peaks[[1, 2]] == 0).all()
    assert (peaks[[0, 3]] > 0).all()
    assert caplog.text.count("no signal") == 2
    row = json.loads((tmp_path / "out_metrics.json").read_text())["methods"][0]
    assert 0 < row["residual"] < 0.3  # of an image of zeros it would be 1
    assert "exactly zero" not in caplog.text


def test_a_slice_of_zeros_has_the_mask_of_the_others(volume, tmp_path):
    kspace = np.load(volume)
    kspace[..., 1::2] = 0
    np.save(tmp_path / "half.npy", kspace)
    mask = read_scan(tmp_path / "half.npy").cartesian_mask
    assert torch.equal(mask, (torch.arange(48) % 2 == 0).expand_as(mask))
    assert float(mask.float().mean()) == 0.5


@pytest.mark.parametrize("kept_bytes", [0, 1 << 28])
@pytest.mark.parametrize("suffix", [".npy", ".h5"])
def test_zeros_at_the_end_of_a_volume(volume, tmp_path, monkeypatch, suffix, kept_bytes):
    monkeypatch.setattr("ctxrecon.commands.volume._KEPT_BYTES", kept_bytes)
    kspace = np.load(volume)[[1, 0, 1]]
    kspace[..., :10] = 0
    np.save(volume, kspace)
    path = (tmp_path / "ends").with_suffix(suffix)
    if suffix == ".npy":
        np.save(path, kspace)
    else:
        write_scan(path, read_scan(volume))
    out = tmp_path / "out.npy"
    command = ["reconstruct", str(path), "--method", "cg-sense", "--out", str(out), "--overwrite"]
    for options, filled in (([], [False, True, False]), (["--slices", "0"], [False])):
        result = CliRunner().invoke(app, [*command, *options])
        assert result.exit_code == 0, result.output
        assert np.load(out).any(axis=(1, 2)).tolist() == filled
        said = json.loads((tmp_path / "out_metrics.json").read_text())
        assert said["acceleration"] == pytest.approx(48 / 38) or not any(filled)
