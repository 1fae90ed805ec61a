"""``ctxrecon prepare``: damaged volumes are left out, bad arguments are refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from command_line import run
from test_prepare import SIZE, contents
from volumes import images, write_fastmri

from ctxrecon.datasets import FastMRISource, prepare_shards
from ctxrecon.errors import InputError


def test_damaged_volumes_are_left_out_and_named(tmp_path, capsys):
    truth = images(2, (64, 56))
    good = write_fastmri(tmp_path / "good.h5", truth)
    cut = write_fastmri(tmp_path / "cut.h5", truth)
    os.truncate(cut, cut.stat().st_size // 2)
    (tmp_path / "nothing.h5").touch()
    mask = np.arange(56) % 4 == 0
    mask[24:32] = True
    damaged = {
        "cut": "truncated",
        "nothing": "is empty",
        "masked": "expected fully sampled k-space",
        "small": "40 × 56",
        "silent": "has signal",
        "nan": "not finite",
    }
    write_fastmri(tmp_path / "masked.h5", truth, mask=mask)
    write_fastmri(tmp_path / "small.h5", images(1, (40, 56)))
    write_fastmri(tmp_path / "silent.h5", 0 * truth)
    write_fastmri(tmp_path / "nan.h5", torch.nan * truth)
    out = tmp_path / "set"
    inputs = [good, *(tmp_path / f"{name}.h5" for name in damaged)]
    assert run("prepare", "fastmri", *inputs, "--out", out, "--size", *SIZE, "--workers", 1) == 1
    shown = capsys.readouterr()
    assert "1 volume with 2 slices" in shown.out
    assert "6 of 7 volumes failed" in shown.err
    failed = json.loads((out / "summary.json").read_text())["failed"]
    assert set(failed) == set(damaged)
    for name, words in damaged.items():
        assert words in failed[name], name
        assert failed[name] in shown.err
    assert set(contents(out)) == {"good.safetensors"}

    # After a repair, the same command succeeds.
    write_fastmri(cut, truth)
    assert run("prepare", "fastmri", good, cut, "--out", out, "--size", *SIZE) == 0
    assert contents(out)["cut.safetensors"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with one volume and its set."""
    root = tmp_path_factory.mktemp("prepared")
    path = write_fastmri(root / "file1.h5", images(2, (64, 56)))
    (root / "set").mkdir()
    prepare_shards(FastMRISource(size=SIZE), [path], root / "set", workers=1, progress=False)
    (root / "other").mkdir()
    for name in ("other/file1.h5", "other/FILE1.h5", ".hidden.h5", "text.txt"):
        (root / name).write_bytes(b"x")
    (root / "no_settings").mkdir()
    (root / "no_settings" / "a.safetensors").write_bytes(b"x")
    (root / "bad_settings").mkdir()
    (root / "bad_settings" / "settings.json").write_text("[1, 2")
    return root


