"""The benchmark of learned samplers, at its smallest size."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from gaussian import seeded
from scripts import run_here

from benchmarks.common import training
from benchmarks.masks import __main__ as study
from benchmarks.masks import intervals, scans, tables
from benchmarks.speed import masks
from ctxrecon.masks.learned import SequentialSampler
from ctxrecon.phantom import AnatomyBank, brain_anatomy, knee_anatomy
from ctxrecon.pipelines import load_joint
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
            acceleration = entry.accelerations[-1]
            command = ["--sampler", entry.sampler_for(acceleration)]
            if entry.after:  # by what goes on with another network
                assert chosen.entry(entry.after).amortized
                command += ["--network", chosen.entry(entry.after).network]
            else:
                command += ["--network", entry.network]
            command += ["--contrasts", chosen.contrasts, "--bank", str(both)]
            command += ["--resolution", "32"]
            command += entry.acceleration_for(acceleration)
            command += [*chosen.options, *entry.options]
            args = trainer.parse_args([*command, "--output_dir", "x", "--max_train_steps", "1"])
            pipe = trainer.starting_point(args)
            assert (pipe.sampler.ratios is not None) == ("ratios" in entry.sampler)
            assert args.magnitude_images == chosen.magnitude
            if entry.stages:
                assert isinstance(pipe.sampler, SequentialSampler)
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


def test_intervals_stages_and_policies(both, tmp_path, monkeypatch):
    """The tables of InfoMRI, at their smallest size, of networks that were not trained."""

    def start_only(script, options, folder, steps, *, test_only):
        command = [*options, "--output_dir", str(folder), "--max_train_steps", str(steps)]
        trainer.starting_point(trainer.parse_args(command)).save_pretrained(folder / "pipeline")
        return True

    monkeypatch.setattr(study, "train_run", start_only)
    network = "unet:width=4:depth=1:predict_std=joint"
    served = "ratios=[0.25,0.5]"
    tested, loss = (4.0, 2.0), ("--loss", "gaussian")
    fixed = f"fixed:mask=uniform1d:{served}:center_fraction=0.125"
    few = tables.Table(
        "Few",
        (
            tables.Entry("all", f"pattern_generator:{served}", network, tested, loss),
            tables.Entry(
                "each", "pattern_generator:ratios=[{ratio},{ratio}]", network, tested, loss
            ),
            tables.Entry("fixed", fixed, network, tested, loss, published="−1 dB"),
            tables.Entry(
                "stages",
                "sequential:stages=2:width=4:center_fraction=0.125",
                network,
                (2.0,),
                loss,
                stages=True,
            ),
            tables.Entry(
                "policy", "greedy:width=4:center_fraction=0.125", "", (2.0,), tested=tested,
                after="fixed",
            ),
        ),
        "all",
        contrasts="one",
        options=("--magnitude_images",),
        sweep=True,
        num_coils=1,
        intervals=True,
    )  # fmt: skip
    monkeypatch.setattr(study, "TABLES", {"infomri1d": few})
    command = ["--bank", str(both), "--runs", str(tmp_path / "runs"), "--tables", "infomri1d"]
    command += ["--output_dir", str(tmp_path), "--sweep_resolution", "32", "--scans", "4"]
    study.main([*command, "--steps", "1", "--test_scans", "2", "--seeds", "0", "1"])
    record = json.loads((tmp_path / "sampling_infomri1d.json").read_text())["results"]
    rows = [(one["title"], one["seed"]) for one in record["results"]]
    titles = ["all", "all", "each", "each", "fixed", "fixed", "stages", "stages", "policy"]
    assert rows == [(title, seed) for seed in (0, 1) for title in [*titles, "policy"]]
    for one in record["results"]:
        assert one["accelerations"] == [pytest.approx(one["acceleration"])]
    staged = [one["acceleration"] for one in record["results"] if one["title"] == "stages"]
    assert staged[:2] == [32 / 10, 2.0]  # a centre of 4 lines, and 6 more in each stage
    one, other = (
        load_joint(tmp_path / "runs" / f"infomri1d_each_x4{suffix}" / "pipeline").sampler
        for suffix in ("", "_seed1")
    )
    assert one.ratios == (0.25, 0.25)
    assert not torch.equal(one.embeddings, other.embeddings)
    text = (tmp_path / "sampling_infomri1d.md").read_text()
    assert "from the seeds 0, 1" in text
    assert "| stages | 3.2 | 31.2 % |" in text
    assert "| −1 dB |" in text
    assert "[" in next(line for line in text.splitlines() if line.startswith("| fixed | 4 |"))


def test_distances_are_those_of_the_curves():
    """Intervals are over several trainings, or over the scans of a single one."""
    generator = np.random.default_rng(0)
    shift = {"one": 0.0, "other": -1.5}

    def scored(title, acceleration, seed):
        noise = 0.01 * generator.standard_normal(30)
        psnr = 30 - 10 * np.log10(acceleration) + shift[title] + seed + noise
        model = {"redundancy": [0.5], "parameters": 1000}
        scores = {"psnr": psnr, "ssim": psnr / 100}
        return scans.Scored(
            title=title, acceleration=acceleration, scores=scores, model=model, seed=seed
        )

    entries = tuple(tables.Entry(title, "loupe", "unet", published=title) for title in shift)
    described = tables.Table("Two", entries, "one", intervals=True)
    for seeds in ((0,), (0, 1, 2)):
        found = [scored(t, a, s) for s in seeds for t in shift for a in (2.0, 4.0, 8.0)]
        line = intervals.distances(described, found).splitlines()[-1].split("|")
        gain, low, high = (float(n) for n in re.findall(r"[-+]\d+\.\d+", line[3]))
        assert low <= gain <= high
        assert gain == pytest.approx(-1.5, abs=0.02)
        # 1.5 dB are 41 % of the rate, on curves of 10 dB a decade.
        assert float(line[4].split()[0]) == pytest.approx(100 * (10**0.15 - 1), abs=1)
        assert line[5].strip() == "other"
        rows = intervals.scores(described, found).splitlines()
        assert len(rows) == 2 + 6


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
