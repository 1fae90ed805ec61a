from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import run
from narrow import present

from ctxrecon.cli import main
from ctxrecon.commands.demo import demo_scan
from ctxrecon.io import read_scan, write_scan
from ctxrecon.masks import make_mask
from ctxrecon.measurement import Measurement
from ctxrecon.phantom import phantom_scan

METHODS = ["zero-filled", "cg-sense", "phase-constrained", "l1-wavelet", "tv"]


def succeed(*arguments: object) -> None:
    assert run(*arguments) == 0


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> str:
    """A fully sampled phantom scan with metadata and target."""
    path = tmp_path_factory.mktemp("scan") / "full.npz"
    generator = torch.Generator().manual_seed(0)
    scan = phantom_scan("brain", shape=(48, 40), num_coils=4, snr=100, generator=generator)
    write_scan(path, scan)
    return str(path)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> str:
    """Two undersampled slices, NumPy k-space only."""
    generator = torch.Generator().manual_seed(1)
    mask = make_mask("uniform1d", (48, 40), 2.0, 0.3, generator=generator)
    scan = phantom_scan("brain", shape=(48, 40), num_coils=4, mask=mask, generator=generator)
    path = tmp_path_factory.mktemp("kspace") / "kspace.npy"
    np.save(path, np.concatenate([scan.kspace.numpy()] * 2))
    return str(path)


def test_help_is_quick_because_torch_is_not_imported():
    code = "import sys, ctxrecon.cli; print('torch' in sys.modules, 'diffusers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_help_names_every_command(capsys):
    succeed("--help")
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("demo", "reconstruct", "simulate", "info"))


def test_simulate_writes_a_scan_that_info_describes(tmp_path, capsys):
    out = tmp_path / "scan.npz"
    succeed(
        *("simulate", "--out", out, "--anatomy", "knee", "--contrast", "PDFS"),
        *("--shape", 48, 64, "--coils", 3, "--tr", 3000, "--seed", 4),
        *("--undersample", "uniform1d", "--acceleration", 4, "--center-fraction", 0.125),
    )
    assert "TR: 3000" in capsys.readouterr().out
    scan = read_scan(out)
    assert scan.kspace.shape == (1, 3, 48, 64)
    assert scan.coil_maps is None
    assert scan.cartesian_mask[0, 0, 0].sum() == 16
    assert scan.target is not None
    assert scan.metadata[0].contrast == "PDFS"
    assert (tmp_path / "scan_target.png").is_file()

    succeed("info", out)
    shown = capsys.readouterr().out
    for words in ("48 × 64", "25.0 %, acceleration 4.00", "center 48 ×", "knee, Slice", "PDFS"):
        assert words in shown


def test_simulate_is_determined_by_its_seed(tmp_path):
    scans = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        out = tmp_path / f"{name}.npz"
        succeed("simulate", "--out", out, "--shape", 32, 32, "--coils", 2, "--seed", seed)
        scans.append(read_scan(out).kspace)
    assert torch.equal(scans[0], scans[1])
    assert not torch.equal(scans[0], scans[2])


def test_simulate_from_a_label_volume(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    volume = np.zeros((80, 80, 40), np.int16)
    volume[20:60, 20:60] = 3
    volume[28:52, 28:52] = 2
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "labels.nii.gz")
    out = tmp_path / "scan.npz"
    succeed(
        *("simulate", "--out", out, "--labels", tmp_path / "labels.nii.gz"),
        *("--shape", 32, 32, "--coils", 2),
    )
    assert read_scan(out).metadata[0].anatomy == "brain"


def test_reconstruct_with_another_solver(tmp_path, full, prior):
    images = []
    for number, options in enumerate(
        [
            ("--solver", "dds"),
            ("--solver", "dds3d"),
            ("--solver", "pnp_hqs"),
            ("--solver", "pnp_hqs", "--noise-std", 3),
            ("--solver", "pnp_hqs", "--noise-std", "auto"),
            ("--start", "l1-wavelet", "--strength", 0.5),
            ("--solver", "dds", "--dtype", "bfloat16"),
        ]
    ):
        out = tmp_path / f"{number}.npy"
        fixed = ("--undersample", "uniform1d", "--steps", 2, "--prior", prior)
        succeed("reconstruct", full, "--out", out, *fixed, *options)
        images.append(np.load(out))
    assert np.isfinite(images).all()
    volume = images.pop(1)
    assert np.allclose(volume, images[0], atol=1e-5)  # DDS3D of one slice is DDS
    for one, other in combinations(images, 2):
        assert not np.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_baseline_needs_no_prior(tmp_path, measured, method):
    out = tmp_path / "image.npy"
    succeed("reconstruct", measured, "--out", out, "--method", method, "--slices", 0)
    assert np.load(out).shape == (1, 48, 40)
    assert (tmp_path / "image_figure.png").is_file()
    written = json.loads((tmp_path / "image_metrics.json").read_text())
    assert written["reference"] is None
    assert set(written["methods"][0]) == {"method", "residual", "seconds"}


