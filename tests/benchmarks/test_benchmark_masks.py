"""The benchmark of learned samplers, at its smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gaussian import seeded
from scripts import run_here

from benchmarks.common import training
from benchmarks.masks import __main__ as study
from benchmarks.masks import scans, tables
from benchmarks.speed import masks
from ctxrecon.phantom import AnatomyBank, brain_anatomy, knee_anatomy
from ctxrecon.training import masks as trainer
from ctxrecon.training.masks import build


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A bank of two knees and two brains."""
    path = tmp_path_factory.mktemp("bank") / "both.npz"
    source = seeded(0)
    draws = [lambda: knee_anatomy(source, size=64), lambda: brain_anatomy(source, size=64)]
    AnatomyBank.build([draw() for draw in draws * 2]).save(path)
    return path


def test_every_entry_of_every_table_is_what_the_training_script_takes(both, monkeypatch):
    monkeypatch.setattr(build, "train_t2star_mlp", lambda *_, **__: None)
    monkeypatch.setattr(trainer.JointObjective, "check", lambda *_: None)
    names = set()
    for name, chosen in tables.TABLES.items():
        assert chosen.compared in [entry.title for entry in chosen.entries]
        for entry in chosen.entries:
            slug = f"{name}_{training.slug(entry.title)}"
            assert slug.isascii()
            assert slug not in names
            names.add(slug)
            command = ["--sampler", entry.sampler, "--network", entry.network]
            command += ["--contrasts", chosen.contrasts, "--bank", str(both)]
            command += ["--resolution", "32"]
            if not entry.amortised:
                command += ["--acceleration", f"{entry.accelerations[-1]:g}"]
            command += [*chosen.options, *entry.options]
            args = trainer.parse_args([*command, "--output_dir", "x", "--max_train_steps", "1"])
            pipe = trainer.starting_point(args)
            assert (pipe.sampler.ratios is not None) == entry.amortised
            assert trainer.source(args).draw(0, 32)["images"].shape[-1] == 32


def test_samplers_are_trained_once_and_rated(both, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    network = "unet:width=4:depth=1"
    few = tables.Table(
        "Few",
        (
            tables.Entry(
                "pattern generator",
                "pattern_generator:ratios=[0.25,0.5]:lines=false",
                network,
                (4.0, 2.0),
                times=2,
            ),
            tables.Entry("fixed", "fixed:mask=variable_density2d", network, (4.0, 2.0)),
        ),
        "fixed",
        contrasts="one",
        options=("--center_fraction", "0.125", "--loss", "gaussian", "--predict_std"),
        sweep=True,
        num_coils=1,
    )
    monkeypatch.setattr(study, "TABLES", {"ratios2d": few})
    command = ["--bank", str(both), "--runs", str(tmp_path / "runs"), "--tables", "ratios2d"]
    command += ["--output_dir", str(tmp_path), "--sweep_resolution", "32", "--scans", "4"]
    command += ["--steps", "2", "--test_scans", "2"]
    launcher = training.subprocess
    monkeypatch.setattr(launcher, "run", run_here)
    study.main(command)
    record = json.loads((tmp_path / "sampling_ratios2d.json").read_text())["results"]
    found = record["results"]
    assert [(one["title"], one["acceleration"]) for one in found] == [
        ("pattern generator", 4.0),
        ("pattern generator", 2.0),
        ("fixed", 4.0),
        ("fixed", 2.0),
    ]
    for one in found:
        assert one["accelerations"] == [pytest.approx(one["acceleration"])]
        assert len(one["scores"]["psnr"]) == 2
        assert 0 <= one["redundancy"][0] <= 1
        assert len(one["uncertainty"]["variance"]) == 10
        assert np.diff(one["uncertainty"]["variance"]).min() >= 0
    for name, steps in (("pattern_generator", 2 * 2), ("fixed_x4", 2)):
        assert (tmp_path / "runs" / f"ratios2d_{name}" / f"checkpoint-{steps}").is_dir()
    text = (tmp_path / "sampling_ratios2d.md").read_text()
    assert "| pattern generator | 4 |" in text
    assert "BD-PSNR" in text
    for part in ("masks", "lines", "curves", "x4", "x2"):
        path = tmp_path / f"sampling_ratios2d_{part}.png"
        assert path.stat().st_size > 5_000, part
    monkeypatch.setattr(launcher, "run", lambda *_, **__: pytest.fail("trained before"))
    study.main(command)
    assert (tmp_path / "sampling_ratios2d.md").read_text() == text


def test_the_prior_takes_the_masks_that_a_network_learned(tmp_path, monkeypatch):
    from ctxrecon.masks.learned import LOUPE
    from ctxrecon.pipelines import JointPipeline, build_pipeline
    from ctxrecon.reconstructors import UNetReconstructor

    tiny = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16)
    monkeypatch.setattr(scans, "load_prior", lambda: tiny)
    drawn = scans.held_out_contrasts(1, 32, "one", [], 0, num_coils=3)
    pipe = JointPipeline(
        UNetReconstructor(width=4, depth=1), LOUPE((32, 32), 4.0, center_fraction=0.25)
    )
    found = scans.score_prior("U-Net, LOUPE", pipe, drawn, 4.0, 0)
    assert found.title == "diffusion prior, LOUPE"
    assert int(found.masks[0, 0].sum()) == 8
    assert np.isfinite(found.scores["psnr"]).all()


def test_a_variance_that_is_right_is_calibrated():
    """Errors drawn with the predicted variance itself."""
    source = seeded(0)
    variance = torch.rand(20_000, generator=source) + 0.01
    error = variance * -torch.rand(20_000, generator=source).clamp_min(1e-9).log()  # |n|², n normal
    found = scans.uncertainty([(variance, error)])
    np.testing.assert_allclose(found["squared_error"], found["variance"], rtol=0.1)
    assert found["total"] == pytest.approx(1, abs=0.03)
    assert 0.2 < found["correlation"] < 0.6
    blind = scans.uncertainty([(torch.rand(20_000, generator=source), error)])
    assert abs(blind["correlation"]) < 0.03


def test_a_draw_is_timed(tmp_path):
    masks.main(["--size", "32", "--draws", "3", "--output_dir", str(tmp_path)])
    found = json.loads((tmp_path / "sampler_speed.json").read_text())["results"]["median_ms"]
    assert len(found) == 6
    assert min(found.values()) > 0
