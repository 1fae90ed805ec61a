"""The examples in the docstrings run as they stand, each docstring by itself."""

from __future__ import annotations

import doctest
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules() -> list[str]:
    """Modules of the checkout with an example, by the names that they have when installed."""
    found = []
    for folder, prefix in ((ROOT / "src" / "ctxrecon", ""), (ROOT / "pipelines", "pipelines.")):
        for path in sorted(folder.rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(folder).with_suffix("").parts)
                found.append(f"ctxrecon.{prefix}{name}".removesuffix(".__init__"))
    return found


@pytest.mark.parametrize("name", modules())
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    examples = [test for test in doctest.DocTestFinder().find(module, globs={}) if test.examples]
    assert examples, f"{name} has an example that doctest does not find"
    for test in examples:
        runner.run(test, out=sys.stdout.write)
    failed = runner.summarize(verbose=False).failed
    assert not failed, f"{failed} examples of {name} failed, as printed above"
    assert not list(tmp_path.iterdir()), f"examples of {name} leave files behind"
