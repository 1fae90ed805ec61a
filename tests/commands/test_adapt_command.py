from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import refused, run

from ctxrecon.io import write_scan
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import load_prior
from ctxrecon.scan import Scan


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two fully sampled files of one coil, 24 × 48."""
    folder = tmp_path_factory.mktemp("scans")
    generator = torch.Generator().manual_seed(0)
    files = []
    for number in range(2):
        kspace = torch.randn(1, 1, 24, 48, dtype=torch.complex64, generator=generator)
        kspace[..., 12, 24] += 50
        mask = torch.ones(1, 1, 24, 48, dtype=torch.bool)
        files.append(folder / f"patient{number}.npz")
        write_scan(files[-1], Scan(kspace, mask))
    return files


def test_adapts_and_replaces_only_when_asked(scans, prior, tmp_path, capsys):
    out = tmp_path / "mine"
    command = ["adapt", *scans, "--out", out, "--model", prior, "--prompt", "Knee", "--steps", 1]
    assert run(*command) == 0
    said = capsys.readouterr().out
    assert "2 scans" in said
    assert "before" in said
    load_prior(out)
    assert "patient" not in (out / "README.md").read_text(encoding="utf-8")
    assert "--overwrite" in refused(capsys, *command)


def test_a_volume_with_a_slice_without_signal(prior, tmp_path, capsys):
    generator = torch.Generator().manual_seed(1)
    scan = phantom_scan("knee", shape=(32, 32), num_coils=4, generator=generator)
    kspace = torch.cat([scan.kspace, torch.zeros_like(scan.kspace), scan.kspace])
    write_scan(tmp_path / "volume.npz", Scan(kspace, torch.ones(1, 1, 32, 32, dtype=torch.bool)))
    command = ["adapt", tmp_path / "volume.npz", "--out", tmp_path / "mine", "--model", prior]
    assert run(*command, "--prompt", "Knee", "--steps", 1) == 0
    assert "2 slices" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--minutes", "0"], "--minutes"),
        (["--minutes", "20000"], "up to"),
        (["--minutes", "1", "--steps", "1"], "--steps"),
        (["--subfolder", "fastmri"], "--model"),
        (["--prompt", " "], "empty"),
        (["--steps", "0"], "steps"),
    ],
)
def test_options_refused(scans, tmp_path, capsys, options, word):
    assert word in refused(capsys, "adapt", *scans, "--out", tmp_path / "mine", *options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_stays(scans, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    words = refused(capsys, "adapt", *scans, "--out", tmp_path, "--overwrite")
    assert "files other than a prior" in words
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_of_the_scans_stays(scans, capsys):
    assert "input" in refused(capsys, "adapt", *scans, "--out", scans[0].parent, "--overwrite")


def test_an_output_that_is_a_file(scans, capsys):
    assert "file" in refused(capsys, "adapt", scans[1], "--out", scans[0])
