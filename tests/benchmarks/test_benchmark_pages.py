"""Committed pages, records and pictures of the studies."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.common import figures
from benchmarks.common.arguments import parse, prior_parser, recorded_options
from benchmarks.common.record import write_record
from benchmarks.report import main, pages

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = pages(RESULTS)
TABLE = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
STUDIES = re.findall(r"`python -m benchmarks\.([a-z_.]+)`", TABLE)


def test_every_page_is_generated_and_linked():
    pages = {path.stem for path in RESULTS.glob("*.md")}
    assert pages == set(PAGES)
    linked = re.findall(r"\(results/([^)]+)\)", TABLE)
    assert all((RESULTS / name).is_file() for name in linked)
    assert pages <= {name.removesuffix(".md") for name in linked}


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_what_its_record_gives(name):
    assert PAGES[name]() == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_pages_are_written_beside_their_records(tmp_path):
    (tmp_path / "processes.json").write_bytes((RESULTS / "processes.json").read_bytes())
    main(["--results", str(tmp_path)])
    assert (tmp_path / "processes.md").read_bytes() == (RESULTS / "processes.md").read_bytes()


def test_a_record_holds_the_command_of_the_module(tmp_path, monkeypatch):
    options = ["--prior", "two words", "--seed", "3"]
    args = parse(prior_parser("solvers.curves", None), options)
    record = write_record(tmp_path / "x.json", {}, args)
    assert record["seed"] == 3
    assert shlex.split(record["command"]) == ["python", "-m", "benchmarks.solvers.curves", *options]
    assert recorded_options(record["command"]) == options
    assert recorded_options("python benchmarks/solver_curves.py --seed 3") == ["--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["curves.py", "--seed", "4"])
    args = parse(prior_parser("solvers.curves", None))
    assert args.command == "python -m benchmarks.solvers.curves --seed 4"


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_the_module_that_its_usage_names(name, monkeypatch, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"benchmarks.{name}.__main__")
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    assert re.search(rf"usage: python -m benchmarks\.{re.escape(name)}\s", capsys.readouterr().out)


def test_the_table_of_studies_names_every_command():
    commands = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts[1:]).removesuffix(".__main__")
        for path in (ROOT / "benchmarks").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert commands == set(STUDIES)


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.png")), ids=lambda path: path.stem)
def test_pictures_are_small_and_shown(path):
    assert path.stat().st_size <= figures.LARGEST
    documents = [each.read_text(encoding="utf-8") for each in ROOT.rglob("*.md")]
    assert any(path.name in text for text in documents)


def test_a_picture_that_is_too_large_is_scaled_down(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    figures.shrink(tmp_path / "noise.png")
    assert 150_000 < (tmp_path / "noise.png").stat().st_size <= figures.LARGEST
    with Image.open(tmp_path / "noise.png") as image:
        assert image.width / image.height == pytest.approx(9 / 7, rel=0.01)


def test_a_small_picture_stays_as_it_is(tmp_path):
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    before = (tmp_path / "red.png").read_bytes()
    figures.shrink(tmp_path / "red.png")
    assert (tmp_path / "red.png").read_bytes() == before