@pytest.mark.parametrize(
    ("suffix", "files"),
    [
        (".npz", {"x.npz"}),
        (".cfl", {"x.cfl", "x.hdr"}),
        (".png", {"x_000.png", "x_001.png"}),
        (".nii.gz", {"x.nii.gz"}),
    ],
)
def test_output_in_the_format_of_its_suffix(tmp_path, measured, suffix, files):
    if suffix == ".nii.gz":
        pytest.importorskip("nibabel")
    succeed("reconstruct", measured, "--out", tmp_path / f"x{suffix}", "--method", "zero-filled")
    assert {path.name for path in tmp_path.iterdir()} == files | {"x_figure.png", "x_metrics.json"}


def test_retrospective_undersampling_against_the_target(tmp_path, full, prior, capsys):
    succeed(
        *("reconstruct", full, "--out", tmp_path / "new", "--prior", prior, "--compare"),
        *("--undersample", "uniform1d", "--acceleration", 2, "--center-fraction", 0.2),
        *("--steps", 2, "--samples", 2, "--device", "cpu"),
    )
    shown = capsys.readouterr().out
    assert "prompt (from the file): brain, Slice" in shown
    assert "acceleration 2.00" in shown
    written = json.loads((tmp_path / "new" / "reconstruction_metrics.json").read_text())
    names = [row["method"] for row in written["methods"]]
    assert names[:4] == ["zero-filled", "CG-SENSE", "L1-wavelet", "TV"]
    assert names[4] == "MoDL, shipped network"
    called = f"DDS from PnP-ADMM, {Path(prior).name}"
    assert names[5:] == [f"{called}, one sample", f"{called}, mean of 2"]
    assert written["reference"] == "target"
    assert written["prompts"][0].startswith("brain")
    assert all(row["psnr"] > 5 and row["residual"] < 1 for row in written["methods"])
    others = ("zero-filled", "cg-sense", "l1-wavelet", "tv", "network", "one-sample")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        *(f"reconstruction_{name}.npy" for name in others),
        "reconstruction.npy",
        "reconstruction_std.npy",
        "reconstruction_figure.png",
        "reconstruction_metrics.json",
    }


def test_metrics_of_an_exact_image_are_valid_json(tmp_path, full):
    np.save(tmp_path / "kspace.npy", read_scan(full).kspace[:1, :1].numpy())
    call = ("reconstruct", tmp_path / "kspace.npy", "--out", tmp_path / "x.npy")
    succeed(*call, *("--method", "zero-filled", "--undersample", "uniform1d", "--acceleration", 1))
    text = (tmp_path / "x_metrics.json").read_text()
    assert "Infinity" not in text
    assert json.loads(text)["methods"][0]["psnr"] is None


def test_reference_is_the_mvue_where_the_file_has_no_target(tmp_path, full):
    np.save(tmp_path / "kspace.npy", read_scan(full).kspace.numpy())
    succeed(
        *("reconstruct", tmp_path / "kspace.npy", "--out", tmp_path / "x.npy"),
        *("--method", "cg-sense", "--undersample", "uniform1d", "--acceleration", 1.5),
    )
    written = json.loads((tmp_path / "x_metrics.json").read_text())
    assert written["reference"] == "MVUE"
    assert written["methods"][0]["psnr"] > 20


def test_prior_with_prompt_mask_and_coil_maps(tmp_path, full, prior, capsys):
    scan = read_scan(full)
    np.save(tmp_path / "maps.npy", present(scan.coil_maps).numpy())
    mask = np.zeros(40, bool)
    mask[::2] = True
    np.save(tmp_path / "mask.npy", mask)
    arguments = (
        *("reconstruct", full, "--prior", prior, "--mask", tmp_path / "mask.npy"),
        *("--coil-maps", tmp_path / "maps.npy", "--steps", 2, "--device", "cpu"),
    )
    succeed(*arguments, "--out", tmp_path / "a.npy", "--prompt", "Brain, T2, TR: 4 s")
    assert "prompt (given): brain, T2, TR: 4000" in capsys.readouterr().out
    succeed(*arguments, "--out", tmp_path / "b.npy", "--guidance-scale", 0)
    assert "guidance scale 0" in capsys.readouterr().out
    succeed(*arguments, "--out", tmp_path / "c.npy", "--prompt", "Brain, T2, TR: 4 s")
    first, without, again = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert np.array_equal(first, again)
    assert not np.array_equal(first, without)


