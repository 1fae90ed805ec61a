"""The generated pages of the documentation site; its build checks the rest."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import typer
from documents import ROOT
from typer.core import TyperGroup

from ctxrecon.cli import app
from ctxrecon.training.prior import PriorConfig


def load(name: str) -> ModuleType:
    """A module of ``docs``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site() -> ModuleType:
    return load("site_pages")


@pytest.mark.parametrize(
    ("page", "link", "on_the_site"),
    [
        ("formats.md", "../benchmarks/results/fuzz.md", "benchmarks/results/fuzz.md"),
        ("papers/wgan.md", "../../benchmarks/README.md", "../benchmarks/studies.md"),
        ("benchmarks/studies.md", "results/people.md", "results/people.md"),
        ("benchmarks/studies.md", "__init__.py", "../../benchmarks/__init__.py"),
        ("tutorials/01_a.ipynb", "kspace", "kspace"),
        ("contributing/index.md", "docs/formats.md#scans", "../formats.md#scans"),
        ("tutorials/01_a.ipynb", "../docs/install.md", "../install.md"),
        ("tutorials/01_a.ipynb", "02_b.ipynb", "02_b.ipynb"),
        ("index.md", "https://arxiv.org/abs/2303.05754", "https://arxiv.org/abs/2303.05754"),
        ("index.md", "#install", "#install"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(
    site: ModuleType, page: str, link: str, on_the_site: str
) -> None:
    assert site.site_links(f"[a]({link}) ![b]({link})", page) == (
        f"[a]({on_the_site}) ![b]({on_the_site})"
    )


def test_every_command_and_option_is_in_the_reference(site: ModuleType) -> None:
    page = "".join(site._command_page())
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    for name, command in group.commands.items():
        assert f"## ctxrecon {name}\n" in page
        for parameter in command.params:
            assert all(option in page for option in parameter.opts)


def test_every_training_option_is_in_the_reference(site: ModuleType) -> None:
    page = "".join(site._training_page())
    assert all(f"`--{field.name}`\n" in page for field in dataclasses.fields(PriorConfig))


def test_plain_text_is_not_read_as_markup(site: ModuleType) -> None:
    assert site._escaped("data_weight <*>") == r"data\_weight \<\*\>"


def test_the_gallery_has_a_card_for_each_notebook(
    site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").mkdir()
    text = "# A title\n\nThe first\nsentence, e.g.\nthis one. A second.\n\nMore."
    cell = {"cell_type": "markdown", "source": text.splitlines(keepends=True)}
    notebook = tmp_path / "examples" / "01_title.ipynb"
    notebook.write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setattr(site, "ROOT", tmp_path)
    folder = tmp_path / "tutorials"
    folder.mkdir()
    (folder / "02_gone.ipynb").write_text("{}")
    site._write_tutorials(folder)
    index = (folder / "index.md").read_text()
    assert "{grid-item-card} A title\n:link: 01_title" in index
    assert "\n\nThe first sentence, e.g. this one.\n\n" in index
    assert "tutorial-01_title.png" in index
    assert sorted(path.name for path in folder.iterdir()) == ["01_title.ipynb", "index.md"]


def test_pages_of_results_have_distinct_titles(
    site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for name in ("a", "b"):
        (results / f"{name}.md").write_text("# The same\n\nText.\n")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    site._write_results(tmp_path / "site")
    titles = {path.read_text().splitlines()[0] for path in (tmp_path / "site").iterdir()}
    assert titles == {"# All results", "# The same (a)", "# The same (b)"}


def test_every_page_of_results_has_a_title(site: ModuleType) -> None:
    pages = sorted((site.ROOT / "benchmarks" / "results").glob("*.md"))
    assert pages
    assert [page.name for page in pages if not page.read_text().startswith("# ")] == []


def test_the_richest_figure_of_a_notebook_is_shown(site: ModuleType, tmp_path: Path) -> None:
    figures = [
        {"data": {"image/png": base64.b64encode(name).decode()}} for name in (b"a", b"long", b"b")
    ]
    cells = [{"outputs": [{"name": "stdout", "text": "1"}]}, {"outputs": figures}, {}]
    (tmp_path / "01_a.ipynb").write_text(json.dumps({"cells": cells}))
    (tmp_path / "02_b.ipynb").write_text(json.dumps({"cells": [{}]}))
    site.write_thumbnails(tmp_path, tmp_path / "site")
    written = {path.name: path.read_bytes() for path in (tmp_path / "site/_images").iterdir()}
    assert written == {"tutorial-01_a.png": b"long"}


@pytest.mark.parametrize("formula", [r"A = M F S", r"(A_1, \dots, A_n)", r"\Big(\sum_i x_i\Big)^2"])
def test_formulas_become_mathml(formula: str) -> None:
    pytest.importorskip("sphinx")
    assert load("site_math").mathml(formula, as_block=True).startswith("<math")


def test_the_index_of_an_accented_letter_is_next_to_it() -> None:
    pytest.importorskip("sphinx")
    formula = load("site_math").mathml(r"\hat x_0 + \sqrt{\bar\alpha_{t-1}}", as_block=False)
    assert formula.count("<msub>") == 2
    assert "munder" not in formula
