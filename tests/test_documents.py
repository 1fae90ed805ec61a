"""Every command and every snippet of the documents, run as written.

Commands run in a folder with the files that the documents name; scripts run in a shell, most
commands of ctxrecon in this process. ``SUBSTITUTIONS`` lists every change of their text and
``NOT_RUN`` every command that is not run.
"""

from __future__ import annotations

import contextlib
import glob
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import run
from documents import (
    DOCUMENTS,
    GENERATED,
    ROOT,
    Command,
    blocks,
    commands,
    make_inputs,
    make_models,
    relative_links,
)
from narrow import images_of
from scripts import load_script, start

from ctxrecon.io import read_scan
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import build_pipeline
from ctxrecon.solvers import SOLVERS

HOURS = "training takes minutes to hours"
SUBSTITUTIONS = {
    r"--max_train_steps \d+": ("--max_train_steps 2", HOURS),
    r"--train_batch_size 256": ("--train_batch_size 8", HOURS),
    r"--resolution 96 128 160": ("--resolution 32 64", HOURS),
    r"--masks random1d --accelerations 16": (
        "--masks random1d --accelerations 16 --resolution 64 --train_batch_size 2",
        HOURS,
    ),
    r"--target mass_or_edema": (
        "--target mass_or_edema --resolution 64 --train_batch_size 2",
        HOURS,
    ),
    r"--brains 500 --knees 2000": ("--brains 4 --knees 4", "a bank takes minutes"),
    r"--brains [45]00 --knees 0": ("--brains 6 --knees 0", "a bank takes minutes"),
    r"prepare labels LABELS/\*\.nii\.gz": (
        "prepare labels LABELS/*.nii.gz --slices-per-volume 2",
        "60 slices of 256² take a minute",
    ),
    r"--samples 8": ("--samples 2", "88 images of the prior take a minute"),
    r"--minutes 10": ("--steps 1", "it takes ten minutes"),
    r"--label_slices 2640": ("--label_slices 4", "a bank takes minutes"),
}
"""Replacement and reason for each pattern in a command."""

CHECKOUT = "it changes the environment or reads the whole checkout: .ci/run runs it"
DOWNLOAD = "it downloads packages"
NOT_RUN = {
    "pip install .": CHECKOUT,
    'pip install ".[test]"': CHECKOUT,
    "pytest": CHECKOUT,
    "python3 -m venv .venv": CHECKOUT,
    "source .venv/bin/activate": CHECKOUT,
    'pip install -e ".[test]"': CHECKOUT,
    'pip install ".[docs]"': CHECKOUT,
    "sphinx-build -W --keep-going docs docs/_build/html": CHECKOUT,
    "pytest -m slow": CHECKOUT,
    "ruff check .": CHECKOUT,
    "ruff format --check .": CHECKOUT,
    "typos": CHECKOUT,
    "mypy -p ctxrecon -p benchmarks": CHECKOUT,
    "mypy tests training": CHECKOUT,
    "lint-imports": CHECKOUT,
    "pip wheel --no-deps --wheel-dir wheels .": CHECKOUT,
    "pip download --no-deps --only-binary=:all: --python-version 3.12 --dest wheels "
    "diffusers defusedxml importlib_metadata lazy_importer nibabel requests": DOWNLOAD,
}
"""Reason for each command (without its comment) that is not run."""

ALL = [command for document in DOCUMENTS for command in commands(document)]
TRAINING = ("accelerate launch", "python training/")
SLOW = (*TRAINING, "ctxrecon demo")
AS_TYPED = ("ctxrecon info", "ctxrecon demo")
"""Commands run as programs; the others run in this process to save the start-up time."""


def is_benchmark(command: Command) -> bool:
    """True for benchmarks, which take hours and other data; only their options are tested."""
    return command.document == "benchmarks/README.md" or "-m benchmarks." in command.text


def is_model_card(command: Command) -> bool:
    """True for trainings of shipped models; only their options are tested."""
    return "checkpoints/" in command.document


def bare(command: Command) -> str:
    return re.sub(r"\s+#.*", "", command.text)


RUN = [
    command
    for command in ALL
    if bare(command) not in NOT_RUN and not (is_benchmark(command) or is_model_card(command))
]


def shortened(command: Command) -> str:
    text = command.text
    for pattern, (short, _) in SUBSTITUTIONS.items():
        text = re.sub(pattern, short, text)
    return text


