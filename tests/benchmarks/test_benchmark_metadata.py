from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from narrow import present

from benchmarks.common import paired
from benchmarks.metadata import __main__ as study
from benchmarks.metadata import edits, experiments, options, text_to_image
from ctxrecon.baselines import BASELINES
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata, from_prompt
from ctxrecon.phantom import signal, tissue_parameters
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
def command(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("prior")
    build_pipeline(block_out_channels=(8, 8, 16), sample_size=16).save_pretrained(folder)
    options = "--scans 2 --images 4 --resolution 32 --steps 1 --batch_size 4 --true_maps"
    gammas = "--guidance_scales 0 2 --guidance_scale 2"
    return ["--prior", str(folder), *gammas.split(), *options.split()]


@pytest.fixture(scope="module")
def run(command, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        # A faster stand-in: what the baseline is worth is tested elsewhere.
        patch.setitem(BASELINES, "l1_wavelet", BASELINES["zero_filled"])
        study.main([*command, "--output_dir", str(folder)])
    return folder


def _rows(path: Path) -> tuple[list[list[str]], list[float]]:
    """The words and the numbers of each row but the time that it took."""
    with path.open(encoding="utf-8") as file:
        rows = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    names = ("pool", "mask", "kind", "method", "contrast")
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
    masks = list(experiments.MASKS)
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
    for name, steps in (("removal", 5), ("pathology", 4), ("field_strength", 3)):
        assert len(results[name]["knee and brain"]) == steps
    ends = results["removal"]["knee"]
    assert ends["all metadata, γ = 2"]["psnr"]["mean"] == pytest.approx(
        cells["knee, uniform1d ×8"]["means"]["γ = 2"]["psnr"]["mean"]
    )
    telling = results["wrong_prompt"]["telling"]
    assert list(telling) == ["wrong TR and TE", "wrong contrast"]
    assert 0 <= telling["wrong contrast"]["spread"]["roc_area"] <= 1
    assert telling["wrong contrast"]["residual"]["right"] > 0
    images = results["text_to_image"]
    assert np.sum(images["phantom"]["confusion"]) == 6
    assert {"γ = 0", "γ = 1", "γ = 2"} < set(images)
    text = (run / "metadata.md").read_text()
    for claim in ("gains 0.4 dB or more", "paper's order", "lies between none and the right"):
        assert sum(claim in line and "| **" in line for line in text.splitlines()) >= 1
    for name in ("guidance", "removal", "pathology", "wrong_prompt", "text_to_image"):
        assert (run / f"metadata_{name}.png").stat().st_size > 10_000


def test_a_cut_file_is_completed_to_the_same_rows(run, command, tmp_path, monkeypatch):
    for path in run.glob("*.csv"):
        text = path.read_text()
        (tmp_path / path.name).write_text(text[: len(text) * 9 // 10])
        shutil.copy(run / f"{path.stem}.settings.json", tmp_path)
    monkeypatch.setattr(study, "text_to_image_figure", lambda *_: None)
    command = [*command, "--output_dir", str(tmp_path)]
    study.main(command)
    for name in ("metadata.csv", "metadata_images.csv"):
        words, numbers = zip(*(_rows(folder / name) for folder in (run, tmp_path)), strict=True)
        assert words[0] == words[1]
        # The network's rounding depends on how many images it sees at once.
        np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-4)
    with pytest.raises(InputError, match=r"steps 1.* 2"):
        study.main([*command, "--steps", "2"])


def test_a_report_of_a_stopped_run_takes_complete_slices(run, command, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "open_named_prior", lambda *_: pytest.fail("no prior is needed"))
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
