"""The study of the trainer's speed, at its smallest."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from scripts import forget_accelerate

from benchmarks.speed import training
from ctxrecon.phantom import AnatomyBank, knee_anatomy


def test_every_loop_is_timed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forget_accelerate()
    generator = torch.Generator().manual_seed(0)
    AnatomyBank.build([knee_anatomy(generator, size=64)]).save(tmp_path / "bank.npz")
    training.main(
        [
            *("--bank", str(tmp_path / "bank.npz"), "--output_dir", str(tmp_path)),
            *("--resolution", "16", "--batch_size", "1", "--steps", "1", "--blocks", "1"),
        ]
    )
    record = json.loads((tmp_path / "training_speed.json").read_text())["results"]
    assert set(record["images_per_second"]) == {
        training.DIFFUSERS,
        training.MEMORY,
        training.PHANTOM,
        training.SHARDS,
    }
    assert min(*record["images_per_second"].values(), record["rendered_per_second"]) > 0
