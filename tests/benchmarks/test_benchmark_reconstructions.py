from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from narrow import present

from benchmarks import real_scans
from benchmarks.common import bart, images
from benchmarks.phantom import __main__ as study
from ctxrecon.baselines import cg_sense
from ctxrecon.coils import estimate_coil_maps, simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks import uniform1d, variable_density2d
from ctxrecon.operators import sense_operator
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import build_pipeline


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prior")
    build_pipeline(block_out_channels=(8, 8, 16), sample_size=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    scan = phantom_scan("brain", shape=(46, 64), generator=torch.Generator().manual_seed(3))
    return present(scan.target)


def test_phantom_table_is_written_and_goes_on_where_it_stopped(prior, tmp_path, monkeypatch):
    command = ["--prior", str(prior), "--output_dir", str(tmp_path), "--scans", "3"]
    command += ["--resolution", "64", "--accelerations", "4", "--steps", "1"]
    command += ["--guidance_scales", "0", "1", "--batch_size", "2"]
    study.main(command)
    record = json.loads((tmp_path / "phantom_table.json").read_text())
    assert record["seed"] == 0
    result = record["results"]["x4"]
    expected = ["zero-filled", "CG-SENSE", "L1-wavelet", "TV", "MoDL"]
    for solver in ("PnPADMM", "DDS"):
        expected += [f"{solver} γ = 0", f"{solver} γ = 1", f"{solver} γ = 1, prompts shuffled"]
    assert list(result["methods"]) == expected
    for entry in result["methods"].values():
        assert entry["psnr"]["n"] == 3
        assert entry["psnr"]["standard_error"] > 0
    assert result["methods"]["L1-wavelet"]["psnr"]["mean"] > 15
    gain = result["differences"]["DDS γ = 1 less DDS γ = 0"]["psnr"]["mean"]
    means = [result["methods"][f"DDS γ = {gamma}"]["psnr"]["mean"] for gamma in (0, 1)]
    assert gain == pytest.approx(means[1] - means[0])
    assert "| TV |" in (tmp_path / "phantom_table.md").read_text()
    assert (tmp_path / "phantom_x4.png").stat().st_size > 10_000

    rows = tmp_path / "phantom_table.csv"
    whole = rows.read_text()
    assert len(whole.splitlines()) == 1 + 3 * len(expected)
    rows.write_text(whole[: -len(whole.splitlines()[-1]) // 2])  # stopped while it wrote
    monkeypatch.setattr(study, "draw", lambda *_: None)
    study.main(command)
    untimed = [line.rsplit(",", 1)[0] for line in rows.read_text().splitlines()]
    assert untimed == [line.rsplit(",", 1)[0] for line in whole.splitlines()]
    with pytest.raises(InputError, match=r"steps 1.* 2"):
        study.main([*command, "--steps", "2"])
    name, other = study.shipped_network()
    next(other.reconstructor.parameters()).data.add_(1)
    monkeypatch.setattr(study, "shipped_network", lambda: (name, other))
    with pytest.raises(InputError, match="network"):
        study.main(command)


def test_real_scans_are_scored_without_the_reference_maps(prior, tmp_path, monkeypatch, image):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    maps = simulate_coil_maps(4, (46, 64), generator=torch.Generator().manual_seed(1))
    coil_images = maps * image[:, None]
    mask = variable_density2d((46, 64), 2.0, 0.4, generator=torch.Generator().manual_seed(2))
    for name, value in (
        (real_scans.T2_FILE, coil_images),
        (real_scans.T1_FILE, fft2c(coil_images) * mask),
    ):
        (tmp_path / name).parent.mkdir()
        np.save(tmp_path / name, value[0].numpy())
    command = ["--data", str(tmp_path), "--prior", str(prior), "--output_dir", str(tmp_path)]
    command += ["--samples", "2", "--steps", "1", "--masks", "2", "--accelerations", "4"]
    real_scans.main([*command, "--guidance_scales", "2"])
    results = json.loads((tmp_path / "real_scans.json").read_text())["results"]
    names = ["zero-filled", "CG-SENSE", "L1-wavelet", "TV", "MoDL", "PnPADMM γ = 2"]
    for start in ("pnp_admm", "network"):
        names += [f"DDS from {start} γ = 2, {kind}" for kind in ("one sample", "mean of 2")]
    t2, t1 = results["brain_t2_4ch x4"], results["brain_t1_8ch_undersampled"]
    assert list(t2) == list(t1) == names
    assert t2["CG-SENSE"]["psnr"]["n"] == 2
    assert t2["L1-wavelet"]["psnr"]["mean"] > t2["zero-filled"]["psnr"]["mean"]
    assert t1["CG-SENSE"]["residual"]["mean"] < t1["CG-SENSE"]["held_out"]["mean"] < 1
    for name in ("real_t2_x4.png", "real_t1.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_held_out_samples_are_outside_the_calibration_region():
    mask = variable_density2d((46, 64), 2.0, 0.4, generator=torch.Generator().manual_seed(2))
    hidden = real_scans.hold_out(mask, torch.Generator().manual_seed(0))
    rows, columns = real_scans.find_calibration_region(mask)
    candidates = int(mask.sum()) - (rows.stop - rows.start) * (columns.stop - columns.start)
    assert int(hidden.sum()) == round(0.1 * candidates)
    assert not (hidden & ~mask).any()
    assert not hidden[..., rows, columns].any()


def test_missing_data_is_named(prior, tmp_path):
    with pytest.raises(InputError, match=r"coil_images\.npy"):
        real_scans.main(["--data", str(tmp_path), "--prior", str(prior)])


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
def test_bart_images_have_our_sign_and_scale_at_any_size(image):
    maps = simulate_coil_maps(4, (46, 64), generator=torch.Generator().manual_seed(1))
    mask = uniform1d((46, 64), 2.0, 0.2, generator=torch.Generator().manual_seed(0))
    kspace = fft2c(maps * image[:, None]) * mask
    found = bart.bart_l1_wavelet(kspace, mask, maps, lambda *_: 0.0, (1e-3,))
    assert images.data_error(found.images, maps, kspace, mask) < 0.1
    theirs = bart.bart_coil_maps(kspace, mask)
    ours = estimate_coil_maps(kspace, mask)
    pair = [cg_sense(sense_operator(mask, some), kspace).abs() for some in (theirs, ours)]
    assert float((pair[0] - pair[1]).norm() / pair[1].norm()) < 0.1