class Terminal:
    """A shell in a folder that first runs the commands whose output a later one needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, subprocess.CompletedProcess[str]] = {}  # several documents share some

    def run(self, command: Command) -> subprocess.CompletedProcess[str]:
        for other in RUN:
            made = other.output
            if made and command.needs(made) and not (self.folder / made).exists():
                self.run(other)
        typed = bare(command)
        if typed not in self.done:
            text = shortened(command)
            here = command.text.startswith("ctxrecon ") and not command.text.startswith(AS_TYPED)
            self.done[typed] = (
                self._call(text) if here else start(["bash", "-c", text], folder=self.folder)
            )
        return self.done[typed]

    def _call(self, text: str) -> subprocess.CompletedProcess[str]:
        """A command of ``ctxrecon`` in this process, for which the shell expands patterns only."""
        words = shlex.split(text, comments=True)
        arguments: list[str] = []
        for word in words[1:]:
            arguments += sorted(glob.glob(word, root_dir=self.folder)) if "*" in word else [word]
        out, errors, before = io.StringIO(), io.StringIO(), Path.cwd()
        os.chdir(self.folder)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
                status = run(*arguments)
        finally:
            os.chdir(before)
        assert status == 0, f"{text}\n{out.getvalue()[-2000:]}\n{errors.getvalue()[-4000:]}"
        return subprocess.CompletedProcess(text, status, out.getvalue(), errors.getvalue())


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Folder of commands that read scans, with the models that the documents train."""
    pytest.importorskip("nibabel")
    folder = tmp_path_factory.mktemp("reading")
    make_inputs(folder)
    make_models(folder)
    return Terminal(folder)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Folder of commands that train models from the output of earlier commands."""
    pytest.importorskip("nibabel")
    folder = tmp_path_factory.mktemp("training")
    make_inputs(folder)
    return Terminal(folder)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(one, marks=[pytest.mark.slow] if one.text.startswith(SLOW) else [])
        for one in RUN
    ],
    ids=lambda one: " ".join(one.words[:4])[:60],
)
def test_command(command: Command, request: pytest.FixtureRequest) -> None:
    folder = "training" if command.text.startswith(TRAINING) else "reading"
    terminal: Terminal = request.getfixturevalue(folder)
    result = terminal.run(command)
    assert "Traceback" not in result.stderr
    if command.output is not None:
        assert (terminal.folder / command.output).exists()


def options_of(command: Command) -> tuple[str, list[str]]:
    """Script or module of a command for Python or accelerate, and its options."""
    words = command.words
    first = next(i for i, word in enumerate(words) if is_program(word))
    return words[first], words[first + 1 :]


def is_program(word: str) -> bool:
    """Whether it names a script or a benchmark."""
    return word.endswith(".py") or word.startswith("benchmarks.")


@pytest.mark.parametrize(
    "command",
    [one for one in ALL if any(map(is_program, one.words))],
    ids=lambda one: " ".join(one.words[:4])[:60],
)
def test_options_are_those_of_the_script(command: Command) -> None:
    name, options = options_of(command)
    if name.endswith(".py"):
        assert (ROOT / name).is_file()
        script = load_script(Path(name).stem)
        # A training script runs a command of the package.
        script = getattr(script.main, "__self__", sys.modules[script.main.__module__])
    else:
        script = importlib.import_module(name)
        if hasattr(script, "__path__"):
            script = importlib.import_module(f"{name}.__main__")
    if hasattr(script, "parse_args"):
        script.parse_args(options)
        return
    text = (ROOT / name).read_text(encoding="utf-8")
    assert all(f'"{word}"' in text for word in options if word.startswith("--"))


WITH_SNIPPETS = [
    document
    for document in DOCUMENTS
    if document != "CONTRIBUTING.md" and blocks(document, "python")
]


_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "README.md": {"output": (1, 32, 32)},
    "docs/index.md": {"output": (1, 32, 32)},
    "docs/how-to/reconstruct.md": {
        "wavelet": (1, 32, 32),
        "published": (1, 32, 32),
        "samples": (1, 32, 32),
    },
    "docs/how-to/learned-masks.md": {"output": (1, 5, 32, 32)},
    "docs/how-to/cross-modal.md": {"output": (1, 32, 32)},
}
"""Shapes of the images that the snippets of a document make."""


@pytest.mark.parametrize("document", WITH_SNIPPETS)
def test_snippets(document: str, reading: Terminal, monkeypatch) -> None:
    """Run the snippets of a document in order on stand-ins for the reader's data."""
    monkeypatch.chdir(reading.folder)
    scan, echoes = read_scan("scan.h5", slices=0), read_scan("echoes.h5")
    names: dict = {"generator": torch.Generator().manual_seed(0), "solver": "pnp_admm"}
    for snippet in blocks(document, "python"):
        kspace = scan.kspace
        if "load_joint" in snippet:
            kspace = echoes.kspace[None]
        elif "task(" in snippet:
            kspace = echoes.kspace[:1]
        names.update(kspace=kspace, mask=scan.mask, t1=torch.rand(1, 32, 32))
        exec(snippet, names)
    for name, shape in _SHAPES.get(document, {}).items():
        assert names[name].images.shape == shape


@pytest.mark.parametrize("document", DOCUMENTS)
def test_relative_links_resolve(document: str) -> None:
    for link in relative_links(document):
        generated = str(link.relative_to(ROOT)).startswith(GENERATED)
        assert link.exists() or generated, f"{document} links to {link}, which is not there"


def test_the_method_of_the_contributors_guide_runs() -> None:
    (snippet,) = blocks("CONTRIBUTING.md", "python")
    scan = phantom_scan(shape=(32, 32), num_coils=4, generator=torch.Generator().manual_seed(0))
    pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=32)
    try:
        exec(snippet, {"__name__": __name__})
        output = pipe(
            scan.kspace, coil_maps=scan.coil_maps, solver="my-solver", num_inference_steps=2
        )
    finally:
        SOLVERS.pop("my_solver", None)
    assert images_of(output).shape == (1, 32, 32)


@pytest.mark.parametrize("pattern", SUBSTITUTIONS)
def test_substitutions_are_needed(pattern: str) -> None:
    assert any(re.search(pattern, command.text) for command in RUN)


@pytest.mark.parametrize("text", NOT_RUN)
def test_what_is_not_run_is_in_a_document(text: str) -> None:
    assert text in map(bare, ALL)
