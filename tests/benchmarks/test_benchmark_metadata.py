from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gaussian import seeded
from narrow import present

from benchmarks.common import paired
from benchmarks.metadata import __main__ as study
from benchmarks.metadata import edits, options, plan, text_to_image
from benchmarks.metadata.measured import Measured
from benchmarks.report import pages
from ctxrecon.baselines import BASELINES
from ctxrecon.datasets import write_shard
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata, from_prompt
from ctxrecon.phantom import phantom_scan, signal, tissue_parameters
from ctxrecon.phantom.protocols import protocol_counts
from ctxrecon.pipelines import build_pipeline

KNEE = ScanMetadata(
    anatomy="knee",
    slice=20,
    contrast="PDFS",
    pathologies=("Meniscus Tear", "Meniscus Tear", "Joint Effusion"),
    sequence="TurboSpinEcho",
    tr=3120,
    te=33,
    ti=100,
    flip_angle=140,
    field_strength=2.89,
)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Magnitude images of two brains and two knees, each of a different size."""
    folder = tmp_path_factory.mktemp("people")
    for anatomy, contrast, size in (("brain", "T2", 32), ("knee", "PD", 48)):
        scans = [
            phantom_scan(anatomy, contrast=contrast, shape=(size, size), generator=seeded(number))
            for number in range(4)
        ]
        write_shard(
            folder / f"{anatomy}.safetensors",
            torch.stack([present(scan.target).abs() for scan in scans]).numpy().astype(np.float16),
            [ScanMetadata(anatomy=anatomy, contrast=contrast)] * 4,
            source=Path(f"{anatomy}.nii"),
            source_bytes=1,
            subjects=["ann", "ann", "bob", "bob"],
        )
    return folder


@pytest.fixture(scope="module")
def command(tmp_path_factory, people) -> list[str]:
    folder = tmp_path_factory.mktemp("prior")
    build_pipeline(block_out_channels=(8, 8, 16), sample_size=16).save_pretrained(folder)
    options = "--scans 2 --images 4 --resolution 32 --steps 1 --batch_size 4 --true_maps"
    options += " --levels 2"
    options += f" --people {people}"
    gammas = "--guidance_scales 0 2 --guidance_scale 2"
    return ["--prior", str(folder), *gammas.split(), *options.split()]


@pytest.fixture(scope="module")
def run(command, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        # A faster stand-in; the baseline is tested elsewhere.
        patch.setitem(BASELINES, "l1_wavelet", BASELINES["zero_filled"])
        study.main([*command, "--output_dir", str(folder)])
    return folder


def _rows(path: Path) -> tuple[list[list[str]], list[float]]:
    """Return words and numbers of each row without its seconds."""
    with path.open(encoding="utf-8") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    names = ("pool", "mask", "kind", "method", "contrast", "person", "findings", "prompt")
    words = [[row.get(name, "") for name in names] for row in rows]
    values = [value for row in rows for name, value in row.items() if name not in names]
    return words, [float(value) for value in values if value]


def test_intervals_are_students():
    # s = 1, t_{0.975, 2} = 4.302653
    estimate = paired.paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    half = 4.302653 / np.sqrt(3)
    assert estimate["n"] == 3
    assert estimate["mean"] == pytest.approx(2.0)
    assert (estimate["low"], estimate["high"]) == pytest.approx((2 - half, 2 + half))
    assert not paired.above(estimate)
    assert paired.above(paired.interval([1.0, 1.1, 0.9]))
    assert paired.above(paired.interval([1.0, 1.1, 0.9]), 0.5)
    assert paired.interval([3.0]) == {"mean": 3.0, "low": None, "high": None, "n": 1}
    assert not paired.above(paired.interval([3.0]))
    assert paired.with_interval(paired.interval([1.0, 1.0]), 2) == "+1.00 [+1.00, +1.00]"


def test_a_95_percent_interval_holds_the_mean_19_times_in_20():
    draws = np.random.default_rng(0).normal(0.3, 2.0, (2000, 6))
    found = [paired.interval(draw) for draw in draws]
    inside = [present(one["low"]) < 0.3 < present(one["high"]) for one in found]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_roc_area_counts_pairs():
    assert paired.roc_area([1, 2], [3, 4]) == 1
    assert paired.roc_area([3, 4], [1, 2]) == 0
    # Of the six pairs (wrong, right): 2 > 1, 2 = 2, 5 > 1, 2, 4 and 2 < 4.
    assert paired.roc_area([1, 2, 4], [2, 5]) == pytest.approx((1 + 0.5 + 3) / 6)
    assert paired.share_higher([1, 10, 3, 5], [2, 11, 3, 4]) == pytest.approx(2.5 / 4)


def test_the_interval_of_a_roc_area_is_that_of_the_jackknife():
    right, wrong = np.array([0.0, 1.0, 2.0, 5.0]), np.array([3.0, 0.5, 4.0, 6.0])
    found = paired.roc_interval(right, wrong)
    keep = ~np.eye(4, dtype=bool)
    left = np.array([paired.roc_area(right[one], wrong[one]) for one in keep])
    half = 3.182446 * np.sqrt(3 / 4 * np.sum((left - np.mean(left)) ** 2))
    area = paired.roc_area(right, wrong)
    assert found["mean"] == area == pytest.approx(11 / 16)
    assert found["low"] == pytest.approx(max(area - half, 0))
    assert found["high"] == pytest.approx(min(area + half, 1))
    together = paired.roc_interval(right, wrong, ["ann", "bob", "bob", "cid"])
    people = (keep[0], [0, 3], keep[3])
    left = np.array([paired.roc_area(right[one], wrong[one]) for one in people])
    half = 4.302653 * np.sqrt(2 / 3 * np.sum((left - np.mean(left)) ** 2))
    assert (together["n"], together["mean"]) == (4, area)
    assert together["low"] == pytest.approx(max(area - half, 0))
    assert paired.roc_interval([1.0], [2.0]) == {"mean": 1.0, "low": None, "high": None, "n": 1}


def test_metadata_is_removed_in_the_order_of_the_paper():
    prompt = {name: edits.edited_prompt(name, KNEE, 0) for name in edits.EDITS}
    findings = "Pathology: 2 Meniscus Tear, 1 Joint Effusion"
    found = "Pathology: 1 Joint Effusion, 2 Meniscus Tear"
    findings = findings if findings in prompt[edits.ALL] else found
    assert prompt[edits.ALL] == KNEE.to_prompt()
    assert prompt[edits.NO_PARAMETERS] == f"knee, Slice 20, PDFS, {findings}"
    assert prompt[edits.NO_CONTRAST] == f"knee, Slice 20, {findings}"
    assert prompt[edits.NO_SLICE] == f"knee, {findings}"
    assert prompt[edits.PATHOLOGY] == findings
    assert prompt[edits.WRONG_FIELD] == prompt[edits.ALL].replace("2.89", "1.49")


def test_age_and_sex_are_taken_away_alone_and_with_the_parameters():
    known = replace(KNEE, age=44, sex="F")
    prompt = {name: edits.edited_prompt(name, known, 0) for name in edits.EDITS}
    assert prompt[edits.NO_DEMOGRAPHICS] == KNEE.to_prompt()
    for name in (edits.NO_PARAMETERS, edits.NO_SLICE, edits.PATHOLOGY):
        assert prompt[name] == edits.edited_prompt(name, KNEE, 0)
    assert "Age: 44, Sex: F" in prompt[edits.WRONG_CONTRAST]


def test_the_wrong_pathology_is_the_same_alone_and_among_all_metadata():
    alone = from_prompt(edits.edited_prompt(edits.WRONG_PATHOLOGY, KNEE, 3))
    among = from_prompt(edits.edited_prompt(edits.ALL_WRONG_PATHOLOGY, KNEE, 3))
    assert among == replace(KNEE, pathologies=alone.pathologies)


def test_what_a_slice_does_not_tell_is_not_made_wrong():
    few = ScanMetadata(anatomy="brain", contrast="T2", field_strength=3.0)
    told = [name for name in edits.EDITS if edits.applies(name, few)]
    assert not {edits.WRONG_TIMES, edits.WRONG_SLICE} & set(told)
    wrong = {edits.wrong_contrast(few, np.random.default_rng(seed)) for seed in range(20)}
    assert {one.contrast for one in wrong} >= {"T1", "FLAIR"}
    assert {replace(one, contrast="T2") for one in wrong} == {few}
    assert edits.wrong_anatomy(KNEE, np.random.default_rng(0)) == replace(
        KNEE, anatomy="brain", pathologies=()
    )
    slices = [edits.wrong_slice(KNEE, np.random.default_rng(seed)).slice for seed in range(20)]
    assert {abs(present(number) - 20) >= 12 for number in slices} == {True}
    with pytest.raises(ValueError, match="slice number"):
        edits.wrong_slice(few, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(5))
def test_wrong_pathologies_are_others_of_the_anatomy(seed):
    wrong = from_prompt(edits.edited_prompt(edits.WRONG_PATHOLOGY, KNEE, seed))
    assert not set(wrong.pathologies) & set(KNEE.pathologies)
    assert set(wrong.pathologies) <= set(edits.KNEE_FINDINGS)
    assert sorted(wrong.pathologies.count(name) for name in set(wrong.pathologies)) == [1, 2]
    assert wrong.anatomy is wrong.contrast is wrong.slice is wrong.tr is None


def test_wrong_protocols_are_possible_ones_of_the_same_anatomy():
    tissues = tissue_parameters(3.0)
    for place, protocol in enumerate(protocol_counts()):
        rng = np.random.default_rng(place)
        other = edits.wrong_contrast(protocol, rng)
        assert other in protocol_counts()
        assert other.anatomy == protocol.anatomy
        assert other.field_strength == protocol.field_strength
        assert {other.contrast, protocol.contrast} not in ({"T1"}, {"T1PRE"}, {"T1", "T1PRE"})
        times = edits.wrong_times(protocol, rng)
        assert present(times.te) < present(times.tr)
        for new, old in ((times.tr, protocol.tr), (times.te, protocol.te)):
            ratio = present(new) / present(old)
            assert min(abs(ratio - 2), abs(ratio - 0.5)) < 1e-3
        assert times.contrast == protocol.contrast
        assert np.isfinite(signal(tissues, times)).all()
    kept = edits.wrong_contrast(KNEE, np.random.default_rng(0))
    assert (kept.contrast, kept.slice, kept.pathologies) == ("PD", 20, KNEE.pathologies)
    with pytest.raises(ValueError, match="expected TR and TE"):
        edits.wrong_times(ScanMetadata(contrast="T2"), np.random.default_rng(0))


def test_images_are_named_by_groups():
    distances = np.ones((6, 5, 6))
    for contrast in range(6):
        distances[contrast, :3, contrast] = 0.0  # three of the four say so
    distances[2, :, 0] = 0.1  # nearer on average than 0.25
    matrix = text_to_image.confusion(distances)
    expected = np.eye(6, dtype=int)
    expected[2] = np.eye(6, dtype=int)[0]
    np.testing.assert_array_equal(matrix, expected)


def test_tables_and_record_hold_every_cell(run):
    record = json.loads((run / "metadata.json").read_text())
    assert record["seed"] == 0
    results = record["results"]
    assert list(results) == ["settings", *options.EXPERIMENTS]
    masks = list(plan.MASKS)
    assert "Too few" not in (run / "metadata.md").read_text()
    cells = results["guidance"]["cells"]
    for mask in masks:
        for part in ("knee", "brain", "knee and brain", "procedural brain"):
            assert list(cells[f"{part}, {mask}"]["means"]) == ["L1-wavelet", "γ = 0", "γ = 2"]
        both, own = (cells[f"{part}, {mask}"]["means"] for part in ("knee and brain", "knee"))
        assert (both["γ = 0"]["psnr"]["n"], own["γ = 0"]["psnr"]["n"]) == (4, 2)
    average = cells["average of all cells"]
    each = [cells[f"{anatomy}, {mask}"] for anatomy in ("knee", "brain") for mask in masks]
    gain = average["differences"]["best γ less γ = 0"]["psnr"]
    assert gain["n"] == 4  # slices, not images: the masks of one slice are not independent
    gains = [one["differences"]["γ = 2 less γ = 0"]["psnr"]["mean"] for one in each]
    assert gain["mean"] == pytest.approx(np.mean(gains))
    for name, steps in (("removal", 5), ("demographics", 3), ("pathology", 5)):
        for mask in ("uniform1d ×4", "uniform1d ×8"):
            assert len(results[name][mask]["knee and brain"]) == steps
    assert len(results["field_strength"]["uniform1d ×8"]["knee and brain"]) == 3
    for mask in ("uniform1d ×4", "uniform1d ×8"):
        ends = results["removal"][mask]["knee"]
        assert ends["all metadata, γ = 2"]["psnr"]["mean"] == pytest.approx(
            cells[f"knee, {mask}"]["means"]["γ = 2"]["psnr"]["mean"]
        )
    telling = results["wrong_prompt"]["telling"]
    assert list(telling) == ["wrong TR and TE", "wrong contrast"]
    assert 0 <= telling["wrong contrast"]["spread"]["roc_area"] <= 1
    assert telling["wrong contrast"]["residual"]["right"] > 0
    told = results["evidence"]["cells"]["knee and brain, uniform1d ×8, wrong slice"]
    assert told["n"] == 4
    assert 0 <= told["roc_area"]["low"] <= told["roc_area"]["mean"] <= told["roc_area"]["high"] <= 1
    names = {name.split(", ")[-1] for name in results["evidence"]["cells"] if "real" in name}
    assert names == {"wrong contrast", "wrong anatomy"}
    images = results["text_to_image"]
    assert np.sum(images["phantom"]["confusion"]) == 6
    assert {"γ = 0", "γ = 1", "γ = 2"} < set(images)
    text = (run / "metadata.md").read_text()
    claims = ("gains 0.4 dB or more", "paper's order", "lies between none and the right")
    for claim in (*claims, "age and sex gain", "real people: the best γ gains"):
        assert sum(claim in line and "| **" in line for line in text.splitlines()) >= 1
    figures = ("guidance", "people", "removal", "demographics", "pathology", "wrong_prompt")
    for name in (*figures, "text_to_image"):
        assert (run / f"metadata_{name}.png").stat().st_size > 10_000


def test_real_people_are_measured_beside_phantoms(run):
    results = json.loads((run / "metadata.json").read_text())["results"]
    found = results["people"]["cells"]
    mask = "uniform1d ×8"
    own = found[f"real people, {mask}"]["means"]["γ = 2"]["psnr"]
    kinds = [found[f"{kind}, {mask}"]["means"]["γ = 2"]["psnr"] for kind in ("brain T2", "knee PD")]
    assert (own["n"], *(one["n"] for one in kinds)) == (2, 1, 1)
    values = [one["mean"] for one in kinds]
    assert own["mean"] == pytest.approx(np.mean(values))
    assert own["deviation"] == pytest.approx(np.std(values, ddof=1))
    with (run / "metadata.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["pool"] == "real people"]
    assert {row["person"] for row in rows} <= {"ann", "bob"}
    assert {row["kind"] for row in rows} == {"brain T2", "knee PD"}


def test_another_name_keeps_another_solver_apart(run, command, people, tmp_path):
    for path in run.glob("metadata*.*s*"):
        shutil.copy(path, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    original = [*command, "--output_dir", str(tmp_path)]
    command = [*original, "--solver", "dds:data_weight=5"]
    command += ["--timesteps", "scheduler", "--experiments", "removal", "--accelerations", "8"]
    with pytest.raises(InputError, match="solver"):
        study.main(command)
    study.main([*command, "--name", "dds"])
    assert all(path.read_bytes() == text for path, text in before.items())
    record = json.loads((tmp_path / "metadata_dds.json").read_text())
    assert record["results"]["settings"]["solver"] == "dds:data_weight=5"
    made = {path.name for path in tmp_path.glob("metadata_dds*")}
    assert {"metadata_dds.csv", "metadata_dds.md", "metadata_dds_removal.png"} <= made
    assert (tmp_path / "metadata_dds.md").read_text() == pages(tmp_path)["metadata_dds"]()
    with pytest.raises(SystemExit):
        study.main([*command, "--name", "images"])
    others = tmp_path / "others"
    others.mkdir()
    for path in people.glob("knee.*"):
        shutil.copy(path, others)
    with pytest.raises(InputError, match="other people"):
        study.main([*original, "--experiments", "people", "--people", str(others)])
    rows = tmp_path / "metadata_dds.csv"
    rows.write_text(rows.read_text().replace(",person", "", 1))
    with pytest.raises(InputError, match="columns"):
        study.main([*command, "--name", "dds"])


def test_another_prior_stands_beside_without_a_prompt(command, tmp_path):
    first = Path(command[command.index("--prior") + 1])
    second = tmp_path / "second"
    build_pipeline(block_out_channels=(8, 8, 16), sample_size=16, seed=5).save_pretrained(second)
    command = [*command, "--output_dir", str(tmp_path), "--experiments", "guidance"]
    study.main([*command, "--prior", f"one={first}"])
    rows = (tmp_path / "metadata.csv").read_text()
    study.main([*command, "--prior", f"one={first}", f"two={second}"])
    assert (tmp_path / "metadata.csv").read_text().startswith(rows)
    results = json.loads((tmp_path / "metadata.json").read_text())["results"]
    average = results["guidance"]["cells"]["average of all cells"]
    means = {name: entry["psnr"]["mean"] for name, entry in average["means"].items()}
    assert list(means) == ["L1-wavelet", "γ = 0", "γ = 2", "two, γ = 0"]
    assert average["differences"]["γ = 0 less two, γ = 0"]["psnr"]["mean"] == pytest.approx(
        means["γ = 0"] - means["two, γ = 0"]
    )
    text = (tmp_path / "metadata.md").read_text()
    assert "| the best γ gains over two, γ = 0, another prior" in text
    assert results["settings"]["other_priors"]["two"] in text
    assert text == pages(tmp_path)["metadata"]()
    with pytest.raises(InputError, match="another name"):
        study.main([*command, "--prior", f"one={first}", f"two={first}"])


def test_what_was_never_begun_is_left_out_of_the_tables():
    every = plan.planned_experiments([0, 1, 3], 1, 1, prompt_gammas=[1, 3])
    experiment = every["removal"]
    guided = [(mask, f"all metadata, γ = {gamma}") for mask in plan.MASKS for gamma in (1, 3)]
    removed = [("uniform1d ×8", f"{edit}, γ = 1") for edit in experiment.edits]
    rows = [
        {"pool": pool, "mask": mask, "method": method, "scan": "0"}
        for pool in ("knee", "brain")
        for mask, method in [*guided, *removed, ("uniform1d ×8", "γ = 0")]
    ]
    begun = Measured(rows).begun(experiment)
    assert begun.masks == ("uniform1d ×8",)
    assert [method.name for method in begun.methods] == [name for _, name in removed] + ["γ = 0"]
    assert not Measured().begun(experiment).methods


def test_a_cut_file_is_completed_to_the_same_rows(run, command, tmp_path, monkeypatch):
    for path in run.glob("*.csv"):
        text = path.read_text()
        (tmp_path / path.name).write_text(text[: len(text) * 9 // 10])
        shutil.copy(run / f"{path.stem}.settings.json", tmp_path)
    monkeypatch.setattr(study, "text_to_image_figure", lambda *_: None)
    command = [*command, "--output_dir", str(tmp_path)]
    study.main(command)
    for name in ("metadata.csv", "metadata_evidence.csv", "metadata_images.csv"):
        words, numbers = zip(*(_rows(folder / name) for folder in (run, tmp_path)), strict=True)
        assert words[0] == words[1]
        # The network's rounding depends on how many images it sees at once.
        np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-4)
    with pytest.raises(InputError, match=r"steps 1.* 2"):
        study.main([*command, "--steps", "2"])


def test_a_report_of_a_stopped_run_takes_complete_slices(run, command, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "open_named_priors", lambda *_: pytest.fail("no prior is needed"))
    command = [*command, "--output_dir", str(tmp_path), "--report_only"]
    with pytest.raises(InputError, match="no rows"):
        study.main(command)
    for path in run.glob("metadata*.*s*"):
        shutil.copy(path, tmp_path)
    cut = tmp_path / "metadata.csv"
    # The last rows written are those of wrong prompts: that experiment is not complete.
    cut.write_text(cut.read_text()[:-20])
    before = cut.read_text()
    study.main([*command, "--scans", "128"])
    assert cut.read_text() == before
    results = json.loads((tmp_path / "metadata.json").read_text())["results"]
    assert results["guidance"]["n"] == 2
    assert "wrong_prompt" not in results
    assert "Too few complete slices yet: wrong_prompt." in (tmp_path / "metadata.md").read_text()
