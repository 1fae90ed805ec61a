"""The benchmark of adaptation to another scanner."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from people import write_people

from benchmarks.adapt import __main__ as study
from benchmarks.adapt import scanner
from ctxrecon.errors import InputError


@pytest.fixture
def command(prior, tmp_path) -> list[str]:
    options = ["--prior", str(prior), "--scans", "1", "--kinds", "full", "--steps", "1"]
    return [*options, "--tests", "2", "--accelerations", "4", "--output_dir", str(tmp_path)]


@pytest.mark.parametrize("real", [False, True], ids=["phantom", "people"])
def test_each_kind_of_images_has_a_page_of_its_own(command, tmp_path, real, monkeypatch):
    def unchanged(pipe: Any, scans: list[Any], prompts: list[str], **_: object) -> Any:
        assert len(scans) == len(prompts) == 1
        scores = SimpleNamespace(gain=-0.5)
        return SimpleNamespace(pipe=pipe, adapted=False, share=0.0, held_out="", scores=scores)

    monkeypatch.setattr(study, "adapt_prior", unchanged)
    for module in (study, scanner):
        monkeypatch.setattr(module, "SHAPE", (72, 64))
    if real:
        (tmp_path / "people").mkdir()
        write_people(tmp_path / "people", {"T1": ("ann", "bob", "cid")}, 72, each=1)
        command += ["--images", str(tmp_path / "people")]
    study.main(command)
    name = "adapt_people" if real else "adapt"
    assert [path.stem for path in tmp_path.glob("*.md")] == [name]
    results = json.loads((tmp_path / f"{name}.json").read_text())["results"]
    cell = results["cells"]["full 1"]
    for where in ("scanner", "phantom"):
        assert len(cell[where]["x4"]) == len(results["before"][where]["x4"]) == 2
    text = (tmp_path / f"{name}.md").read_text()
    assert "| 1, full | 0 | -0.50 | +0.00 [+0.00, +0.00] |" in text
    assert "After adapting to 1 fully sampled scan, the original prior is kept." in text
    assert ("images of real people" in text) == real


def test_too_few_people(command, tmp_path):
    (tmp_path / "people").mkdir()
    write_people(tmp_path / "people", {"T1": ("ann", "bob")}, 120, each=1)
    with pytest.raises(InputError, match="at least 3 people"):
        study.main([*command, "--images", str(tmp_path / "people")])
