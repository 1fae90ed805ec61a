"""The shipped reconstruction network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gaussian import complex_noise, seeded

from ctxrecon.cli import main
from ctxrecon.commands.demo import demo_scan
from ctxrecon.io import read_scan
from ctxrecon.loading.components import shipped_reconstructor
from ctxrecon.masks import make_mask
from ctxrecon.metrics import psnr
from ctxrecon.operators import CartesianSense
from ctxrecon.pipelines import (
    BaselinePipeline,
    ReconstructionPipeline,
    load_reconstructor,
    prepare_measurement,
)
from ctxrecon.scan import Scan


@pytest.fixture(scope="module")
def network() -> ReconstructionPipeline:
    return load_reconstructor()


@pytest.fixture(scope="module")
def scan() -> Scan:
    return read_scan(demo_scan())


def test_it_is_small_and_says_what_it_is():
    folder = shipped_reconstructor()
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 8e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "phantom" in card


@pytest.mark.parametrize(
    ("mask", "acceleration", "baseline", "gain"),
    [
        ("uniform1d", 4, "l1_wavelet", 0.2),
        ("uniform1d", 8, "l1_wavelet", 0.2),
        ("poisson_disk2d", 8, "cg_sense", 1.0),
    ],
)
def test_it_is_better_than_a_baseline(network, scan, mask, acceleration, baseline, gain):
    """On the scan of the demo, sampled anew: of the phantom, but never trained on."""
    _, _, ny, nx = scan.kspace.shape
    maps = prepare_measurement(scan.kspace, scan.mask).coil_maps
    sampled = make_mask(mask, (ny, nx), acceleration, 0.08, generator=seeded(0))
    full = torch.ones(1, 1, ny, nx, dtype=torch.bool)
    noise = 0.01 * complex_noise(tuple(scan.kspace.shape), seeded(1))
    kspace = (CartesianSense(full, maps)(scan.target) + noise) * sampled
    call: dict[str, Any] = {"kspace": kspace, "mask": sampled, "coil_maps": maps}
    images = [network(**call).images, BaselinePipeline(baseline)(**call).images]
    scores = [float(psnr(image, scan.target)) for image in images]
    assert scores[0] > scores[1] + gain


def test_the_command_line_takes_it_by_default(tmp_path, network, scan, capsys):
    out = tmp_path / "x.npy"
    command = ["reconstruct", str(demo_scan()), "--out", str(out), "--method", "network"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--device", "cpu"])
    assert not stopped.value.code
    assert type(network.reconstructor).__name__ in capsys.readouterr().out
    expected = network(scan.kspace, scan.mask).images
    np.testing.assert_allclose(np.load(out), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_the_prior_starts_from_its_image(pipe, network, scan):
    call = {"num_inference_steps": 4, "solver": "dds"}
    made = network(scan.kspace, scan.mask).images
    from_array = pipe(scan.kspace, scan.mask, image=made, generator=seeded(0), **call).images
    named = pipe(scan.kspace, scan.mask, image="network", generator=seeded(0), **call).images
    torch.testing.assert_close(named, from_array)
