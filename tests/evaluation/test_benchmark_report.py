"""Words and estimates of the report."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import command_line
import pytest
import torch

from ctxrecon.evaluation import summary, with_error
from ctxrecon.io import write_scan
from ctxrecon.phantom import phantom_scan

N = 32


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for name in ("a", "b"):
        generator = torch.Generator().manual_seed(ord(name))
        scan = phantom_scan("brain", shape=(N, N), num_coils=4, generator=generator)
        write_scan(folder / f"{name}.npz", replace(scan, coil_maps=None))
    return folder


def report(scans: Path, folder: Path, *options: str) -> str:
    command = ("benchmark", scans, "--out", folder, "--methods", "zero-filled,cg-sense")
    assert command_line.run(*command, *options) == 0
    return (folder / "summary.md").read_text()


@pytest.mark.parametrize(
    ("options", "mask", "trajectory", "image"),
    [
        (("--operators", "super_resolution,inpainting:fraction=1"), 0, 0, 1),
        (("--operators", "radial:spokes=24"), 0, 1, 0),
        (("--masks", "uniform1d", "--accelerations", "2"), 1, 0, 0),
        (
            ("--masks", "uniform1d", "--accelerations", "2", "--operators", "radial,inpainting"),
            *(1, 1, 1),
        ),
    ],
)
def test_the_report_says_how_slices_were_measured(
    scans, tmp_path, options, mask, trajectory, image
):
    text = report(scans, tmp_path, *options).partition("##")[0]
    assert text.count("its own mask") == mask
    assert text.count("Trajectories") == trajectory
    assert text.count("Operators on images") == image
    assert text.count("estimated from its samples") == mask + trajectory


def test_exact_images_have_no_spread(scans, tmp_path):
    text = report(scans, tmp_path, "--operators", "inpainting:fraction=1")
    assert "| inf |" in text
    assert "nan" not in text
    cells = json.loads((tmp_path / "summary.json").read_text())["results"]["cells"]
    assert cells[0]["scores"]["psnr"] == {"mean": math.inf, "standard_error": None, "n": 2}
    assert cells[0]["less_first"]["psnr"] == {"mean": 0.0, "standard_error": 0.0, "n": 2}
    assert cells[1]["less_first"]["psnr"] == {"mean": -math.inf, "standard_error": None, "n": 2}


def test_a_mean_that_is_not_finite_has_no_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = summary([math.inf] * 3)
        assert exact == {"mean": math.inf, "standard_error": None, "n": 3}
        assert with_error(exact, 2) == "inf"
        assert summary([math.inf, 30.0], ["a", "b"])["standard_error"] is None
        assert math.isnan(summary([math.inf, -math.inf])["mean"] or 0)