def test_the_u_net_of_the_published_layout_is_chosen_by_subfolder(tmp_path, full, prior):
    parts = ("scheduler", "text_encoder", "tokenizer")
    for source, name in (*zip(parts, parts, strict=True), ("unet", "fastmri"), ("unet", "skm-tea")):
        shutil.copytree(Path(prior) / source, tmp_path / "published" / name)
    succeed(
        *("reconstruct", full, "--out", tmp_path / "x.npy", "--prior", tmp_path / "published"),
        *("--subfolder", "fastmri", "--undersample", "uniform1d", "--steps", 1, "--device", "cpu"),
    )
    assert np.load(tmp_path / "x.npy").shape == (1, 48, 40)


def test_a_scan_without_metadata_is_reconstructed_without_prompt(tmp_path, measured, prior, capsys):
    succeed(
        *("reconstruct", measured, "--out", tmp_path / "x.npy", "--prior", prior),
        *("--slices", "1:2", "--steps", 1, "--device", "cpu"),
    )
    shown = capsys.readouterr().out
    assert "prompt: none" in shown
    assert f"PnP-ADMM, {Path(prior).name}, without prompt " in shown


def test_demo_on_the_shipped_scan(tmp_path, monkeypatch, prior, capsys):
    from pathlib import Path

    import ctxrecon.commands.demo as command
    import ctxrecon.loading.components as loading

    monkeypatch.setattr(loading, "shipped_prior", lambda: Path(prior))
    monkeypatch.setattr(command, "_STEPS", 1)
    monkeypatch.setattr(command, "_SAMPLES", 2)
    succeed("demo", "--out", tmp_path / "demo")
    shown = capsys.readouterr().out
    names = (
        "zero-filled",
        "CG-SENSE",
        "L1-wavelet",
        "TV",
        "MoDL",
        "without prompt",
        "mean of 2",
    )
    for name in names:
        assert name in shown
    written = json.loads((tmp_path / "demo" / "metrics.json").read_text())
    assert len(written["methods"]) == 8
    assert (tmp_path / "demo" / "comparison.png").stat().st_size > 10_000


def test_shipped_scan_is_small_and_is_what_simulate_makes(tmp_path):
    assert demo_scan().stat().st_size < 2 * 2**20
    succeed(
        *("simulate", "--out", tmp_path / "scan.npz", "--anatomy", "brain", "--contrast", "T2"),
        *("--undersample", "uniform1d", "--acceleration", 4, "--center-fraction", 0.08),
        *("--seed", 6),
    )
    made, shipped = read_scan(tmp_path / "scan.npz"), read_scan(demo_scan())
    assert made.metadata == shipped.metadata
    torch.testing.assert_close(made.kspace, shipped.kspace, rtol=1e-3, atol=1e-4)


def test_defects_of_the_program_keep_their_traceback(monkeypatch, tmp_path, measured, capsys):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Measurement, "from_scan", broken)
    command = ["reconstruct", measured, "--method", "tv", "--out", str(tmp_path / "x.npy")]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 1
    (log,) = tmp_path.glob("*.log")
    assert str(log) in capsys.readouterr().err
    assert "in broken" in log.read_text()
    monkeypatch.setenv("CTXRECON_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(command)


def test_a_network_is_told_from_a_prior_by_its_checkpoint(tmp_path, measured, capsys):
    from ctxrecon.pipelines import ReconstructionPipeline
    from ctxrecon.reconstructors import UnrolledGenerator

    torch.manual_seed(0)
    network = UnrolledGenerator(width=4, iterations=1, predict_std=True)
    ReconstructionPipeline(network).save_pretrained(tmp_path / "network")
    out = tmp_path / "out.npy"
    succeed(
        "reconstruct", measured, "--out", out, "--model", tmp_path / "network", "--device", "cpu"
    )
    shown = capsys.readouterr().out
    assert "UnrolledGenerator" in shown
    assert "prompt" not in shown
    assert (tmp_path / "out_std.npy").is_file()  # the error that it expects
    for options, sentence in (
        (("--method", "contextmri"), "network, not contextmri"),
        (("--samples", 2), "--samples applies to"),
        (("--solver", "dds"), "--solver applies to"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in ("reconstruct", measured, "--out", tmp_path / "no", "--model",
                                   tmp_path / "network", "--device", "cpu", *options)])  # fmt: skip
        assert stopped.value.code == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
