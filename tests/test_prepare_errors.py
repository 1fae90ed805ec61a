"""``ctxrecon prepare``: damaged volumes are left out, bad arguments are refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_prepare import SIZE, contents, images, run, write_fastmri

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
        "cut": "truncated or is not an HDF5 file",
        "nothing": "is empty: copy it again",
        "masked": "expected fully sampled k-space",
        "small": "its images of 40 × 56 are smaller than the size 48 × 48",
        "silent": "none of its 2 slices has signal",
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
    assert "1 volumes with 2 slices" in shown.out
    assert "6 of 7 volumes failed" in shown.err
    failed = json.loads((out / "summary.json").read_text())["failed"]
    assert set(failed) == set(damaged)
    for name, words in damaged.items():
        assert words in failed[name], name
        assert failed[name] in shown.err
    assert set(contents(out)) == {"good.safetensors"}

    # Mended, it is made by the same command.
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
    "other file": ("fastmri other/file1.h5 --out set --size 48 48", "was made from another file"),
    "hidden": ("fastmri .hidden.h5 --out new", "does not begin with a dot"),
    "suffix": ("fastmri text.txt --out new", "expected a file .hdf5 or .h5, got .txt"),
    "absent": ("fastmri absent.h5 --out new", "absent.h5 does not exist"),
    "folder": ("fastmri set.h5 --out new", "set.h5 is a folder"),
    "tiny": ("fastmri file1.h5 --out new --size 4 4", "a size of at least 16"),
    "no slices": ("labels file1.nii --out new --slices_per_volume 0", "slices_per_volume of 1"),
    "no parent": ("fastmri file1.h5 --out no/set", "the folder no does not exist"),
    "no table": ("fastmri file1.h5 --out new --annotations k.csv", "no fastMRI+ table at k.csv"),
    "no settings": ("fastmri file1.h5 --out no_settings", "but no settings.json"),
    "bad settings": ("fastmri file1.h5 --out bad_settings", "settings.json is damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_the_door(prepared, monkeypatch, capsys, name):
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


@pytest.mark.skipif(sys.platform == "win32", reason="locks are POSIX")
def test_two_runs_in_one_folder_are_refused(prepared):
    import fcntl

    out = prepared / "set"
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another run is writing"):
            prepare_shards(FastMRISource(size=SIZE), [prepared / "file1.h5"], out, workers=1)
