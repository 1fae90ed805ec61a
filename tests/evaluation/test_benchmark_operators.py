"""``ctxrecon benchmark --operators``: rows of other forward models, and what cannot run on them."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import command_line
import pytest
import torch
from narrow import present

from ctxrecon.baselines import cg_sense, zero_filled
from ctxrecon.evaluation import OPERATORS, SimulatedOperator, Slice, operator_acquisition
from ctxrecon.evaluation.grid import case_seed, load_slice
from ctxrecon.fourier import fft2c
from ctxrecon.io import read_scan, write_scan
from ctxrecon.measurement import Measurement
from ctxrecon.metrics import psnr
from ctxrecon.operators import Crop, Inpainting, NonCartesianSense, adjoint_error
from ctxrecon.phantom import phantom_scan
from ctxrecon.phantom.protocols import draw_protocol
from ctxrecon.pipelines import build_pipeline

pytest.importorskip("finufft")

N = 32
TEXTS = (
    "radial:spokes=24",
    "spiral:interleaves=12:turns=2:alpha=1.5",
    "inpainting:fraction=0.6",
    "super-resolution",
)


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    generator = torch.Generator().manual_seed(0)
    drawn = [draw_protocol(generator, anatomy="brain") for _ in range(2)]
    protocols = [replace(one, field_strength=2.89) for one in drawn]
    scan = phantom_scan(
        "brain", protocols=protocols, shape=(N, N), num_coils=4, generator=generator
    )
    write_scan(folder / "a.npz", replace(scan, coil_maps=None))
    return folder


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("prior")
    build_pipeline(block_out_channels=(8, 8, 16), sample_size=16).save_pretrained(folder)
    return str(folder)


def run(*arguments: object) -> int:
    return command_line.run("benchmark", *arguments)


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "rows.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_operator_has_its_rows_beside_those_of_masks(scans, prior, tmp_path):
    methods = ("--methods", "dds,zero-filled", "--steps", 1, "--prior", prior)
    command = (scans, "--out", tmp_path, *methods, "--operators", ",".join(TEXTS))
    assert run(*command, "--masks", "uniform1d", "--accelerations", 2) == 0
    rows = read(tmp_path)
    assert len(rows) == (len(TEXTS) + 1) * 2 * 2
    assert {(row["mask"], row["acceleration"]) for row in rows} == {
        ("uniform1d", "2"),
        *((text, "") for text in TEXTS),
    }
    shares = {row["mask"]: float(row["sampled"]) for row in rows}
    assert shares["super-resolution"] == 0.25
    assert shares["inpainting:fraction=0.6"] == pytest.approx(0.6, abs=0.05)
    assert shares["radial:spokes=24"] == pytest.approx(24 * 2 * N / N**2)
    text = (tmp_path / "summary.md").read_text()
    for title in ("uniform1d ×2", "radial, spokes 24", "super-resolution", "inpainting, fraction"):
        assert f"## {title}" in text
    cells = json.loads((tmp_path / "summary.json").read_text())["results"]["cells"]
    assert {cell["acceleration"] for cell in cells} == {2.0, None}
    # The same command does nothing again, and less of it is a part.
    assert run(*command) == 0
    assert len(json.loads((tmp_path / "summary.json").read_text())["results"]["cells"]) == 8
    assert read(tmp_path) == rows


@pytest.mark.parametrize("text", TEXTS)
def test_a_row_is_what_its_definition_says(scans, tmp_path, text):
    assert run(scans, "--out", tmp_path, "--methods", "zero-filled", "--operators", text) == 0
    row = read(tmp_path)[1]
    where = Slice(scans / "a.npz", 1, (4, N, N))
    acquisition, full = operator_acquisition(text), load_slice(where)
    seed = case_seed(0, where, acquisition, "mask")
    measurement = acquisition.measure([full], [seed], torch.device("cpu"))
    assert adjoint_error(measurement.operator) < 2e-6
    image = zero_filled(measurement.operator, measurement.y)
    expected = float(psnr(image, full.reference))
    assert float(row["psnr"]) == pytest.approx(expected, abs=1e-3)


def test_trajectories_sample_the_coil_images_of_the_scan(scans):
    full = load_slice(Slice(scans / "a.npz", 0, (4, N, N)))
    dense = operator_acquisition(f"radial:spokes={4 * N}")
    measurement = dense.measure([full], [0], torch.device("cpu"))
    operator = measurement.operator
    assert isinstance(operator, NonCartesianSense)
    image = cg_sense(operator, measurement.y)
    assert float(psnr(image.abs(), full.reference.abs())) > 28
    # The sample at the zero frequency is that of the Cartesian scan.
    weights = present(operator.density_compensation)
    center = (measurement.y / weights.sqrt())[0, :, N]
    torch.testing.assert_close(center, full.kspace[0, :, N // 2, N // 2], rtol=1e-3, atol=1e-3)


def test_known_pixels_differ_from_slice_to_slice_and_not_from_run_to_run(scans):
    full = [load_slice(Slice(scans / "a.npz", number, (4, N, N))) for number in (0, 1)]
    acquisition = operator_acquisition("inpainting")
    one, again = (acquisition.measure(full, [5, 6], torch.device("cpu")) for _ in range(2))
    assert torch.equal(one.y, again.y)
    known = present(one.operator.mask)
    assert not torch.equal(known[0], known[1])
    assert torch.equal(one[1].y, acquisition.measure(full[1:], [6], torch.device("cpu")).y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--operators", "radon"), "unknown operator 'radon'"),
        (("--operators", "radial:arms=3"), "operator radial has no option arms"),
        (("--operators", "radial:spokes=2.5"), "spokes as a whole number"),
        (("--operators", "inpainting:fraction=1.5"), "fraction"),
        (("--operators", "spiral:turns=0"), "turns"),
        (("--operators", "radial,radial"), "contains radial twice"),
        (("--operators", "radial:spokes=2"), "radial:spokes=2 at 32×32: .* too sparsely"),
        (("--operators", "super_resolution:factor=5"), "multiples of 5"),
        (("--operators", "radial", "--accelerations", "4"), "--accelerations applies to masks"),
        (
            ("--operators", "inpainting", "--methods", "pnp_admm:noise_std=auto"),
            "estimates the noi",
        ),
        (("--operators", "radial", "--networks", "folder"), "Cartesian k-space"),
    ],
)
def test_what_cannot_run_is_refused_before_the_first_row(options, message, scans, tmp_path, capsys):
    given = options if "--methods" in options else (*options, "--methods", "zero-filled")
    assert run(scans, "--out", tmp_path / "out", *given) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error)
    assert not list(tmp_path.rglob("rows.csv"))


def test_trajectories_need_all_of_the_scan(scans, tmp_path, capsys):
    scan = read_scan(scans / "a.npz")
    mask = torch.zeros_like(scan.cartesian_mask)
    mask[..., ::2] = True
    write_scan(tmp_path / "half.npz", replace(scan, kspace=scan.kspace * mask, mask=mask))
    command = (tmp_path / "half.npz", "--out", tmp_path / "out", "--methods", "zero-filled")
    assert run(*command, "--operators", "radial") == 2
    assert "half.npz is undersampled" in capsys.readouterr().err
    assert run(*command, "--operators", "super-resolution") == 0  # of its target image


def test_an_operator_is_one_class_and_one_line(scans, tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Corner(SimulatedOperator):
        """The upper left pixels."""

        size: int = 16

        def measure(self, kspace, images, generators):
            mask = torch.zeros(1, 1, *images.shape[1:], dtype=torch.bool)
            mask[..., : self.size, : self.size] = True
            operator = Inpainting(mask)
            return Measurement.from_operator(operator, operator(images))

    OPERATORS.register("corner", Corner)
    try:
        command = (scans, "--out", tmp_path, "--methods", "zero-filled")
        assert run(*command, "--operators", "corner:size=8") == 0
    finally:
        del OPERATORS["corner"]
    assert {row["sampled"] for row in read(tmp_path)} == {f"{1 / 16:.4f}"}


def test_a_low_resolution_image_is_the_center_of_kspace(scans):
    full = load_slice(Slice(scans / "a.npz", 0, (4, N, N)))
    measurement = operator_acquisition("super-resolution:factor=4").measure(
        [full], [0], torch.device("cpu")
    )
    center = Crop((1, N, N), (N // 4, N // 4))(fft2c(full.reference))
    torch.testing.assert_close(fft2c(measurement.y), center, rtol=1e-4, atol=1e-5)
    assert math.prod(measurement.y.shape) * 16 == N * N
