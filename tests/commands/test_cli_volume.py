"""Volumes are reconstructed a few slices at a time, and go on where they were stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from command_line import run
from narrow import images_of

from ctxrecon import figures
from ctxrecon.commands import slices, volume
from ctxrecon.io import read_scan
from ctxrecon.phantom import phantom_scan

SLICES = 4


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    """A fastMRI file of four different slices."""
    path = tmp_path_factory.mktemp("volume") / "volume.h5"
    kspace = [
        phantom_scan(
            "brain", shape=(32, 32), num_coils=2, generator=torch.Generator().manual_seed(seed)
        ).kspace
        for seed in range(SLICES)
    ]
    with h5py.File(path, "w") as file:
        file["kspace"] = torch.cat(kspace).numpy()
        file.attrs["acquisition"] = "AXT2"
    return path


OPTIONS = ("--undersample", "uniform1d", "--acceleration", 2, "--center-fraction", 0.25)


@pytest.mark.parametrize(
    "method",
    [
        ("--method", "cg-sense"),
        ("--method", "l1-wavelet"),
        ("--method", "network"),
        ("--steps", 2),
        ("--steps", 2, "--samples", 2, "--seed", 5),
        ("--steps", 2, "--start", "network", "--solver", "dds"),
    ],
)
def test_a_slice_is_the_same_alone_and_in_its_volume(tmp_path, scan, prior, method):
    model = () if "--method" in method else ("--model", prior)
    command = ("reconstruct", scan, *OPTIONS, *method, *model)
    assert run(*command, "--out", tmp_path / "all.npy") == 0
    assert run(*command, "--out", tmp_path / "two.npy", "--slices", "2:4") == 0
    whole, two = np.load(tmp_path / "all.npy"), np.load(tmp_path / "two.npy")
    assert np.array_equal(whole[2:], two)
    assert not np.allclose(whole[2], whole[3])


def test_noise_is_that_of_one_call_of_the_pipeline(tmp_path, scan, prior):
    from ctxrecon.masks import make_mask
    from ctxrecon.pipelines import load_prior

    out = tmp_path / "x.npy"
    more = ("--samples", 2, "--seed", 5, "--steps", 2, "--model", prior, "--prompt", "Brain, T2")
    assert run("reconstruct", scan, *OPTIONS, *more, "--out", out) == 0
    kspace = read_scan(scan).kspace
    seed = torch.Generator().manual_seed(5)
    mask = make_mask("uniform1d", (32, 32), 2.0, 0.25, generator=seed)
    output = load_prior(prior)(
        kspace * mask,
        mask,
        "Brain, T2",
        num_inference_steps=2,
        num_samples=2,
        generator=torch.Generator().manual_seed(5),
    )
    scale = float(images_of(output).abs().max())
    np.testing.assert_allclose(np.load(out), images_of(output), atol=5e-4 * scale)


def test_a_stopped_volume_goes_on_and_gives_the_same(tmp_path, scan, prior, monkeypatch, capsys):
    command: tuple[Any, ...] = (
        "reconstruct",
        scan,
        *OPTIONS,
        "--steps",
        2,
        "--samples",
        2,
        "--model",
        prior,
    )
    command = (*command, "--compare")
    assert run(*command, "--out", tmp_path / "whole.npy") == 0
    do = slices.Work.do
    done: list[int] = []

    def stopped(self, positions, seen):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(positions[0])
        return do(self, positions, seen)

    monkeypatch.setattr(slices.Work, "do", stopped)
    out = tmp_path / "x.npy"
    assert run(*command, "--out", out) == 130
    assert "2 of 4 slices are kept" in capsys.readouterr().err
    assert {path.name for path in tmp_path.glob("x*")} == {"x.npy.partial"}

    other = ("--guidance-scale", 0)
    assert run(*command, *other, "--out", out) == 2
    assert "guidance_scale" in capsys.readouterr().err

    def counted(self, positions, seen):
        done.append(positions[0])
        return do(self, positions, seen)

    monkeypatch.setattr(slices.Work, "do", counted)
    assert run(*command, "--out", out) == 0
    assert done == [0, 1, 2, 3]
    assert not (tmp_path / "x.npy.partial").exists()
    for name in ("", "_std", "_tv", "_network", "_one-sample"):
        first, again = (np.load(tmp_path / f"{stem}{name}.npy") for stem in ("whole", "x"))
        assert np.array_equal(first, again)
    first, again = (
        json.loads((tmp_path / f"{stem}_metrics.json").read_text())["methods"]
        for stem in ("whole", "x")
    )
    assert len(first) == 7
    for one, other_row in zip(first, again, strict=True):
        assert {**one, "seconds": 0} == {**other_row, "seconds": 0}


def test_a_run_stopped_while_it_writes_goes_on_too(tmp_path, scan, monkeypatch, capsys):
    command = ("reconstruct", scan, *OPTIONS, "--method", "tv", "--out", tmp_path / "x.npy")
    draw = figures.comparison_figure

    def stopped(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(figures, "comparison_figure", stopped)
    assert run(*command) == 130
    monkeypatch.setattr(figures, "comparison_figure", draw)
    assert {path.name for path in tmp_path.iterdir()} == {"x.npy", "x.npy.partial"}
    assert run(*command, "--method", "cg-sense") == 2
    assert "x.npy exists" in capsys.readouterr().err
    assert run(*command) == 0
    names = {"x.npy", "x_figure.png", "x_metrics.json"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert run(*command) == 2  # what is whole is kept


def test_slices_of_other_settings_are_dropped_only_when_asked(tmp_path, scan, monkeypatch):
    do = slices.Work.do

    def stopped(self, positions, seen):
        if positions[0] == 1:
            raise KeyboardInterrupt
        return do(self, positions, seen)

    out = tmp_path / "x.npy"
    command = ("reconstruct", scan, *OPTIONS, "--out", out)
    monkeypatch.setattr(slices.Work, "do", stopped)
    assert run(*command, "--method", "tv") == 130
    monkeypatch.setattr(slices.Work, "do", do)
    assert run(*command, "--method", "cg-sense") == 2
    assert (tmp_path / "x.npy.partial" / "slice_00000.npz").is_file()
    assert run(*command, "--method", "cg-sense", "--overwrite") == 0
    assert run(*command[:-1], tmp_path / "y.npy", "--method", "cg-sense") == 0
    assert np.array_equal(np.load(out), np.load(tmp_path / "y.npy"))


def test_a_folder_that_is_something_else_is_left_alone(tmp_path, scan, capsys):
    other = tmp_path / "x.npy.partial"
    other.mkdir()
    (other / "thesis.txt").write_text("kept")
    command = ("reconstruct", scan, *OPTIONS, "--method", "tv", "--out", tmp_path / "x.npy")
    assert run(*command, "--overwrite") == 2
    assert (other / "thesis.txt").read_text() == "kept"


def test_large_files_are_read_slice_by_slice(tmp_path, scan, monkeypatch):
    command = ("reconstruct", scan, *OPTIONS, "--method", "cg-sense", "--out")
    assert run(*command, tmp_path / "kept.npy") == 0
    monkeypatch.setattr(volume, "_KEPT_BYTES", 0)
    asked = []

    def read(*arguments, slices, **options):
        asked.append(slices)
        return read_scan(*arguments, slices=slices, **options)

    monkeypatch.setattr("ctxrecon.io.read_scan", read)
    assert run(*command, tmp_path / "read.npy") == 0
    assert all(len(numbers) == 1 for numbers in asked)
    assert np.array_equal(np.load(tmp_path / "kept.npy"), np.load(tmp_path / "read.npy"))


def write_as(folder: Path, kind: str) -> Path:
    """Four slices in a file of this kind, or more slices of a 3-D scan."""
    kspace = np.random.default_rng(0).standard_normal((SLICES, 2, 16, 12)).astype(np.complex64)
    if kind == ".npz":
        np.savez(folder / "k.npz", kspace=kspace)
    elif kind == ".mat":
        scipy.io.savemat(folder / "k.mat", {"kspace": kspace.transpose(2, 3, 1, 0)})
    elif kind == ".h5":
        with h5py.File(folder / "k.h5", "w") as file:
            file["kspace"] = kspace
    else:
        volume, slices = (kspace, 1) if kind == "3-D .cfl" else (kspace[:1], SLICES)
        dims = [16, 12, len(volume), 2] + [1] * 9 + [slices, 1, 1]
        (folder / "k.hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + "\n")
        data = np.concatenate([volume] * slices)
        (folder / "k.cfl").write_bytes(data.tobytes())
    return folder / f"k{kind[-4:].strip()}"


@pytest.mark.parametrize(
    ("kind", "at_once"),
    [(".npz", True), (".mat", True), (".h5", False), (".cfl", False), ("3-D .cfl", True)],
)
@pytest.mark.parametrize("fits", [True, False])
def test_files_whose_slices_take_all_of_them_are_read_once(
    tmp_path, monkeypatch, kind, at_once, fits
):
    monkeypatch.setattr(volume, "_KEPT_BYTES", 0)
    if not fits:
        monkeypatch.setattr(volume, "_memory", lambda: 1000)
    counts: list[int] = []

    def read(*args: Any, **options: Any) -> Any:
        counts.append(len(options["slices"]))
        return read_scan(*args, **options)

    monkeypatch.setattr("ctxrecon.io.read_scan", read)
    found = volume.Volume(write_as(tmp_path, kind))
    found.read([1])
    assert counts == ([1, found.total] if at_once and fits else [1] * (found.total + 2))


def test_a_solver_of_whole_volumes_says_when_memory_is_too_small(tmp_path, scan, prior, capsys):
    command = ("reconstruct", scan, *OPTIONS, "--solver", "dds3d", "--steps", 1, "--model", prior)
    assert run(*command, "--out", tmp_path / "x.npy") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(volume, "_WHOLE_FACTOR", 1e9)
        assert run(*command, "--out", tmp_path / "y.npy") == 2
    assert "all 4 slices" in capsys.readouterr().err


def test_slices_count_from_0_everywhere(tmp_path, scan, capsys):
    zero = tmp_path / "zero.npy"
    kspace = read_scan(scan).kspace.numpy()
    kspace[2] = 0
    np.save(zero, kspace)
    command = ("reconstruct", zero, "--method", "zero-filled", "--out", tmp_path / "x.npy")
    assert run(*command) == 0
    said = capsys.readouterr().err
    assert "in slice 2" in said
    assert "slice 2: no signal" not in said  # named once
    assert run(*command[:-1], tmp_path / "y.npy", "--slices", "3") == 0
    assert run(*command[:-1], tmp_path / "y.npy", "--slices", "7") == 2
    assert "no slice 7" in capsys.readouterr().err
    assert run(*command[:-1], tmp_path / "y.npy", "--slices", "3:2") == 2
    assert "slice(" not in capsys.readouterr().err


def test_slices_without_a_reference_are_left_out_of_the_metrics(tmp_path, scan, capsys):
    full = read_scan(scan)
    target = np.abs(np.random.default_rng(0).standard_normal((SLICES, 32, 32))).astype(np.float32)
    target[1] = 0
    np.savez(tmp_path / "air.npz", kspace=full.kspace.numpy(), target=target)
    command = ("reconstruct", tmp_path / "air.npz", "--method", "zero-filled", "--out")
    assert run(*command, tmp_path / "all.npy") == 0
    assert "ctxrecon: the reference of 1 of 4 slices is zero" in capsys.readouterr().err
    assert run(*command, tmp_path / "one.npy", "--slices", 1) == 0
    all_of, one = (
        json.loads((tmp_path / f"{name}_metrics.json").read_text())["methods"][0]
        for name in ("all", "one")
    )
    assert all_of["psnr"] > 0
    assert one["psnr"] is None
