from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import command_line
import numpy as np
import pytest
import torch
from gaussian import complex_noise, seeded
from narrow import present

from ctxrecon.baselines import zero_filled
from ctxrecon.coils import estimate_coil_maps, mvue
from ctxrecon.commands import benchmark as command
from ctxrecon.errors import InputError
from ctxrecon.evaluation import Grid, Row, RowFolder, Slice, Undersampling, find_scans, summary
from ctxrecon.evaluation.grid import case_seed
from ctxrecon.evaluation.runner import COLUMNS, METRICS
from ctxrecon.io import read_scan, write_scan
from ctxrecon.metrics import psnr
from ctxrecon.operators import sense_operator
from ctxrecon.phantom import phantom_scan
from ctxrecon.phantom.protocols import draw_protocol
from ctxrecon.pipelines import ReconstructionPipeline
from ctxrecon.reconstructors import UnrolledGenerator

GRID = (
    *("--methods", "dds,ddnm:eta=0.5,cg-sense,zero-filled", "--accelerations", "2,2.5"),
    *("--prompts", "metadata,none", "--guidance-scale", 2, "--steps", "2,1", "--batch-size", 2),
)
METHODS = 2 * 2 * 2 + 2


def run(*arguments: object) -> None:
    assert command_line.run("benchmark", *arguments) == 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    return command_line.refused(capsys, "benchmark", *arguments)


def read(folder: Path) -> list[Row]:
    with (folder / "rows.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def untimed(folder: Path) -> list[Row]:
    return [{**row, "seconds": ""} for row in read(folder)]


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> Path:
    """Two slices with a target, and one of a scan without."""
    folder = tmp_path_factory.mktemp("scans")
    for name, seed, count in (("a.npz", 0, 2), ("b.npz", 1, 1)):
        generator = torch.Generator().manual_seed(seed)
        drawn = [draw_protocol(generator, anatomy="brain") for _ in range(count)]
        protocols = [replace(one, field_strength=2.89) for one in drawn]
        scan = phantom_scan(
            "brain", protocols=protocols, shape=(32, 32), num_coils=4, generator=generator
        )
        target = scan.target if count == 2 else None
        write_scan(folder / name, replace(scan, coil_maps=None, target=target))
    (folder / "notes.txt").write_text("no scan")
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory, scans, prior) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    run(scans, "--out", folder, "--prior", prior, *GRID)
    return folder


def test_one_row_a_slice(measured):
    rows = read(measured)
    assert len(rows) == 3 * 2 * METHODS
    assert {row["reference"] for row in rows if row["scan"] == "a.npz"} == {"target"}
    assert {row["reference"] for row in rows if row["scan"] == "b.npz"} == {"MVUE"}
    assert sorted(path.name for path in measured.iterdir()) == [
        "psnr_against_seconds.png",
        "rows.csv",
        "settings.json",
        "summary.json",
        "summary.md",
    ]
    for row in rows:
        doubled = 2 if row["prompt"] == "metadata" else 1
        assert float(row["evaluations"]) == int(row["steps"] or 0) * doubled
        assert float(row["seconds"]) > 0
        assert 0 < float(row["residual"]) <= 1
    # 16 of 32 and 13 of 32 lines
    assert {(row["acceleration"], row["sampled"]) for row in rows} == {
        ("2", "0.5000"),
        ("2.5", "0.4062"),
    }


def test_a_row_is_what_its_definition_says(measured, scans):
    where = Slice(scans / "b.npz", 0, (4, 32, 32))
    undersampling = Undersampling("uniform1d", 2.5)
    scan = read_scan(where.path)
    reference = mvue(scan.kspace, estimate_coil_maps(scan.kspace, scan.mask))
    mask = undersampling.draw((32, 32), case_seed(0, where, undersampling, "mask"))
    image = zero_filled(
        sense_operator(mask, estimate_coil_maps(scan.kspace * mask, mask)), scan.kspace * mask
    )
    (row,) = (
        row
        for row in read(measured)
        if (row["scan"], row["acceleration"], row["method"]) == ("b.npz", "2.5", "zero-filled")
    )
    assert float(row["psnr"]) == pytest.approx(float(psnr(image, reference)), abs=1e-4)


