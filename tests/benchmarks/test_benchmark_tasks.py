"""The benchmark of segmentations from k-space, at its smallest size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripts import run_here

from benchmarks.common import training
from benchmarks.tasks import __main__ as study
from benchmarks.tasks import methods, options, pages, scans, segmentation
from benchmarks.tasks.report import page
from benchmarks.tasks.tables import TABLES
from ctxrecon.errors import InputError
from ctxrecon.metrics import iou
from ctxrecon.training import tasks as trainer
from ctxrecon.training.tasks.validation import Scored

TINY = (
    *("--resolution", "32", "--steps", "1", "--scans", "2", "--batch_size", "1"),
    *("--accelerations", "2", "4", "--test_scans", "2", "--target", "mass", "--contrast", "T1"),
    *("--latent_network", "small:width=4:layers=1:latent_channels=2"),
    *("--unets", "two_unets:width=4:depth=2"),
    *("--li_net", "li_net:width=4:layers=1:latent_channels=2"),
)


@pytest.fixture
def run(masses, tmp_path, monkeypatch):
    """Measure tables, with trainings in this process."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(training.subprocess, "run", run_here)

    def measure(*words: str) -> None:
        paths = ["--bank", str(masses), "--runs", str(tmp_path / "runs")]
        study.main([*TINY, *paths, "--output_dir", str(tmp_path), *words])

    return measure


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return json.loads((folder / f"tasks_{name}.json").read_text())["results"]["rows"]


def test_every_stage_is_what_the_training_script_takes(masses, tmp_path, monkeypatch):
    """All methods are scored; stages shared by two of them are trained once."""
    commands: dict[Path, list[str]] = {}

    def note(script: str, words: list[str], folder: Path, steps: int, **_: Any) -> bool:
        assert commands.setdefault(folder, words) == words, folder
        return True

    monkeypatch.setattr(methods, "train_run", note)
    args = options.parse_args(["--bank", str(masses), *TINY, "--runs", str(tmp_path)])
    weighted = [
        segmentation._weighted(name, weight, usual)
        for name, usual in (("latent_weight", 1.0), ("reconstruction_weight", 0.1))
        for weight in (0.5, usual)
    ]
    assert weighted[1] is weighted[3] is methods.INFO.stage
    single = [method.stage for method in methods.METHODS if not method.amortized]
    for stage in [*weighted, *(m.stage for m in segmentation.BIMODAL), *single]:
        methods.trained(stage, 4.0 if stage in single else None, 0, args)
    names = {folder.name for folder in commands}
    assert {"mass_images_loupe_x4_s0", "mass_tackle_x4_s0", "mass_labels_s0"} <= names
    assert len(names) == 10 + 3 + 3  # baselines, weights, two opinions
    for folder, words in commands.items():
        config = trainer.parse_args([*words, "--output_dir", "x", "--max_train_steps", "1"])
        assert config.aim != "task" or config.pretrained_model_name_or_path, folder


def test_segmentation_and_calibration_share_their_models(run, tmp_path, monkeypatch):
    chosen = ("--methods", "Tackle", "InfoMRI")
    run("--tables", "segmentation", *chosen)
    found = rows(tmp_path, "segmentation")
    assert [(row["title"], row["acceleration"]) for row in found] == [
        *(("Tackle", 2), ("Tackle", 4), ("InfoMRI", 2), ("InfoMRI", 4)),
    ]
    for row in found:
        assert len(row["scores"]["ged"]) == 2
        assert row["scores"]["diversity"] == [0, 0] or row["title"] == "InfoMRI"
        assert 0 <= row["calibration"]["brier"]["mean"] <= 1
    text = (tmp_path / "tasks_segmentation.md").read_text()
    assert ".1009 / .9644" in text
    assert ".2216 / .9243" in text  # the highest of four accelerations beside that of two
    assert (tmp_path / "tasks_segmentation_samples.png").stat().st_size > 5000
    monkeypatch.setattr(training.subprocess, "run", lambda *_, **__: pytest.fail("trained before"))
    run("--tables", "calibration", "samples", *chosen)
    assert len(rows(tmp_path, "calibration")) == 4
    few = rows(tmp_path, "samples")
    assert [row["title"] for row in few] == ["K = 1", "K = 2", "K = 4", "K = 8", "K = 16"]
    assert few[0]["scores"]["diversity"] == [0, 0]
    assert ".1369 / .9547" in (tmp_path / "tasks_samples.md").read_text()
    run("--tables", "loss_weights", "--test_only")
    assert [row["title"] for row in rows(tmp_path, "loss_weights")] == ["λ₂ = 1", "λ₃ = 0.1"]
    with pytest.raises(InputError, match="another command"):
        run("--tables", "segmentation", *chosen, "--learning_rate", "1e-5")


