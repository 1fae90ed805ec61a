"""Options without effect are rejected; the version; defects of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refused, run

import ctxrecon
from ctxrecon.errors import InputError
from ctxrecon.evaluation import find_scans, solver_and_call
from ctxrecon.io import write_scan
from ctxrecon.phantom import phantom_scan


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """A fully sampled slice without metadata."""
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    generator = torch.Generator().manual_seed(0)
    made = phantom_scan("brain", shape=(32, 32), num_coils=2, generator=generator)
    np.savez(path, kspace=made.kspace.numpy())
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--acceleration", 4), "--acceleration applies to --undersample"),
        (("--center-fraction", 0.1), "--center-fraction applies to"),
        (("--method", "tv", "--strength", 0), "--strength applies to --start"),
        (("--strength", 0.3), "--strength applies to --start"),
        (("--method", "tv", "--samples", 1), "--samples applies to"),
        (("--method", "tv", "--steps", 20), "--steps applies to"),
        (("--method", "tv", "--guidance-scale", 1), "--guidance-scale applies to"),
        (("--method", "tv", "--solver", "dds"), "--solver applies to"),
        (("--method", "tv", "--noise-std", 1), "--noise-std applies to"),
        (("--method", "tv", "--start", "tv"), "--start applies to"),
        (("--method", "tv", "--seed", 0), "--seed sets the random"),
        (("--method", "tv", "--dtype", "float32"), "--dtype applies to networks"),
        (("--method", "tv", "--device", "cpu"), "--device applies to networks"),
        (("--method", "tv", "--prompt", "Brain"), "--prompt applies to"),
        (("--method", "network", "--prompt", "Brain"), "--prompt applies to"),
        (("--method", "network", "--seed", 1), "--seed sets the random"),
        (("--method", "prior", "--guidance-scale", 2), "there is none"),
        (("--prompt", "Br\udce4in"), "UTF-8"),
    ],
)
def test_what_would_be_ignored_is_refused(tmp_path, scan, capsys, options, words):
    out = tmp_path / "x.npy"
    assert words in refused(capsys, "reconstruct", scan, "--out", out, *options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
@pytest.mark.parametrize("command", [("simulate",), ("benchmark", "x"), ("prepare", "labels", "x")])
def test_a_seed_that_no_generator_takes_is_refused(tmp_path, capsys, command, seed):
    words = refused(capsys, *command, "--out", tmp_path / "x.npz", "--seed", seed)
    assert "--seed" in words
    assert "internal error" not in words


def test_a_seed_is_used_by_masks(tmp_path, scan):
    command = ("reconstruct", scan, "--method", "zero-filled", "--undersample", "random1d")
    more = ("--acceleration", 2, "--center-fraction", 0.25)
    for seed in (1, 2):
        assert run(*command, *more, "--seed", seed, "--out", tmp_path / f"{seed}.npy") == 0
    one, two = (np.load(tmp_path / f"{seed}.npy") for seed in (1, 2))
    assert not np.allclose(one, two)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--acceleration", 4), "--acceleration applies to --undersample"),
        (("--center-fraction", 0.1), "--center-fraction applies to"),
        (("--position", 0.5), "--position"),
        (("--shape", 20000, 20000), "matrix of up to 2048 2048"),
        (("--coils", 100000), "--coils from 1 to 256"),
        (("--anatomy", "knee", "--labels", "x.nii"), "knee does not apply to"),
    ],
)
def test_simulate_refuses_likewise(tmp_path, capsys, options, words):
    assert words in refused(capsys, "simulate", "--out", tmp_path / "x.npz", *options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--methods", "tv", "--samples", 2), "--samples applies to"),
        (("--methods", "tv", "--guidance-scale", 2), "--guidance-scale applies to"),
        (("--methods", "tv", "--dtype", "float32"), "--dtype applies to networks"),
        (("--prompts", "none", "--guidance-scale", 2), "--prompts none"),
        (("--methods", "dds:eta=x"), "eta as a number"),
    ],
)
def test_benchmark_refuses_likewise(tmp_path, scan, capsys, options, words):
    assert words in refused(capsys, "benchmark", scan, "--out", tmp_path / "x", *options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dds:cg_iterations=2.5", "cg_iterations"),
        ("dds:cg_iterations=true", "cg_iterations"),
        ("pigdm:adaptive_weights=3", "adaptive_weights"),
        ("dds:eta=[1]", "eta as a number"),
        ("dds:image=tv:strength=x", "strength as a number"),
        ("dds:timesteps=5", "timesteps as a word"),
        ("dds:eta=0.1:eta=0.2", "an option twice"),
    ],
)
def test_values_of_another_kind_are_refused(text, words):
    with pytest.raises(InputError, match=words):
        solver_and_call(text)


@pytest.mark.parametrize("name", ["a\nb.npy", os.fsdecode(b"a\xe4.npy")])
def test_names_of_scans_are_one_line_of_text(tmp_path, name):
    np.save(tmp_path / name, np.ones((2, 8, 8), np.complex64))
    with pytest.raises(InputError, match="rename the file"):
        find_scans([tmp_path])


def test_names_that_are_no_text_are_reconstructed(tmp_path, scan):
    folder = tmp_path / os.fsdecode(b"K\xf6rper $x^$")
    folder.mkdir()
    kspace = np.load(scan)["kspace"]
    np.save(folder / "scan.npy", kspace)
    command = [sys.executable, "-m", "ctxrecon.cli", "reconstruct", folder / "scan.npy"]
    command += ["--out", folder / "x.npy", "--method", "zero-filled"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "x_figure.png").is_file()


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"ctxrecon {ctxrecon.__version__}\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "there/x.npy"), "there/x.npy: Permission denied"),
        (MemoryError(), "out of memory"),
    ],
)
def test_what_the_machine_cannot_do_is_a_sentence(
    tmp_path, scan, capsys, monkeypatch, error, words
):
    def broken(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ctxrecon.io.scan_info", broken)
    assert run("info", scan) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("ctxrecon: error: ")
    assert words in shown


def test_the_readout_oversampling_is_cropped_when_asked(tmp_path, capsys):
    generator = torch.Generator().manual_seed(0)
    scan = phantom_scan("brain", shape=(32, 32), num_coils=2, generator=generator)
    write_scan(tmp_path / "a.h5", scan)
    shown = refused(capsys, "info", tmp_path / "a.h5", "--crop-readout")
    assert "ismrmrd_header" in shown
    command = ("reconstruct", tmp_path / "a.h5", "--out", tmp_path / "x.npy", "--method", "tv")
    assert "ismrmrd_header" in refused(capsys, *command, "--crop-readout")
    assert run(*command, "--keep-readout") == 0