def test_summary_has_means_errors_and_paired_differences(measured):
    record = json.loads((measured / "summary.json").read_text())
    assert record["command"].split()[0] == "ctxrecon"
    assert (record["seed"], record["results"]["slices"]) == (0, 3)
    assert record["hardware"]["torch"] == torch.__version__
    cells = record["results"]["cells"]
    assert len(cells) == 2 * METHODS
    rows = [row for row in read(measured) if row["acceleration"] == "2.5"]

    def scores(method: str, prompt: str, steps: str) -> np.ndarray:
        wanted = (method, prompt, steps)
        return np.array(
            [float(r["psnr"]) for r in rows if (r["method"], r["prompt"], r["steps"]) == wanted]
        )

    (cell,) = (c for c in cells if (c["method"], c["acceleration"]) == ("cg-sense", 2.5))
    first, own = scores("dds", "metadata", "2"), scores("cg-sense", "", "")
    assert cell["scores"]["psnr"]["mean"] == pytest.approx(own.mean())
    difference = summary(own - first, ["a", "a", "b"])
    assert cell["less_first"]["psnr"] == pytest.approx(difference)
    text = (measured / "summary.md").read_text()
    assert text.count("| cg-sense |") == 4
    assert "Paired differences to dds, prompt, 2 steps" in text
    assert (measured / "psnr_against_seconds.png").stat().st_size > 10_000


def test_a_killed_run_goes_on_with_other_processes(measured, scans, prior, tmp_path):
    """Rows of three processes, one stopped while it wrote, one before its first row."""
    lines = (measured / "rows.csv").read_text().splitlines(keepends=True)
    text = lines[0] + "".join(lines[1:20])
    (tmp_path / "rows.rank0.csv").write_text(text + lines[20][:30])
    (tmp_path / "rows.rank1.csv").write_text(lines[0] + "".join(lines[25:40]) + lines[40][:-2])
    (tmp_path / "rows.rank2.csv").write_text(lines[0][:10])
    shutil.copy(measured / "settings.json", tmp_path)
    run(scans, "--out", tmp_path, "--prior", prior, *GRID)
    assert untimed(tmp_path) == untimed(measured)
    kept = [*read(measured)[:19], *read(measured)[24:39]]
    assert all(row in read(tmp_path) for row in kept)  # with their times: not done again
    assert not list(tmp_path.glob("rows.rank*"))


def test_options_of_the_pipeline(scans, prior, tmp_path):
    methods = ["dds", "dds:image=l1_wavelet:strength=0.5", "dds:timesteps=scheduler"]
    methods += ["pnp_hqs", "pnp_hqs:noise_std=auto"]
    run(
        *(scans / "b.npz", "--out", tmp_path, "--prior", prior, "--methods", ",".join(methods)),
        *("--steps", 4, "--accelerations", 2),
    )
    rows = {row["method"]: row for row in read(tmp_path)}
    assert list(rows) == sorted(methods)
    assert len({row["psnr"] for row in rows.values()}) == len(methods)
    evaluations = {name: float(row["evaluations"]) for name, row in rows.items()}
    assert evaluations["dds"] == 2 * evaluations["dds:image=l1_wavelet:strength=0.5"] == 4


def test_a_finished_run_takes_more_methods_and_does_nothing_again(
    measured, scans, tmp_path, monkeypatch
):
    folder = tmp_path / "out"
    shutil.copytree(measured, folder)
    monkeypatch.setattr(command, "open_prior", lambda *_: pytest.fail("no prior is needed"))
    more = ("--methods", "zero-filled,tv", "--accelerations", 2.5)
    run(scans / "b.npz", "--out", folder, *more)
    before, after = read(measured), read(folder)
    assert [row for row in after if row["method"] != "tv"] == before
    assert len(after) == len(before) + 1
    # The summary is of what was asked for.
    cells = json.loads((folder / "summary.json").read_text())["results"]["cells"]
    assert [cell["method"] for cell in cells] == ["zero-filled", "tv"]
    settings = json.loads((folder / "settings.json").read_text())
    assert settings == json.loads((measured / "settings.json").read_text())