def test_two_opinions(run, tmp_path, monkeypatch):
    monkeypatch.setitem(segmentation._BIMODAL, "accelerations", [4.0])
    run("--tables", "bimodal")
    best, pixels, raters, single, drawn, seeing = rows(tmp_path, "bimodal")
    assert best["acceleration"] is None
    assert np.mean(raters["scores"]["ged"]) < np.mean(pixels["scores"]["ged"])
    assert (single["title"], drawn["title"]) == ("no latent", "InfoMRI")
    assert single["scores"]["diversity"] == [0, 0]
    assert max(drawn["scores"]["diversity"] + seeing["scores"]["diversity"]) > 0
    assert all(np.array(single["scores"]["ged"]) >= np.array(best["scores"]["ged"]) - 1e-9)
    text = (tmp_path / "tasks_bimodal.md").read_text()
    assert "½ d(A, B)" in text
    assert "than that of the network without a latent" in text


def test_one_model_at_every_acceleration(run, tmp_path, monkeypatch):
    monkeypatch.setattr(segmentation, "ACCELERATIONS", (1.0, 8.0))
    run("--tables", "accelerations")
    assert [row["acceleration"] for row in rows(tmp_path, "accelerations")] == [1, 8]
    assert "| 8 |" in (tmp_path / "tasks_accelerations.md").read_text()


def test_nothing_is_written_of_what_is_not_tested(run, tmp_path):
    run("--tables", "segmentation", "--test_only")
    run("--tables", "segmentation", "--methods", "SemuNet", "--train_only")
    assert not list(tmp_path.glob("tasks_*"))
    assert len(list((tmp_path / "runs").iterdir())) == 2
    with pytest.raises(InputError, match="--bank"):
        study.main(["--tables", "samples", "--output_dir", str(tmp_path)])


def test_distances_of_what_needs_no_network():
    """Two disks A ⊂ B: ½ d(A, B) of the best single prediction, up to the estimate of the rest."""
    y = torch.arange(32) - 16
    radius = (y[:, None] ** 2 + y[None] ** 2).sqrt()
    core, whole = (radius < 6).to(torch.uint8), (radius < 10).to(torch.uint8)
    unused = torch.zeros(1, 1, 32, 32, dtype=torch.complex64)
    scan = Scored(unused, unused, unused[0], torch.stack([core, whole] * 40))
    distance = 1 - float(iou(core > 0, whole > 0))
    found = {
        draw: segmentation._reference("", [scan], draw).scores["ged"][0]
        for draw in (segmentation._best_single, segmentation._independent, segmentation._raters)
    }
    assert found[segmentation._best_single] == pytest.approx(distance / 2, abs=0.02)
    assert abs(found[segmentation._raters]) < 0.05
    assert 0.02 < found[segmentation._independent] < distance / 2


def test_intervals_of_the_jackknife():
    """The jackknife interval of a mean is Student's t interval."""
    p = [torch.full((4,), value) for value in (0.2, 0.5, 0.9)]
    z = [torch.zeros(4)] * 3
    found = scans._jackknife(lambda p, z: float((p - z).mean()), p, z, [[0], [1], [2]])
    mean, half = np.mean([0.2, 0.5, 0.9]), 4.3027 * np.std([0.2, 0.5, 0.9], ddof=1) / np.sqrt(3)
    assert found["mean"] == pytest.approx(mean)
    assert found["high"] == pytest.approx(mean + half, rel=1e-4)
    assert found["low"] == 0


def test_published_numbers_stand_at_their_places():
    places = [{"title": "InfoMRI", "acceleration": a} for a in (4, 8, 12, 16)]
    found = [pages._published("segmentation", row, places) for row in places]
    assert found == list(methods.INFO.published["segmentation"])
    assert pages._published("calibration", {**places[0], "title": "SemuNet"}, places) == ""


def test_every_table_has_a_page():
    assert set(TABLES) >= {"segmentation", "calibration", "loss_weights", "samples", "bimodal"}
    scores = {name: [0.1, 0.3] for name in ("ged", "dice", "dice_majority", "diversity")}
    row = {"title": "K = 1", "acceleration": 4.0, "scores": scores, "seconds": 0.1}
    results = {"table": "samples", "rows": [row]}
    assert "0.200 [" in page({"command": "python -m benchmarks.tasks", "results": results})
