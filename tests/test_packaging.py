"""What is installed: version, files, dependencies, and every training without a checkout."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import pytest
import yaml
from command_line import run
from scripts import TRAINING, load_script

import ctxrecon

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INSTALLED = next(  # a build leaves metadata in the checkout, which is no installation
    one
    for one in distributions(name="ctxrecon")
    if Path(str(one.locate_file(""))).resolve() != ROOT
)
SCRIPTS = {
    "clip": "train_clip",
    "cross_modal": "train_cross_modal",
    "masks": "train_sampler",
    "prior": "train_prior",
    "reconstructor": "train_reconstructor",
    "tasks": "train_task",
}
"""Package of a training, which is its command too, and its script."""

LARGEST_WHEEL = 40e6


def in_the_checkout() -> set[str]:
    """Every file of the package in the checkout, by its place in the wheel."""
    files = {
        path.relative_to(ROOT / "src").as_posix(): path
        for path in (ROOT / "src" / "ctxrecon").rglob("*")
    }
    files |= {f"ctxrecon/pipelines/{path.name}": path for path in (ROOT / "pipelines").iterdir()}
    return {
        name
        for name, path in files.items()
        if path.is_file() and path.suffix != ".pyc" and not name.startswith("ctxrecon.egg-info")
    }


@pytest.fixture
def wheel() -> dict[str, Path]:
    """The files of the installed distribution; not of an editable one, which has none."""
    source = json.loads(INSTALLED.read_text("direct_url.json") or "{}")
    if source.get("dir_info", {}).get("editable"):
        pytest.skip("an editable installation has no files of its own")
    listed = INSTALLED.files or []
    files = {PurePosixPath(file).as_posix(): Path(str(file.locate())) for file in listed}
    return {name: path for name, path in files.items() if path.suffix != ".pyc"}


def test_there_is_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert INSTALLED.version == ctxrecon.__version__ == citation["version"]
    assert citation["authors"] == PROJECT["project"]["authors"]
    assert citation["license"] == PROJECT["project"]["license"]


def test_every_package_is_listed() -> None:
    """What is not named in pyproject.toml works in the checkout and nowhere else."""
    source = ROOT / "src"
    found = {
        ".".join(path.parent.relative_to(source).parts)
        for path in (source / "ctxrecon").rglob("__init__.py")
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"ctxrecon.pipelines"}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: dict[str, Path]) -> None:
    package = {name for name in wheel if name.startswith("ctxrecon/")}
    assert package == in_the_checkout()
    assert {"ctxrecon/py.typed", "ctxrecon/checkpoints/demo_scan.npz"} <= package
    others = {name.split("/")[0] for name in wheel} - {"ctxrecon", ".."}  # ../../../bin/ctxrecon
    assert others == {f"ctxrecon-{ctxrecon.__version__}.dist-info"}
    assert sum(path.stat().st_size for path in wheel.values()) < LARGEST_WHEEL


def test_the_tests_need_no_other_extra() -> None:
    """What an extra installs is tested: ``test`` holds it with the same bound.

    Except for ``docs``, which builds the site.
    """
    extras = PROJECT["project"]["optional-dependencies"]
    others = {
        one for name, group in extras.items() if name not in ("docs", "test") for one in group
    }
    assert others <= set(extras["test"])


def test_every_training_has_a_module_a_script_and_a_command() -> None:
    modules = {path.parent.name for path in (ROOT / "src/ctxrecon/training").glob("*/__main__.py")}
    assert modules == set(SCRIPTS)
    assert {path.stem for path in TRAINING.glob("train_*.py")} == set(SCRIPTS.values())


@pytest.mark.parametrize("subject", SCRIPTS)
def test_training_starts_without_a_checkout(
    subject: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = f"ctxrecon.training.{subject}"
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(module, run_name="__main__")
    assert not stopped.value.code
    options = usage(capsys)
    assert run("train", subject, "--help") == 0
    assert usage(capsys) == options
    main = load_script(SCRIPTS[subject]).main
    with pytest.raises(SystemExit):
        main(["--help"])
    assert usage(capsys) == options


def test_a_bank_is_drawn_without_a_checkout(tmp_path: Path, capsys) -> None:
    options = ("--brains", 1, "--knees", 1, "--size", 32, "--workers", 1)
    path = tmp_path / "bank.npz"
    assert run("prepare", "bank", "--output", path, *options) == 0
    assert "2 anatomies" in capsys.readouterr().out
    assert path.is_file()
    assert run("prepare", "bank", "--output", path, "--brains", "many") == 2
    assert find_spec("ctxrecon.training.bank")


def usage(capsys: pytest.CaptureFixture[str]) -> str:
    """The options that a help lists, without the name of the program."""
    said = re.sub(r"usage:.*?\n\n", "", capsys.readouterr().out, count=1, flags=re.DOTALL)
    assert "--output_dir" in said
    return said


def test_a_normal_start_says_nothing() -> None:
    """Neither warnings nor bars of libraries, with every warning shown."""
    code = "import ctxrecon; ctxrecon.load()"
    started = subprocess.run(
        [sys.executable, "-W", "always::FutureWarning", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout == started.stderr == ""
