"""The study of the baselines' speed, at its smallest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.speed import baselines


def test_ratios_are_within_a_turn():
    ours, theirs = [(1.0, 1.0), (10.0, 1.0), (2.0, 2.0)], [(3.0, 2.0), (30.0, 4.0), (4.0, 6.0)]
    assert baselines.ratio(theirs, ours, 0) == 3
    assert baselines.ratio(theirs, ours, 1) == 3


@pytest.mark.filterwarnings("ignore:Level value")
def test_every_implementation_is_timed_and_rated(tmp_path: Path, monkeypatch, capsys) -> None:
    pytest.importorskip("sigpy")
    monkeypatch.setattr(baselines, "import_seconds", lambda turns: {"ctxrecon": 1.0})
    sizes = ["--size", "32", "--coils", "2", "--slices", "1", "2"]
    counts = ["--iterations", "3", "2", "--turns", "1", "2"]
    baselines.main([*sizes, *counts, "--output_dir", str(tmp_path)])
    record = json.loads((tmp_path / "baseline_speed.json").read_text())
    cases = record["results"]["cases"]
    assert [(case["method"], case["slices"]) for case in cases] == [
        *((name, 1) for name in baselines.METHODS),
        *((name, 2) for name in baselines.METHODS),
    ]
    for case in cases:
        assert {baselines.OURS, baselines.SIGPY} <= set(case["entries"])
        assert case["entries"][baselines.OURS]["time_ratio"] == 1
        for entry in case["entries"].values():
            assert entry["median_seconds"] > 0
            assert len(entry["seconds"]) == case["turns"]
            assert 5 < entry["psnr"] < 60
    assert (tmp_path / "baseline_speed.md").read_text() in capsys.readouterr().out
