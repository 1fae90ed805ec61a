"""Output files: what a command may replace, and early detection of unwritable places."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import refused, run

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.files import check_output, written_beside
from ctxrecon.fourier import fft2c

PLAIN = ("--method", "zero-filled")


@pytest.fixture
def scan(tmp_path) -> Path:
    """A fully sampled slice, as NumPy and as BART file."""
    image = torch.zeros(16, 16)
    image[3:13, 4:12] = 1
    maps = simulate_coil_maps(2, (16, 16), generator=torch.Generator().manual_seed(0))
    kspace = fft2c(maps * image)[0].numpy()
    np.save(tmp_path / "scan.npy", kspace)
    kspace.transpose(0, 2, 1).astype("<c8").tofile(tmp_path / "raw.cfl")
    (tmp_path / "raw.hdr").write_text("# Dimensions\n16 16 1 2\n")
    np.save(tmp_path / "mask.npy", np.ones(16, bool))
    np.save(tmp_path / "maps.npy", maps[0].numpy())
    return tmp_path / "scan.npy"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
@pytest.mark.parametrize("name", ["scan.npy", "mask.npy", "maps.npy"])
def test_an_input_is_never_replaced(scan, capsys, name, link):
    out = scan.parent / name
    if link is not None:
        out = scan.parent / "x.npy"
        link(scan.parent / name, out)
    before = contents(scan.parent)
    options = ("--mask", scan.parent / "mask.npy", "--coil-maps", scan.parent / "maps.npy")
    command = ("reconstruct", scan, "--out", out, *PLAIN, *options, "--overwrite")
    assert "it is the input" in refused(capsys, *command)
    assert contents(scan.parent) == before


def test_nothing_is_said_of_the_mask_of_a_file_where_another_is_given(scan, capsys):
    command = ("reconstruct", scan, *PLAIN, "--out")
    assert run(*command, scan.parent / "a.npy") == 0
    assert "mask inferred" in capsys.readouterr().err
    assert run(*command, scan.parent / "b.npy", "--mask", scan.parent / "mask.npy") == 0
    assert "inferred" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["raw.cfl", "raw.hdr", "raw"])
def test_both_files_of_a_bart_scan_are_inputs(scan, capsys, name):
    before = contents(scan.parent)
    command = ("reconstruct", scan.parent / name, "--out", scan.parent / "raw.cfl", *PLAIN)
    assert "it is the input" in refused(capsys, *command, "--overwrite")
    assert contents(scan.parent) == before


@pytest.mark.parametrize(
    ("out", "there"),
    [
        ("x.npy", "x.npy"),
        ("x.npy", "x_figure.png"),
        ("x.npy", "x_metrics.json"),
        ("x.cfl", "x.hdr"),
        ("new", "new/reconstruction.npy"),
    ],
)
def test_a_result_is_replaced_only_when_asked(scan, capsys, out, there):
    out, there = scan.parent / out, scan.parent / there
    there.parent.mkdir(exist_ok=True)
    there.write_text("kept")
    before = contents(scan.parent)
    command = ("reconstruct", scan, "--out", out, *PLAIN)
    assert f"{there.name} exists: give --overwrite" in refused(capsys, *command)
    assert contents(scan.parent) == before
    assert run(*command, "--overwrite") == 0
    assert there.read_bytes() != b"kept"


def test_simulate_and_demo_replace_nothing_either(tmp_path, capsys):
    simulate = ("simulate", "--out", tmp_path / "a.npz", "--shape", 16, 16, "--coils", 1)
    for name in ("a.npz", "a_target.png"):
        (tmp_path / name).write_text("kept")
        assert f"{name} exists" in refused(capsys, *simulate)
        assert contents(tmp_path) == {str(tmp_path / name): b"kept"}
        (tmp_path / name).unlink()
    (tmp_path / "metrics.json").write_text("kept")
    assert "metrics.json exists" in refused(capsys, "demo", "--out", tmp_path)
    assert run(*simulate) == 0
    assert run(*simulate, "--overwrite") == 0


def test_a_benchmark_does_not_write_into_results_of_something_else(scan, tmp_path, capsys):
    command = ("benchmark", scan, "--methods", "zero-filled", "--accelerations", 1)
    for name, content, words in (
        ("summary.md", "kept", "no settings.json"),
        ("settings.json", "{", "damaged"),
        ("settings.json", "[]", "JSON object"),
        ("settings.json", '{"editor.tabSize": 4}', "not belong to a measurement"),
    ):
        out = tmp_path / f"out{len(content)}"
        out.mkdir()
        (out / name).write_text(content)
        assert words in refused(capsys, *command, "--out", out)
        assert contents(out) == {str(out / name): content.encode()}


def test_a_benchmark_does_not_take_the_rows_of_another_scan_of_the_same_name(scan, capsys):
    out = scan.parent / "out"
    command = ("benchmark", scan, "--methods", "zero-filled", "--accelerations", 1, "--out", out)
    assert run(*command) == 0
    assert run(*command) == 0
    before = contents(out)
    np.save(scan, 2 * np.load(scan))
    assert f"scan {scan.name}" in refused(capsys, *command)
    assert contents(out) == before


def test_a_bank_replaces_neither_label_volumes_nor_other_files(tmp_path, capsys):
    out = tmp_path / "bank.npz"
    few = ("--brains", 0, "--knees", 1, "--size", 64, "--workers", 1)
    command = ("prepare", "bank", "--output", out, *few)
    out.write_text("kept")
    for options, words in (
        ((), "already exists"),
        (("--overwrite", "--label_volumes", out), "one of the label volumes"),
    ):
        assert run(*command, *options) != 0
        assert words in capsys.readouterr().err
        assert out.read_text() == "kept"
    assert run(*command, "--overwrite") == 0


def test_write_protected_files_stay(scan, capsys):
    out = scan.parent / "x.npy"
    out.write_text("kept")
    out.chmod(0o444)
    shown = refused(capsys, "reconstruct", scan, "--out", out, *PLAIN, "--overwrite")
    assert "write-protected" in shown
    assert out.read_text() == "kept"
    with pytest.raises(InputError, match="write-protected"), written_beside(out):
        pytest.fail("found out after the work")


@pytest.mark.parametrize("name", ["x" * 300 + ".npy", "none/x.npy", "folder.npy"])
def test_what_cannot_be_written_is_refused_before_the_work(scan, capsys, monkeypatch, name):
    monkeypatch.setattr("ctxrecon.commands.slices.reconstruct_slices", pytest.fail)
    (scan.parent / "folder.npy").mkdir()
    (scan.parent / "folder.npy" / "reconstruction.npy").mkdir()
    command = ("reconstruct", scan, "--out", f"{scan.parent}/{name}", *PLAIN)
    assert "cannot write" in refused(capsys, *command)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(scan, capsys, monkeypatch):
    """As on a read-only file system, or without permission: root may write everywhere else."""
    monkeypatch.setattr("ctxrecon.commands.slices.reconstruct_slices", pytest.fail)

    def denied(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "touch", denied)
    command = ("reconstruct", scan, "--out", scan.parent / "x.npy", *PLAIN)
    assert "Read-only file system" in refused(capsys, *command)
    monkeypatch.setattr(Path, "mkdir", denied)
    command = ("reconstruct", scan, "--out", scan.parent / "new", *PLAIN)
    assert "cannot create the folder" in refused(capsys, *command)


def test_a_refusal_leaves_no_folder_behind(scan, capsys):
    out = scan.parent / "new"
    command = ("reconstruct", scan, "--out", out, *PLAIN, "--mask", scan.parent / "nothing.npy")
    assert run(*command) == 2
    assert not out.exists()


def test_a_full_disk_is_a_sentence_and_leaves_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / "x.npy"
    out.write_text("kept")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def half(path: Path) -> None:
        path.write_text("half")
        full()

    with pytest.raises(InputError, match="No space left"), written_beside(out) as path:
        half(path)
    assert contents(tmp_path) == {str(out): b"kept"}
    # Nor does the cleaning up fail where nothing can be removed.
    monkeypatch.setattr(Path, "unlink", full)
    with pytest.raises(InputError, match="No space left"), written_beside(out):
        full()
    for name in ("none/x.npy", "x\0.npy"):
        with pytest.raises(InputError, match="cannot write"):
            check_output(tmp_path / name)


def test_long_names_that_the_file_system_takes_are_written(scan):
    out = scan.parent / ("x" * 230 + ".npy")
    assert run("reconstruct", scan, "--out", out, *PLAIN) == 0
    assert out.is_file()


def test_an_interrupt_has_the_status_of_shells(scan, capsys, monkeypatch):
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctxrecon.commands.slices.reconstruct_slices", stopped)
    assert run("reconstruct", scan, "--out", scan.parent / "x.npy", *PLAIN) == 130
    assert "Traceback" not in capsys.readouterr().err
