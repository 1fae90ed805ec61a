"""The studies of the speed of training and of the phantom, at their smallest."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from scripts import forget_accelerate

from benchmarks.speed import phantom, training
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


def test_phantom_slices_are_drawn_without_workers(tmp_path: Path, monkeypatch) -> None:
    for name in ("brain_anatomy", "knee_anatomy"):
        monkeypatch.setattr(phantom, name, lambda generator: knee_anatomy(generator, size=32))
    path = tmp_path / "phantom_speed.json"
    command = ["--workers", "0", "--slices", "2", "--resolution", "16"]
    phantom.main([*command, "--output", str(path)])
    results = json.loads(path.read_text())["results"]
    assert results["workers"] == 0
    assert results["slices_per_second"] > 0
