"""The benchmarks of solvers: curves, calibration and speed, at the smallest sizes."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest
import torch
from gaussian import seeded
from people import write_people
from scipy.stats import t as student_t

from benchmarks.common.held_out import center_fraction, scan_seed
from benchmarks.solvers import calibration, curves, strength
from benchmarks.speed import processes, reconstruction
from ctxrecon.errors import InputError
from ctxrecon.evaluation import read_rows
from ctxrecon.fourier import fft2c
from ctxrecon.masks import uniform1d
from ctxrecon.pipelines import ReconstructionOutput, build_pipeline
from ctxrecon.scan import Scan
from ctxrecon.solvers import DDS

SMALL = ("--resolution", "64", "--batch_size", "2", "--accelerations", "4")


@pytest.fixture(scope="module")
def prior(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("prior")
    build_pipeline(block_out_channels=(8, 8, 16), sample_size=16).save_pretrained(folder)
    return str(folder)


def test_solver_curves_compare_every_solver_with_the_papers(prior, tmp_path, monkeypatch):
    command = ["--prior", prior, "--output_dir", str(tmp_path), *SMALL]
    command += ["--scans", "3", "--solver_scans", "2", "--steps", "2", "3"]
    monkeypatch.setattr(curves, "_IDEAS", {curves.PAPER: (3,), "pnp_admm": (2,)})
    curves.main(command)
    results = json.loads((tmp_path / "solver_curves.json").read_text())["results"]
    ideas, solvers = results["ideas"], results["solvers"]
    assert [cell["method"] for cell in ideas] == [
        curves.PAPER,
        "pnp_admm",
        "l1-wavelet",
        "MoDL",
    ]
    assert ideas[0]["less_first"]["psnr"] == {"mean": 0.0, "standard_error": 0.0, "n": 3}
    assert ideas[1]["evaluations"] == 2
    assert len(solvers) == 2 * len(curves._SOLVERS)
    assert {cell["scores"]["psnr"]["n"] for cell in solvers} == {2}
    assert (tmp_path / "solver_curves.png").stat().st_size > 10_000
    rows = (tmp_path / "solver_curves" / "rows.csv").read_text()
    curves.main(command)  # nothing is measured again
    assert (tmp_path / "solver_curves" / "rows.csv").read_text() == rows
    name, other = curves.shipped_network()
    next(other.reconstructor.parameters()).data.add_(1)
    monkeypatch.setattr(curves, "shipped_network", lambda: (name, other))
    with pytest.raises(InputError, match="network"):
        curves.main(command)


def test_calibration_of_gaussian_samples_is_what_theory_says():
    """Samples and ground truth of one distribution: coverage is nominal and f is 1."""
    source, count = seeded(0), 6
    mean = 5 + torch.zeros(1, 150, 150)
    target = (mean + torch.randn(1, 150, 150, generator=source)).to(torch.complex64)
    samples = (mean + torch.randn(count, 150, 150, generator=source)).to(torch.complex64)
    zeros = torch.zeros(1, 1, 150, 150, dtype=torch.complex64)
    scan = Scan(zeros, torch.ones(1, 1, 150, 150, dtype=torch.bool), None, (), target)
    row = calibration.rate(samples, scan)
    for level in calibration.LEVELS:
        assert calibration.coverage(row, level, 1.0, count) == pytest.approx(level, abs=0.02)
        assert float(row[f"ratio{level:g}"]) == pytest.approx(1.0, abs=0.05)
        # A spread that is half of what it should be.
        narrow = calibration.coverage(row, level, 0.5, count)
        expected = 2 * student_t.cdf(student_t.ppf(0.5 + level / 2, count - 1) / 2, count - 1) - 1
        assert narrow == pytest.approx(expected, abs=0.02)
    gain = float(row["psnr_mean"]) - float(row["psnr_one"])
    assert gain == pytest.approx(calibration.gain_of_posterior(count), abs=0.1)
    assert calibration.gain_of_posterior(8) == pytest.approx(2.499, abs=1e-3)
    assert calibration.gain_of_posterior(10**9) == pytest.approx(3.0103, abs=1e-4)


def test_the_interval_of_the_output_is_the_one_that_was_calibrated():
    source, count = seeded(1), 5
    target = 5 + torch.randn(1, 90, 90, generator=source)
    samples = (5 + 0.7 * torch.randn(1, count, 90, 90, generator=source)).to(torch.complex64)
    output = ReconstructionOutput[torch.Tensor](
        samples.mean(dim=1), torch.zeros(1), samples=samples
    )
    lower, upper = output.interval(0.8, factor=1.3)
    inside = ((lower <= target) & (target <= upper)).double().mean()
    ones = torch.ones(1, 1, 90, 90, dtype=torch.complex64)
    scan = Scan(ones, ones.real > 0, None, (), target.to(torch.complex64))
    row = calibration.rate(samples[0], scan)
    assert calibration.coverage(row, 0.8, 1.3, count) == pytest.approx(float(inside), abs=0.005)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"level": 1.0}, "a level between 0 and 1"),
        ({"factor": 0.0}, "a positive factor"),
    ],
)
def test_intervals_that_make_no_sense(arguments, sentence):
    samples = torch.ones(1, 3, 4, 4, dtype=torch.complex64)
    with pytest.raises(InputError, match=sentence):
        ReconstructionOutput(samples[:, 0], torch.zeros(1), samples=samples).interval(**arguments)
    with pytest.raises(InputError, match="no spread"):
        ReconstructionOutput(samples[:, 0], torch.zeros(1)).interval()


def test_calibration_is_written_and_goes_on(prior, tmp_path, monkeypatch):
    command = ["--prior", prior, "--output_dir", str(tmp_path), *SMALL, "--samples", "3"]
    command += ["--scans", "2", "--fit_scans", "2", "--steps", "2"]
    posterior = ["posterior_dds", "posterior_dds:image=pnp_admm:strength=0.5"]
    command += ["--methods", "dds", "dds:image=pnp_admm:strength=0.5", *posterior]
    calibration.main(command)
    results = json.loads((tmp_path / "calibration.json").read_text())["results"]
    for method in posterior:
        found = results[f"x4 {method}"]
        gain = found["psnr_mean"]["mean"] - found["psnr_one"]["mean"]
        assert found["gain"]["mean"] == pytest.approx(gain)
        assert f"| `{method}` |" in (tmp_path / "calibration.md").read_text()
    entry = results["x4 dds:image=pnp_admm:strength=0.5"]
    assert entry["factor"] > 0
    assert entry["fitted_on"] == entry["gain"]["n"] == 2
    assert 0 <= entry["coverage 0.8"]["mean"] <= 1
    assert (tmp_path / "calibration.png").stat().st_size > 10_000
    rows = (tmp_path / "calibration.csv").read_text()
    monkeypatch.setattr(calibration, "draw", lambda *_: None)
    calibration.main(command)
    assert (tmp_path / "calibration.csv").read_text() == rows
    # Rows of further scans, which an earlier run measured, do not count.
    mine, args = read_rows(tmp_path / "calibration.csv"), calibration.parse_args(command)
    more = [{**row, "scan": "2", "psnr_mean": "99", "ratio0.8": "99"} for row in mine]
    assert calibration.summarize(mine + more, args) == calibration.summarize(mine, args)


def test_trust_in_the_prior_is_rated_at_every_factor(prior, tmp_path):
    command = ["--prior", prior, "--output_dir", str(tmp_path), *SMALL, "--coils", "4"]
    strength.main([*command, "--scans", "2", "--steps", "2", "--turns", "1"])
    results = json.loads((tmp_path / "strength.json").read_text())["results"]
    factors, rows = results["settings"]["factors"], results["rows"]
    assert [row["group"] for row in rows] == ["phantom ×4"] * 2
    assert all(len(row["noiseless"]["psnr"]) == len(factors) for row in rows)
    assert all(row["chosen"] in range(len(factors)) for row in rows)
    page = (tmp_path / "strength.md").read_text()
    assert all(f"× {factor:g}" in page for factor in factors)
    rows[0]["noiseless"], rows[1]["noiseless"] = (
        {"psnr": [30.0, 31.0, 29.0], "ssim": [0.9, 0.8, 0.7]},
        {"psnr": [20.0, 19.0, 18.0], "ssim": [0.5, 0.4, 0.3]},
    )
    rows[0]["chosen"], rows[1]["chosen"] = 2, 0
    cells = strength._cells(rows, "noiseless", len(factors))
    assert cells == [
        *("25.00 / 0.700", "25.00 / 0.600", "23.50 / 0.500"),
        *("24.50 / 0.600", "25.50 / 0.650"),
    ]


def test_people_have_masks_coils_and_noise_of_the_seed(tmp_path):
    write_people(tmp_path, {"T1": ("ann",)}, 32, each=1)

    def case(seed: int) -> strength.Case:
        command = ["--people", str(tmp_path), "--slices", "1", "--resolution", "32"]
        args = strength.parse_args([*command, "--coils", "2", "--seed", str(seed)])
        return strength.person_case(args, 0, 4.0, 0.03)

    one, other = case(0), case(1)
    assert not torch.equal(one.mask, other.mask)
    assert not torch.allclose(one.coil_maps, other.coil_maps)
    reference = one.references["reference"]
    noise = one.kspace - fft2c(one.coil_maps * reference[:, None]) * one.mask
    assert float(noise.abs().max()) > strength.NOISE
    # The noise is not that of the generator with which the coil maps and the reference began.
    for seed in (0, scan_seed(0, 0)):
        generator = torch.Generator().manual_seed(seed)
        uniform1d((32, 32), 4.0, center_fraction(4.0), generator=generator)
        again = torch.randn(noise.shape, dtype=torch.complex64, generator=generator)
        assert not torch.allclose(noise, strength.NOISE * again * one.mask, atol=1e-5)


def test_the_plain_loop_does_what_the_pipeline_does(prior, tmp_path):
    command = ["--prior", prior, "--output_dir", str(tmp_path), "--size", "48", "--coils", "3"]
    reconstruction.main([*command, "--steps", "3", "--turns", "1", "--published_steps", "4"])
    record = json.loads((tmp_path / "reconstruction_speed.json").read_text())
    results = record["results"]
    assert results["plain"]["difference_of_results"] < 1e-4
    assert len(results["profile"]) == 4
    assert len(results["defaults"]["median_seconds"]) == 3
    assert all(entry["network_seconds"] > 0 for entry in results["profile"])
    assert "of one run, after a warm-up" in (tmp_path / "reconstruction_speed.md").read_text()
    del results["defaults"]["warm_up"]  # as in earlier records
    assert "of one run, without a warm-up" in reconstruction.page(record)
    found = results.get("deepinv")
    if found is not None:
        assert found["DiffPIR"]["evaluations"] == {"deepinv DiffPIR": 3, "ctxrecon DiffPIR": 3}
        assert found["DPS"]["evaluations"] == {"deepinv DPS": 3, "ctxrecon DPS": 3}


def test_the_network_is_timed_alone(prior):
    pipe = reconstruction.open_prior(prior, "cpu")
    one = reconstruction.make_slice(
        "uniform1d", Namespace(seed=0, size=48, coils=3), torch.device("cpu")
    )
    seconds: list[float] = []
    handles = reconstruction._watch(pipe.unet, seconds)
    reconstruction.reconstruct(pipe, one, 3, 1.0, solver=DDS())
    for handle in handles:
        handle.remove()
    assert len(seconds) == 3
    assert min(seconds) > 0


def test_two_processes_give_the_numbers_of_one(prior, tmp_path):
    command = ["--prior", prior, "--output_dir", str(tmp_path), "--scans", "3"]
    processes.main([*command, "--resolution", "64", "--steps", "2", "--turns", "1"])
    results = json.loads((tmp_path / "processes.json").read_text())["results"]
    assert results["same_numbers"] == {"1": True, "2": True}
    assert min(seconds for (seconds,) in results["seconds"].values()) > 0
    with pytest.raises(InputError, match="magic"):
        processes.main([*command, "--methods", "magic", "--turns", "1", "--resolution", "64"])