def test_numbers_depend_on_neither_the_other_scans_nor_the_batch(measured, scans, prior, tmp_path):
    alone = ("--methods", "dds", "--accelerations", 2.5, "--steps", 2, "--batch-size", 1)
    guided = ("--guidance-scale", 2)
    run(scans / "a.npz", "--out", tmp_path, "--prior", prior, *alone, *guided)
    for row in read(tmp_path):
        (same,) = (
            other
            for other in read(measured)
            if all(other[name] == row[name] for name in COLUMNS[:7])
        )
        # The network's rounding depends on how many images it sees at once.
        assert float(row["psnr"]) == pytest.approx(float(same["psnr"]), abs=1e-3)


def test_two_processes_give_the_numbers_of_one(measured, scans, prior, tmp_path):
    arguments = [str(word) for word in (scans, "--out", tmp_path, "--prior", prior, *GRID)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc_per_node", "2", "-m", "ctxrecon.cli", "benchmark", *arguments]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(launch, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("## uniform1d ×2.5") == 1
    # torchrun gives each process one thread; other numbers of threads add in another order.
    for two, one in zip(untimed(tmp_path), untimed(measured), strict=True):
        for name, value in one.items():
            if name in (*METRICS, "residual"):
                assert float(two[name]) == pytest.approx(float(value), rel=1e-4), name
            else:
                assert two[name] == value, name
    assert json.loads((tmp_path / "summary.json").read_text())["results"]["processes"] == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--methods", "dds,unet"], "unknown solver 'unet'"),
        (["--methods", "dds,dds"], "--methods contains dds twice"),
        (["--methods", "dds,"], "expected --methods as words"),
        (["--methods", "dds:weight=3"], "no option weight"),
        (["--methods", "dds:eta"], "as dds:option=number"),
        (["--methods", "dds:image=l1"], "unknown image 'l1'"),
        (["--methods", "pnp_admm:image=zero_filled"], "PnPADMM starts"),
        (["--methods", "tv:steps=3"], "steps=3"),
        (["--masks", "spiral"], "unknown mask 'spiral'"),
        (["--accelerations", "two"], "expected --accelerations as numbers"),
        (["--accelerations", "2,2.0"], "--accelerations contains a number twice"),
        (["--accelerations", "0.5"], "acceleration of at least 1"),
        (["--accelerations", "16"], "×16 at 32×32"),
        (["--steps", "2.5"], "expected --steps as numbers"),
        (["--steps", "0"], "num_inference_steps from 1"),
        (["--samples", "0"], "num_samples 1 or more"),
        (["--prompts", "all"], "unknown prompt 'all'"),
        (["--guidance-scale", "0"], "guidance scale 0"),
        (["--subfolder", "fastmri"], "--subfolder"),
        (["missing.npz"], "missing.npz"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_row(
    change, sentence, scans, prior, tmp_path, capsys
):
    given = [] if "--subfolder" in change else ["--prior", prior]
    assert sentence in refused(capsys, scans, "--out", tmp_path / "out", *change, *given)
    assert not list(tmp_path.rglob("*.csv"))


def test_scans_that_cannot_be_measured_are_refused(scans, tmp_path, capsys):
    with pytest.raises(InputError, match=r"expected scans .* found none"):
        find_scans([tmp_path])
    shutil.copy(scans / "a.npz", tmp_path)
    with pytest.raises(InputError, match="the same name"):
        find_scans([scans, tmp_path])
    scan = read_scan(scans / "b.npz")
    mask = torch.zeros_like(scan.cartesian_mask)
    mask[..., ::2] = True
    half = replace(scan, kspace=scan.kspace * mask, mask=mask)
    write_scan(tmp_path / "half.npz", half)
    with pytest.raises(InputError, match=r"half\.npz.*50 %"):
        find_scans([tmp_path])
    write_scan(tmp_path / "half.npz", replace(half, target=torch.ones(1, 32, 32) + 0j))
    assert [one.path.name for one in find_scans([tmp_path])] == ["a.npz", "half.npz"]
    call = [tmp_path / "half.npz", "--methods", "zero-filled", "--out", tmp_path / "out"]
    assert "only 50 %" in refused(capsys, *call, "--masks", "uniform1d", "--accelerations", 2)


def test_accelerations_of_any_number_of_digits(scans, tmp_path):
    call = [scans / "b.npz", "--methods", "zero-filled", "--accelerations", 7 / 3]
    run(*call, "--out", tmp_path / "out")
    assert [float(row["acceleration"]) for row in read(tmp_path / "out")] == [7 / 3]


def test_slices_without_signal_are_left_out(scans, tmp_path, capsys):
    """The remaining slices have the same numbers, also when the run is repeated."""
    whole = read_scan(scans / "b.npz")
    others = [read_scan(scans / "a.npz"), whole]
    kspace = torch.cat([others[0].kspace[:1], torch.zeros_like(whole.kspace), others[1].kspace])
    write_scan(tmp_path / "volume.npz", replace(whole, kspace=kspace, metadata=()))
    call = [tmp_path / "volume.npz", "--methods", "zero-filled,cg-sense", "--batch-size", 3]
    call += ["--accelerations", 2]
    run(*call, "--out", tmp_path / "out")
    said = capsys.readouterr()
    assert "slice 1 is zero: left out" in said.err
    assert "2 slices of 1 scan" in said.out
    rows = read(tmp_path / "out")
    assert [row["slice"] for row in rows] == ["0", "0", "2", "2"]
    run(*call, "--out", tmp_path / "out")
    assert read(tmp_path / "out") == rows
    air = complex_noise(tuple(whole.kspace.shape), seeded(0))
    write_scan(tmp_path / "air.npz", replace(whole, kspace=air))
    words = refused(capsys, tmp_path / "air.npz", *call[1:], "--out", tmp_path / "none")
    assert "all slices are zero" in words


def test_a_scan_without_metadata_has_no_prompt(scans, prior, tmp_path, capsys):
    np.save(tmp_path / "c.npy", read_scan(scans / "b.npz").kspace.numpy())
    arguments = (tmp_path / "c.npy", "--prior", prior, "--steps", 1, "--accelerations", 2)
    shown = refused(capsys, *arguments, "--out", tmp_path / "out", "--methods", "dds")
    assert "c.npy has no metadata" in shown
    none = ("--methods", "dds", "--prompts", "none")
    run(*arguments, "--out", tmp_path / "out", *none)
    assert len(read(tmp_path / "out")) == 1


def test_rows_of_other_settings_are_refused(measured, scans, prior, tmp_path, capsys):
    shutil.copytree(measured, tmp_path / "out")
    arguments = (scans, "--out", tmp_path / "out", "--prior", prior, *GRID)
    shown = refused(capsys, *arguments, "--seed", 1)
    assert "a run with seed 0, but this run has 1" in shown
    assert "samples 1" in refused(capsys, *arguments, "--samples", 2)
    rows = tmp_path / "out" / "rows.csv"
    rows.write_text(rows.read_text().replace("psnr", "snr", 1))
    assert "has other columns" in refused(capsys, *arguments)
    (tmp_path / "out" / "settings.json").unlink()
    assert "settings.json" in refused(capsys, *arguments)


def test_rows_of_a_folder_are_each_read_once(tmp_path):
    store = RowFolder(tmp_path, ("n", "x"), lambda row: (int(row["n"]),))
    store.append(0, [{"n": "10", "x": "a"}])
    store.append(1, [{"n": "9", "x": "b"}, {"n": "10", "x": "a"}])
    with (tmp_path / "rows.rank1.csv").open("a") as file:
        file.write("1")  # stopped in the middle of row 11
    assert [row["n"] for row in store.read()] == ["9", "10"]
    store.append(1, [{"n": "11", "x": "é"}])
    with (tmp_path / "rows.rank0.csv").open("ab") as file:
        file.write("12,é".encode()[:-1])  # in the middle of a letter
    assert [row["n"] for row in store.merge()] == ["9", "10", "11"]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    assert [row["x"] for row in store.read()] == ["b", "a", "é"]


def test_seeds_are_the_same_everywhere_and_of_every_case_its_own():
    where, mask = Slice(Path("here/a.npz"), 3, (1, 8, 8)), Undersampling("uniform1d", 4.0)
    seed = case_seed(0, where, mask, "mask")
    assert seed == 8256391339539888147
    assert seed == case_seed(0, Slice(Path("there/a.npz"), 3, (2, 4, 4)), mask, "mask")
    others = {
        case_seed(1, where, mask, "mask"),
        case_seed(0, replace(where, number=4), mask, "mask"),
        case_seed(0, replace(where, path=Path("b.npz")), mask, "mask"),
        case_seed(0, where, replace(mask, acceleration=4.5), "mask"),
        case_seed(0, where, replace(mask, mask="random1d"), "mask"),
        case_seed(0, where, mask, "noise"),
    }
    assert len(others - {seed}) == 6


def test_batches_are_of_one_shape_and_about_one_size():
    shapes = [(4, 8, 8)] * 9 + [(2, 8, 8)] * 2 + [(4, 8, 8)]
    slices = tuple(Slice(Path("a.npz"), i, shape) for i, shape in enumerate(shapes))
    parts = Grid(slices, (), (), 0, 4).batches()
    numbers = [[one.number for one in part] for part in parts]
    assert numbers == [[0, 1, 2], [3, 4, 5], [6, 7, 8, 11], [9, 10]]


def test_slices_of_one_scan_do_not_count_as_independent():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    alone = summary(values)
    assert alone["standard_error"] == pytest.approx(values.std(ddof=1) / 2)
    assert alone == summary(values, list("abcd"))
    # Every slice twice tells nothing more.
    twice = summary(np.repeat(values, 2), list("aabbccdd"))
    assert twice["standard_error"] == pytest.approx(alone["standard_error"])
    assert summary(values, list("aaaa")) == alone
    assert summary([3.0], ["a"]) == {"mean": 3.0, "standard_error": None, "n": 1}


def test_clustered_errors_are_the_spread_of_the_mean_over_repetitions():
    rng = np.random.default_rng(0)
    scans, slices = 12, 5
    names = [str(scan) for scan in range(scans) for _ in range(slices)]
    draws = rng.normal(size=(2000, scans, 1)) + 0.5 * rng.normal(size=(2000, scans, slices))
    found = [present(summary(draw.ravel(), names)["standard_error"]) for draw in draws]
    spread = draws.mean((1, 2)).std()
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(spread, rel=0.05)


def test_networks_beside_other_methods(prior, scans, tmp_path, capsys):
    torch.manual_seed(0)
    folder = tmp_path / "unrolled" / "pipeline"
    ReconstructionPipeline(UnrolledGenerator(width=4, iterations=1)).save_pretrained(folder)
    command = [scans, "--methods", "zero-filled", "--accelerations", "2"]
    run(*command, "--out", tmp_path / "out", "--networks", folder)
    rows = read(tmp_path / "out")
    assert {row["method"] for row in rows} == {"zero-filled", "unrolled"}
    assert {row["evaluations"] for row in rows if row["method"] == "unrolled"} == {"1"}
    assert "| unrolled |" in capsys.readouterr().out
    torch.manual_seed(1)
    ReconstructionPipeline(UnrolledGenerator(width=4, iterations=1)).save_pretrained(folder)
    said = refused(capsys, *command, "--out", tmp_path / "out", "--networks", folder)
    assert "network unrolled" in " ".join(said.split())  # other weights of the same name
    said = refused(capsys, *command, "--out", tmp_path / "new", "--networks", prior)
    assert "holds a prior" in " ".join(said.split())
