"""The benchmark of choices in training the prior."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from people import write_people

from benchmarks.ablations import __main__ as study
from benchmarks.ablations import entries
from ctxrecon.errors import InputError
from ctxrecon.pipelines import build_pipeline
from ctxrecon.training import prior as trainer


@pytest.fixture
def command(bank, tmp_path) -> list[str]:
    (tmp_path / "people").mkdir()
    write_people(tmp_path / "people", {"T1": ("ann", "bob")}, 32, each=4)
    options = ["--bank", str(bank), "--train_people", str(tmp_path / "people")]
    options += ["--people", str(tmp_path / "people"), "--runs", str(tmp_path / "runs")]
    options += ["--resolution", "32", "--steps", "2", "--train_batch_size", "2"]
    return [*options, "--test_scans", "2", "--inference_steps", "1", "--output_dir", str(tmp_path)]


def test_every_entry_is_what_the_training_script_takes(command):
    args = entries.parse_args(command)
    titles = {entry.title for entry in entries.ENTRIES}
    for entry in entries.ENTRIES:
        assert entry.compared in titles
        config = trainer.parse_args(
            [*entry.command(args), "--output_dir", "x", "--max_train_steps", "1"]
        )
        assert (config.bank is not None) == entry.phantom
        assert bool(config.train_data_dir) == entry.people
        trainer.starting_point(config)


def test_trainings_are_scored_and_compared(command, tmp_path, monkeypatch):
    made: list[str] = []

    def train(script: str, options: list[str], folder: Path, steps: int) -> bool:
        pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16, seed=len(made))
        pipe.save_pretrained(folder / "pipeline")
        made.append(folder.name)
        return True

    monkeypatch.setattr(study, "train_run", train)
    study.main([*command, "--entries", "ε, min-SNR weights"])
    assert made == ["reference", "v_min_snr_weights", "epsilon_min_snr_weights"]
    results = json.loads((tmp_path / "ablations.json").read_text())["results"]
    assert set(results["people"]) == {"ann", "bob"}
    for entry in results["entries"].values():
        for kind in ("people", "phantom"):
            assert [len(entry["psnr"][kind][name]) for name in ("prompt", "none")] == [2, 2]
    text = (tmp_path / "ablations.md").read_text()
    assert "| ε, min-SNR weights | v, min-SNR weights |" in text
    assert "4 images of 32²" in text

    made.clear()
    again = ["--keep", "--entries", "phantom alone", "ε, min-SNR weights"]
    study.main([*command, *again])
    assert made == ["phantom_alone", "epsilon_min_snr_weights"]
    later = json.loads((tmp_path / "ablations.json").read_text())["results"]["entries"]
    for kept in ("reference", "v, min-SNR weights"):
        assert later[kept] == results["entries"][kept]
    assert list(_rows(tmp_path)) == [
        "reference", "phantom alone", "v, min-SNR weights", "ε, min-SNR weights"
    ]  # fmt: skip

    with pytest.raises(InputError, match="the same inference_steps"):
        study.main([*command, "--keep", "--inference_steps", "2"])
    for option, value in {
        "bank": "other.npz",
        "train_people": "others",
        "label_volumes": "training_seg_13.nii.gz",
    }.items():
        args = entries.parse_args([*command, "--keep", f"--{option}", value])
        with pytest.raises(InputError, match=f"the same {option} "):
            study.measured_before(args, results["people"])
    moved = tmp_path / "moved" / entries.parse_args(command).bank.name
    args = entries.parse_args([*command, "--keep", "--bank", str(moved)])
    assert study.measured_before(args, results["people"]) == later


def _rows(folder: Path) -> list[str]:
    lines = (folder / "ablations.md").read_text().splitlines()
    return [line.split("|")[1].strip() for line in lines if line.startswith("| ")][2:]


def test_unknown_entries(command):
    with pytest.raises(InputError, match="got no such"):
        study.main([*command, "--entries", "no such"])
