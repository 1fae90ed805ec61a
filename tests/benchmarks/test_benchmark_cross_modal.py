"""The benchmark of references of another contrast, at its smallest size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from scripts import run_here

from benchmarks.common import training
from benchmarks.cross_modal import __main__ as study
from benchmarks.cross_modal import report, scans, tables
from benchmarks.cross_modal.complexity import complexity
from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank, Misalignment, brain_anatomy
from ctxrecon.training import cross_modal as trainer
from ctxrecon.training.cross_modal.run import starting_point


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("brains") / "bank.npz"
    generator = torch.Generator().manual_seed(0)
    AnatomyBank.build([brain_anatomy(generator, size=64) for _ in range(2)]).save(path)
    return path


def test_every_entry_of_every_table_is_what_the_training_script_takes(brains):
    """Tables share runs with equal options, and titles map to distinct folders."""
    commands: dict[tuple[str, tables.Task], tables.Entry] = {}
    configs: dict[str, trainer.CrossModalConfig] = {}
    args = tables.parse_args(["--bank", str(brains)])
    for chosen in tables.TABLES.values():
        titles = [entry.title for entry in chosen.entries]
        assert chosen.compared in titles
        for entry in chosen.entries:
            for task in chosen.tasks:
                key = (training.slug(entry.title), task)
                assert key[0].isascii()
                assert commands.setdefault(key, entry) == entry
                command = tables.options_of(entry, task, 0, args)
                command += ["--output_dir", "x", "--max_train_steps", "1"]
                configs[entry.title] = trainer.parse_args(command)
    assert len(configs) == 13 + 5
    for config in configs.values():
        starting_point(config)


def test_aligners_are_trained_before_what_starts_from_them(brains, monkeypatch):
    started: list[tuple[list[str], str, int]] = []

    def note(script: str, options: list[str], folder: Path, steps: int, **_: object) -> bool:
        started.append((options, folder.name, steps))
        return folder.name.startswith("registration")

    monkeypatch.setattr(study, "train_run", note)
    args = tables.parse_args(["--bank", str(brains), "--seeds", "3", "--registration_steps", "7"])
    chosen = tables.TABLES["misalignment"]
    entry = next(one for one in chosen.entries if one.registered)
    study.train_entry(entry, tables.Task(motion=1.0), chosen.motions, args)
    (first, name, steps), (then, _, _) = started
    assert (name, steps) == ("registration_0_to_4_px_s3", 7)
    assert first[first.index("--order") + 1] == "registration"
    assert then[then.index("--aligner") + 1] == str(args.runs / name / "pipeline")
    config = trainer.parse_args([*first, "--output_dir", "x", "--max_train_steps", "1"])
    assert (config.rotation, config.translation, config.elastic) == (4, 4, 4)
    assert config.least_motion == 0
    config = trainer.parse_args([*then, "--output_dir", "x", "--max_train_steps", "1"])
    assert (config.elastic, config.least_motion) == (1, 1)


def test_an_aligner_for_one_motion_is_trained_on_all_of_it(brains):
    args = tables.parse_args(["--bank", str(brains)])
    motions = tables.TABLES["ratios"].motions
    assert motions == (2, 2)
    command = tables.registration_options(motions, 0, args)
    config = trainer.parse_args([*command, "--output_dir", "x", "--max_train_steps", "1"])
    assert (config.rotation, config.elastic, config.least_motion) == (2, 2, 1)


def test_what_nobody_moved_for_is_no_motion(brains):
    args = tables.parse_args(["--bank", str(brains)])
    still = tables.Entry("still", "aligned", still=True)
    for entry, task in (
        (still, tables.Task()),
        (tables.Entry("e", "none"), tables.Task(motion=0)),
    ):
        command = tables.options_of(entry, task, 0, args)
        for name in ("--rotation", "--translation", "--elastic"):
            assert float(command[command.index(name) + 1]) == 0


def test_networks_are_trained_once_and_rated(brains, prior, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    every = {entry.title: entry for entry in tables.TABLES["help"].entries}
    few = tables.Table(
        "Few",
        tuple(every[t] for t in ("R alone", "OT, guided", "T1 not moved")),
        started="OT, guided",
        picture="few.png",
    )
    monkeypatch.setitem(tables.TABLES, "help", few)
    small = "small:width=2:depth=1:cascades=1:synthesis_cascades=1:align_width=2:align_depth=1"
    command = ["--bank", str(brains), "--runs", str(tmp_path / "runs"), "--tables", "help"]
    command += ["--output_dir", str(tmp_path), "--resolution", "64", "--scans", "2"]
    command += ["--steps", "1", "--batch_size", "1", "--test_scans", "2", "--seeds", "0"]
    command += ["--network", small, "--critic_width", "2", "--critic_depth", "2"]
    command += ["--prior", str(prior)]
    monkeypatch.setattr(training.subprocess, "run", run_here)
    study.main(command)
    results = json.loads((tmp_path / "cross_modal_help.json").read_text())["results"]
    (scores,) = results["tasks"].values()
    of_prior = ["prior", "prior, from the synthetic T2", "prior, near the synthetic T2"]
    assert list(scores) == ["zero-filled", "R alone", "OT, guided", *of_prior, "T1 not moved"]
    assert scores[of_prior[0]]["psnr"] != scores[of_prior[1]]["psnr"]
    assert "endpoint_error" not in scores[of_prior[0]]
    assert (tmp_path / "few.png").is_file()
    assert scores["zero-filled"]["endpoint_error"]["mean"] > 0.5
    assert scores["T1 not moved"]["endpoint_error"]["mean"] == 0
    less = scores["OT, guided"]["psnr"]["mean"] - scores["R alone"]["psnr"]["mean"]
    assert scores["OT, guided"]["more"]["mean"] == pytest.approx(less, abs=1e-6)
    assert "more" not in scores["R alone"]
    text = (tmp_path / "cross_modal_help.md").read_text()
    assert "6.25 % of k-space, moved by 2 px" in text
    assert "| OT, guided |" in text
    assert "(few.png)" in text
    monkeypatch.setattr(training.subprocess, "run", lambda *_, **__: pytest.fail("trained before"))
    study.main([*command, "--test_only"])
    with pytest.raises(InputError, match="another command"):
        study.main([*command, "--learning_rate", "1e-5"])


def test_tests_need_a_bank(tmp_path):
    with pytest.raises(InputError, match="--bank"):
        study.main(["--tables", "help", "--output_dir", str(tmp_path)])


def test_scans_with_and_without_motion_are_of_the_same_people():
    drawn = scans.TestScans.draw(2, 64, tables.Task("radial2d", 4.0), [], Misalignment(), 0)
    for moved, still in zip(drawn.moved, drawn.still, strict=True):
        assert torch.equal(moved.target, still.target)
        assert moved.pair.displacement.any()
        assert not still.pair.displacement.any()
    assert drawn.masks.shape == (2, 1, 64, 64)
    assert 0.2 < drawn.masks.float().mean() < 0.3
    assert drawn.people == ["brain 0", "brain 1"]


def test_the_papers_complexity(tmp_path, monkeypatch):
    """The publication reports 104.01 billion multiply-accumulates in total."""
    monkeypatch.setattr("benchmarks.cross_modal.complexity._SIZE", 64)
    found = complexity()
    together = found["together"]
    assert together["parameters"] == pytest.approx(27.86, rel=0.03)
    assert together["macs"] * 25 == pytest.approx(104.01, rel=0.15)  # as at 320²
    assert "| OT_S |" in report.page({"results": {"complexity": found}})