REFUSED = {
    # name: (arguments after `prepare`, what the sentence says)
    "other size": ("fastmri file1.h5 --out set --size 32 32", "made with size [48, 48]"),
    "other kind": ("labels file1.nii --out set", 'made with source "fastmri"'),
    "same stems": ("fastmri file1.h5 other/file1.h5 --out set", "would both become file1"),
    "other case": ("fastmri file1.h5 other/FILE1.h5 --out new", "would both become FILE1"),
    "other file": ("fastmri other/file1.h5 --out set --size 48 48", "another file"),
    "hidden": ("fastmri .hidden.h5 --out new", "with a dot"),
    "suffix": ("fastmri text.txt --out new", ".h5, got .txt"),
    "absent": ("fastmri absent.h5 --out new", "absent.h5 does not exist"),
    "folder": ("fastmri set.h5 --out new", "set.h5 is a folder"),
    "tiny": ("fastmri file1.h5 --out new --size 4 4", "a size of at least 16"),
    "no slices": ("labels file1.nii --out new --slices_per_volume 0", "slices_per_volume`"),
    "file for a folder": ("fastmri file1.h5 --out text.txt/set", "cannot create the folder"),
    "two absent": ("fastmri absent.h5 gone.h5 --out new", "(and 1"),
    "no table": ("fastmri file1.h5 --out new --annotations k.csv", "k.csv"),
    "no settings": ("fastmri file1.h5 --out no_settings", "but no settings.json"),
    "bad settings": ("fastmri file1.h5 --out bad_settings", "settings.json is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_refused(prepared, monkeypatch, capsys, name):
    if "labels" in REFUSED[name][0]:
        pytest.importorskip("nibabel")
    monkeypatch.chdir(prepared)
    (prepared / "file1.nii").write_bytes(b"x")
    (prepared / "set.h5").mkdir(exist_ok=True)
    before = contents(prepared / "set")
    arguments, words = REFUSED[name]
    assert run("prepare", *arguments.split(), "--workers", 1) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert words in lines[0]
    assert contents(prepared / "set") == before


def test_paths_that_cannot_be_read_do_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    truth = images(2, (64, 56))
    for name in ("good.h5", "cut.h5", "old.h5", ".hidden.h5"):
        write_fastmri(Path(name), truth)
    out = Path("data/knee")  # made with its parents
    options = ("--out", out, "--size", *SIZE, "--workers", 1)
    assert run("prepare", "fastmri", "cut.h5", "old.h5", *options) == 0
    os.truncate(out / "cut.safetensors", 100)
    os.truncate("old.h5", Path("old.h5").stat().st_size - 1)
    Path("folder.h5").mkdir()
    Path("text.txt").touch()
    os.symlink("nowhere", "link.h5")
    reasons = {
        "cut": "cut.safetensors is truncated",
        "old": "another file",
        ".hidden": "with a dot",
        "folder": "is a folder",
        "text.txt": "expected a file .hdf5 or .h5",
        "link": "does not exist",
        "absent": "does not exist",
        r"K\udcf6rper": "does not exist",
    }
    capsys.readouterr()
    inputs = [name if name == "text.txt" else f"{name}.h5" for name in reasons]
    inputs[-1] = "K\udcf6rper.h5"
    assert run("prepare", "fastmri", *inputs, "good.h5", *options) == 1
    shown = capsys.readouterr().err
    assert "8 of 9 volumes failed" in shown
    failed = json.loads((out / "summary.json").read_text())["failed"]
    assert set(failed) == set(reasons)
    for name, words in reasons.items():
        assert words in failed[name]
        assert failed[name] in shown
    assert set(contents(out)) == {"good.safetensors", "cut.safetensors", "old.safetensors"}


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o007])
def test_shards_have_the_mode_that_the_umask_asks_for(tmp_path, mask):
    path = write_fastmri(tmp_path / "file1.h5", images(1, (64, 56)))
    before = os.umask(mask)
    try:
        prepare_shards(FastMRISource(size=SIZE), [path], tmp_path, workers=1, progress=False)
    finally:
        os.umask(before)
    for name in ("file1.safetensors", "settings.json", "summary.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~mask, name


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
@pytest.mark.parametrize("read_only", ["folder", "lock"])
def test_a_folder_that_may_not_be_written_to_is_refused_before_the_work(
    tmp_path, monkeypatch, read_only
):
    out = tmp_path / "set"
    out.mkdir()
    (out / ".lock").touch()
    if read_only == "folder":  # root may write anywhere, so that modes alone would not do
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out)
    else:
        monkeypatch.setattr(Path, "open", lambda *_: os.open("/", os.O_WRONLY))
    path = write_fastmri(tmp_path / "file1.h5", images(1, (64, 56)))
    with pytest.raises(InputError, match=r"write to|\.lock"):
        prepare_shards(FastMRISource(size=SIZE), [path], out, workers=1, progress=False)
    assert [found.name for found in out.iterdir()] == [".lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX")
def test_two_runs_in_one_folder_are_refused(prepared):
    import fcntl

    out = prepared / "set"
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing"):
            prepare_shards(FastMRISource(size=SIZE), [prepared / "file1.h5"], out, workers=1)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_faulty_header_is_warned_of_once_a_file(tmp_path, caplog, workers):
    paths = []
    for name in ("one", "two"):
        paths.append(write_fastmri(tmp_path / f"{name}.h5", images(3, (96, 56))))
        with h5py.File(paths[-1], "a") as file:
            header = file["ismrmrd_header"][()].decode().replace("3120", "-5")
            del file["ismrmrd_header"]
            file["ismrmrd_header"] = header
    (out := tmp_path / "set").mkdir()
    source = FastMRISource(size=(48, 48))
    prepare_shards(source, paths, out, workers=workers, progress=False)
    told = [record.getMessage() for record in caplog.records]
    for name in ("one", "two"):
        assert sum(name in line and "TR" in line for line in told) == 1
    assert len(told) == 2


def test_a_summary_of_something_else_is_kept(tmp_path, capsys):
    write_fastmri(tmp_path / "a.h5", images(2, (64, 56)))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "summary.json").write_text('{"precious": 1}')
    assert run("prepare", "fastmri", tmp_path / "a.h5", "--out", tmp_path / "set") == 2
    assert "contains a summary.json" in capsys.readouterr().err
    assert (tmp_path / "set" / "summary.json").read_text() == '{"precious": 1}'
