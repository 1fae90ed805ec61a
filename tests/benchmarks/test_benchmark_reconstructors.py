"""The benchmark of reconstruction networks, at its smallest size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from scripts import run_here

from benchmarks.common import training
from benchmarks.reconstructors import __main__ as study
from benchmarks.reconstructors import report, tables
from benchmarks.speed import reconstructors
from ctxrecon.errors import InputError
from ctxrecon.evaluation import summary
from ctxrecon.training import reconstructor as trainer


def test_every_entry_of_every_table_is_what_the_training_script_takes(bank):
    """Titles map to distinct folders, and options are consistent."""
    names = set()
    for name, chosen in tables.TABLES.items():
        for entry in chosen.entries(30):
            slug = f"{name}_{training.slug(entry.title)}"
            assert slug.isascii()
            assert slug not in names
            names.add(slug)
            command = ["--network", entry.network, "--bank", str(bank), "--scans", "30"]
            command += ["--output_dir", "x", "--max_train_steps", "1", *entry.options]
            args = trainer.parse_args(command)
            labels = trainer.Labels(args.labels, args.labeled, args.magnitude_labels)
            pipe = trainer.starting_point(args)
            trainer.Objective(args.loss, args.adversarial).check(labels, pipe.reconstructor)
    assert "objectives_wgan_l1" in names
    assert "objectives_ista_net_l1" in names


def test_networks_are_trained_once_and_rated(bank, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    small = "unrolled:width=4:iterations=1:blocks=1"
    entries = [
        tables.Entry("WGAN, unpaired", small, tables.disjoint("wgan_gp", 4)),
        tables.Entry("ℓ1", small),
    ]
    few = tables.Table("Few", lambda scans: entries, (4.0,), "ℓ1")
    monkeypatch.setitem(tables.TABLES, "objectives", few)
    monkeypatch.setattr(study, "_WEIGHTS", (0.002, 0.01))
    monkeypatch.setattr(study, "_TUNING_SCANS", 2)
    command = ["--bank", str(bank), "--runs", str(tmp_path / "runs"), "--tables", "objectives"]
    command += ["--output_dir", str(tmp_path), "--resolution", "48", "--scans", "4"]
    command += ["--steps", "2", "--batch_size", "2", "--test_scans", "2"]
    launcher = training.subprocess
    launches: Iterator[Any] = iter([launcher.run, run_here])  # one as users do, one as is quicker
    monkeypatch.setattr(launcher, "run", lambda *given, **named: next(launches)(*given, **named))
    study.main(command)
    results = json.loads((tmp_path / "reconstructors_objectives.json").read_text())["results"]
    scores = results["objectives x4"]
    assert list(scores) == ["zero-filled", "CS-wavelet", "WGAN, unpaired", "ℓ1"]
    assert scores["ℓ1"]["snr"]["n"] == 2
    assert scores["ℓ1"]["hfen"]["mean"] > 0
    assert scores["ℓ1"]["snr_less"]["mean"] == 0
    less = scores["ℓ1"]["snr"]["mean"] - scores["zero-filled"]["snr"]["mean"]
    assert scores["zero-filled"]["snr_less"]["mean"] == pytest.approx(-less, abs=1e-6)
    assert (tmp_path / "objectives_x4.png").stat().st_size > 10_000
    trained = results["entries"]["objectives_x4_l1"]
    assert trained["network"] == small
    assert trained["parameters"] > 100
    text = (tmp_path / "reconstructors_objectives.md").read_text()
    assert "| WGAN, unpaired |" in text
    monkeypatch.setattr(launcher, "run", lambda *_, **__: pytest.fail("trained before"))
    study.main(command)
    assert (tmp_path / "reconstructors_objectives.md").read_text() == text
    with pytest.raises(InputError, match="another command"):
        study.main([*command, "--learning_rate", "1e-5"])


def test_a_page_without_trained_networks():
    scores = {name: summary([1.0, 2.0]) for name in tables.METRICS}
    part = {"objectives x10": {"zero-filled": scores, "CS-wavelet": scores}}
    command = "python -m benchmarks.reconstructors --bank bank.npz --test_only"
    text = report.page({"command": command, "results": {"settings": {}, "entries": {}, **part}})
    assert "no network" in text
    assert "| CS-wavelet |" in text


def test_the_weight_of_cs_wavelet_is_not_chosen_on_the_test_scans(capsys):
    with pytest.raises(SystemExit):
        tables.parse_args(["--bank", "bank.npz", "--seed", str(tables.TUNING_SEED)])
    assert "--seed" in capsys.readouterr().err.splitlines()[-1]


def test_gradients_of_modl_are_compared(tmp_path, monkeypatch):
    command = ["--output_dir", str(tmp_path), "--size", "48", "--coils", "3", "--width", "4"]
    reconstructors.main([*command, "--turns", "1", "--cg_iterations", "4", "60"])
    results = json.loads((tmp_path / "reconstructor_speed.json").read_text())["results"]
    few, many = results["modl"]
    assert few["implicit_bytes"] == many["implicit_bytes"]
    assert few["unrolled_bytes"] < many["unrolled_bytes"] / 4
    assert many["difference"] < 1e-4 < few["difference"]
    assert {"UnrolledGenerator", "UnrolledGenerator, bfloat16"} <= set(results["median_seconds"])
    assert 0 < results["rounding"] < 0.05
