"""Reconstructors trained on the masks of a sampler that was trained for a task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import forget_accelerate

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks.learned import LOUPE, PatternGenerator
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.pipelines import TaskPipeline, load_reconstructor
from ctxrecon.tasks import FINDINGS, FindingClassifier
from ctxrecon.training import reconstructor as script
from ctxrecon.training.reconstructor import Labels, MeasurementSamples, Sampling, UndersampledScans


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    """A task whose sampler takes the left half of k-space, of 32²."""
    torch.manual_seed(0)
    sampler = LOUPE((32, 32), acceleration=2, lines=True, center_fraction=0.0)
    with torch.no_grad():
        sampler.weights.copy_(torch.where(torch.arange(32) < 16, 9.0, -9.0)[None])
    folder = tmp_path_factory.mktemp("task") / "pipeline"
    TaskPipeline(sampler, FindingClassifier(width=4), classes=list(FINDINGS)).save_pretrained(
        folder
    )
    return folder


def test_a_network_is_trained_on_the_masks_of_the_sampler(task, bank, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    options = ["--network", "unet:width=4:depth=1", "--bank", str(bank), "--resolution", "32"]
    options += ["--sampler", str(task), "--accelerations", "2", "--num_coils", "1"]
    options += ["--magnitude_images", "--loss", "mse", "--max_train_steps", "2"]
    options += ["--train_batch_size", "2", "--validation_scans", "2", "--report_to", "none"]
    forget_accelerate()
    script.main([*options, "--output_dir", str(tmp_path / "run")])
    folder = tmp_path / "run"
    assert load_reconstructor(folder / "pipeline").reconstructor.config.width == 4
    line = json.loads((folder / "validation.jsonl").read_text().splitlines()[-1])
    assert np.isfinite(line["psnr"])


def test_samples_are_those_of_the_sampler(task, bank):
    sampler = TaskPipeline.from_pretrained(task).sampler
    sampling = Sampling((), (2.0,), num_coils=(1,), snr=0.0, sampler=sampler, magnitude=True)
    samples = MeasurementSamples(
        PhantomSlices(AnatomyBank.load(bank), resolution=32, noise=0.0),
        sampling,
        Labels(),
        resolutions=(32,),
    )
    item = samples[0, 3]
    assert item["mask"][..., :16].all()
    assert not item["mask"][..., 16:].any()
    assert torch.equal(item["target"].real, item["target"].abs())
    assert torch.equal(item["coil_maps"], torch.ones(1, 32, 32, dtype=torch.complex64))
    torch.testing.assert_close(item["kspace"][0], fft2c(item["target"]) * item["mask"][0])


def test_masks_are_drawn_at_every_acceleration_asked_for():
    torch.manual_seed(0)
    sampler = PatternGenerator((32, 32), ratios=(0.25, 0.5), center_fraction=0.0)
    sampling = Sampling((), (2.0, 4.0), num_coils=(1,), sampler=sampler)
    rng = np.random.default_rng(0)
    drawn = [sampling.draw(32, rng) for _ in range(24)]
    assert {kind for kind, _ in drawn} == {("PatternGenerator", 2.0), ("PatternGenerator", 4.0)}
    assert all(float(mask.float().mean()) == 1 / kind[1] for kind, mask in drawn)
    assert len({mask.numpy().tobytes() for _, mask in drawn}) > 12


def test_a_sampler_has_its_own_center(task):
    sampler = TaskPipeline.from_pretrained(task).sampler
    sampling = Sampling((), (2.0,), 0.25, num_coils=(1,), sampler=sampler)
    with pytest.raises(InputError, match="--center_fraction applies to --masks"):
        sampling.check([32])


def test_validation_scans_are_magnitudes_too(task):
    sampler = TaskPipeline.from_pretrained(task).sampler
    sampling = Sampling((), (2.0,), num_coils=(1,), snr=0.0, sampler=sampler, magnitude=True)
    for scan in UndersampledScans(2, 32, sampling).scans:
        assert scan.target is not None
        measured = fft2c(scan.target) * scan.cartesian_mask[:, 0]
        torch.testing.assert_close(scan.kspace[:, 0], measured)
        assert torch.equal(scan.target.real, scan.target.abs())


@pytest.mark.parametrize(
    ("options", "keyword"),
    [
        (["--resolution", "48"], "--resolution 32"),
        (["--num_coils", "3"], "--num_coils 1"),
        (["--sampler", "nowhere"], "nowhere"),
    ],
)
def test_refusals(task, bank, tmp_path, options, keyword):
    command = ["--network", "unet:width=4:depth=1", "--bank", str(bank), "--resolution", "32"]
    command += ["--sampler", str(task), "--accelerations", "2", "--num_coils", "1"]
    command += ["--magnitude_images", "--max_train_steps", "1", *options]
    with pytest.raises(InputError, match=keyword):
        script.main([*command, "--output_dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()
