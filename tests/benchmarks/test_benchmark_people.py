from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from people import write_people

from benchmarks.common.arguments import named_priors
from benchmarks.common.paired import interval, paired
from benchmarks.common.people import PersonSlice, choose_slices, full_scan
from benchmarks.people import __main__ as study
from benchmarks.people.report import page
from benchmarks.people.slices import Ceiling, measured, noise_deviation
from ctxrecon.datasets import ShardSlices, write_shard
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metrics import psnr
from ctxrecon.pipelines import build_pipeline

SIZE = 32
PEOPLE = {"T1": ("ann", "bob", "cid"), "T2": ("ann", "dan")}
"""Whose slices there are of each contrast, six of each person."""
ONE = PersonSlice(number=0, person="ann", kind="brain T1", prompt="")


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Noisy magnitude images of four people; of Ann there are two contrasts."""
    folder = tmp_path_factory.mktemp("people")
    write_people(folder, PEOPLE, SIZE)
    return folder


@pytest.fixture(scope="module")
def priors(tmp_path_factory) -> list[str]:
    """Two small priors of random weights as options."""
    options = []
    for seed, name in enumerate(("one", "two")):
        folder = tmp_path_factory.mktemp(name)
        pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16, seed=seed)
        pipe.save_pretrained(folder)
        options.append(f"{name}={folder}")
    return options


def command(people: Path, folder: Path, *priors: str) -> list[str]:
    options = ["--data", str(people), "--output_dir", str(folder), "--prior", *priors]
    options += ["--scans", "2", "--accelerations", "4", "--steps", "1"]
    return [*options, "--l1_weights", "0.002", "0.05"]


def test_kinds_and_people_take_turns_and_more_slices_begin_with_fewer(people):
    slices = ShardSlices(people)
    chosen = choose_slices(slices, 12, seed=0)
    assert len({one.number for one in chosen}) == 12
    assert [one.kind for one in chosen] == ["brain T1", "brain T2"] * 6
    assert Counter((one.kind, one.person) for one in chosen) == {
        **{("brain T1", person): 2 for person in PEOPLE["T1"]},
        **{("brain T2", person): 3 for person in PEOPLE["T2"]},
    }
    assert all(slices.subjects[one.number] == one.person for one in chosen)
    assert chosen[1].prompt == ScanMetadata(anatomy="brain", contrast="T2").to_prompt()
    assert choose_slices(slices, 5, seed=0) == chosen[:5]


def test_choices_are_made_with_slices_that_the_test_does_not_draw(people):
    slices = ShardSlices(people)
    drawn = {seed: {one.number for one in choose_slices(slices, 12, seed)} for seed in range(4)}
    assert all(not drawn[0] & drawn[seed] for seed in (1, 2, 3))
    assert drawn[1] != drawn[2]
    with pytest.raises(InputError, match="at most 12 slices by turns of 2 kinds, got --scans 13"):
        choose_slices(slices, 13, seed=0)


def test_the_reference_is_the_image_with_a_smooth_phase(people):
    slices = ShardSlices(people)
    scan = full_scan(slices, ONE, seed=0)
    image = slices[0]["image"]
    assert scan.target is not None
    torch.testing.assert_close(scan.target.abs(), image)
    turns = (scan.target[0, 1:] * scan.target[0, :-1].conj()).angle()[image[0, 1:] > 0.1]
    assert 0 < float(turns.abs().max()) < 0.6
    few = measured(scan, ONE, 4.0, seed=0)
    torch.testing.assert_close(few.kspace, scan.kspace * few.cartesian_mask)
    assert few.coil_maps is scan.coil_maps
    again = full_scan(slices, ONE, seed=0)
    torch.testing.assert_close(again.kspace, scan.kspace, rtol=0, atol=0)
    assert not torch.equal(full_scan(slices, ONE, seed=1).kspace, scan.kspace)


def test_complex_slices_keep_their_phase(tmp_path):
    image = torch.randn((1, 2, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).numpy()
    write_shard(
        tmp_path / "knee.safetensors",
        image,
        [ScanMetadata(anatomy="knee", contrast="PD")],
        source=Path("knee.h5"),
        source_bytes=1,
    )
    slices = ShardSlices(tmp_path)
    (one,) = choose_slices(slices, 1, seed=0)
    assert (one.kind, one.person) == ("knee PD", "knee")
    target = full_scan(slices, one, seed=0).target
    assert target is not None
    np.testing.assert_allclose(torch.view_as_real(target[0]), image[0].transpose(1, 2, 0))


def test_the_ceiling_is_the_noise_of_samples_that_are_not_measured():
    """Noise of 3 % in a body that fills half of the image, nothing around it."""
    rng = np.random.default_rng(0)
    image = np.zeros((128, 128))
    image[:64] = 1 + 0.03 * rng.standard_normal((64, 128))
    reference = torch.from_numpy(image).to(torch.complex64)[None]
    deviation = noise_deviation(reference[0])
    assert float(deviation[:64].mean()) == pytest.approx(0.03, rel=0.04)
    assert not deviation[64:].any()
    mask = torch.zeros((1, 1, 128, 128), dtype=torch.bool)
    mask[..., ::4] = True
    ceiling = Ceiling.of(reference, mask, seed=0)
    assert ceiling.error == pytest.approx(0.75 * 0.03**2 / 2, rel=0.08)
    found = ceiling.scores(reference)
    peak, power = image.max() ** 2, (image**2).mean()
    assert found["psnr"] == pytest.approx(10 * math.log10(peak / ceiling.error), abs=1e-4)
    assert found["nmse"] == pytest.approx(ceiling.error / power, rel=1e-5)
    assert float(psnr(ceiling.image, reference)) == pytest.approx(found["psnr"], abs=0.1)


def test_a_reference_without_noise_sets_no_ceiling():
    reference = torch.ones((1, 16, 16), dtype=torch.complex64)
    ceiling = Ceiling.of(reference, torch.ones((1, 1, 16, 16), dtype=torch.bool), seed=0)
    assert ceiling.scores(reference) == {"psnr": math.inf, "nmse": 0.0}


def test_the_study_goes_on_where_it_stopped_and_takes_more_priors(
    people, priors, tmp_path, monkeypatch
):
    study.main(command(people, tmp_path, priors[0]))
    rows = tmp_path / "people.csv"
    whole = rows.read_text()
    titles = ["ceiling", "zero-filled", "CG-SENSE"]
    titles += ["L1-wavelet, λ = 0.002", "L1-wavelet, λ = 0.05", "one, no prompt", "one, prompt"]
    assert len(whole.splitlines()) == 1 + 2 * len(titles)

    record = json.loads((tmp_path / "people.json").read_text())
    assert (tmp_path / "people.md").read_text() == page(record)
    assert (tmp_path / record["results"]["figure"]).stat().st_size > 5_000
    results = record["results"]
    assert results["groups"]["brain T1"] == {"slices": 1, "people": 1}
    found = results["x4"]["methods"]["all"]
    assert list(found) == [*titles[:3], "L1-wavelet, best λ", *titles[5:]]
    best = max(results["x4"]["l1_psnr"].values())
    assert found["L1-wavelet, best λ"]["psnr"]["mean"] == pytest.approx(best)
    assert found["ceiling"]["psnr"]["share"] == 1
    means = {title: entry["psnr"]["mean"] for title, entry in found.items()}
    share = (means["one, prompt"] - best) / (means["ceiling"] - best)
    assert found["one, prompt"]["psnr"]["share"] == pytest.approx(share)
    gain = results["x4"]["differences"]["all"]["one, prompt less one, no prompt"]["psnr"]
    assert gain["mean"] == pytest.approx(means["one, prompt"] - means["one, no prompt"])

    monkeypatch.setattr(study, "draw", lambda *_: "people.png")
    rows.write_text(whole[: -len(whole.splitlines()[-1]) // 2])  # stopped while it wrote
    study.main(command(people, tmp_path, *priors))
    lines = [untimed.rsplit(",", 1)[0] for untimed in rows.read_text().splitlines()]
    before = [untimed.rsplit(",", 1)[0] for untimed in whole.splitlines()]
    assert set(before) <= set(lines)
    # Resumed slices write their ceiling again.
    assert len(lines) - len(set(lines)) == 2
    results = json.loads((tmp_path / "people.json").read_text())["results"]
    pair = results["x4"]["differences"]["all"]["two, prompt less one, prompt"]["psnr"]
    found = results["x4"]["methods"]["all"]
    difference = found["two, prompt"]["psnr"]["mean"] - found["one, prompt"]["psnr"]["mean"]
    assert pair["mean"] == pytest.approx(difference)
    assert pair["n"] == 2
    with pytest.raises(InputError, match="a run with steps 1, but this run has 3"):
        study.main([*command(people, tmp_path, priors[0]), "--steps", "3"])


def test_samples_are_scored_alone_and_as_their_mean(people, priors, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "draw", lambda *_: "people.png")
    options = ["--scans", "1", "--methods", "dds:eta=0.5", "--samples", "2"]
    study.main([*command(people, tmp_path, priors[0]), *options])
    results = json.loads((tmp_path / "people.json").read_text())["results"]["x4"]
    mean, alone = "one dds:eta=0.5, prompt, mean of 2", "one dds:eta=0.5, prompt, one sample"
    found = results["methods"]["all"]
    assert found[mean]["psnr"]["mean"] > found[alone]["psnr"]["mean"]
    assert results["differences"]["all"][f"{alone} less {mean}"]["psnr"]["mean"] < 0


def test_rows_of_other_weights_do_not_count(people, priors, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "draw", lambda *_: "people.png")
    study.main([*command(people, tmp_path, priors[0]), "--scans", "1"])
    first = json.loads((tmp_path / "people.json").read_text())["results"]
    other = "one=" + priors[1].partition("=")[2]
    study.main([*command(people, tmp_path, other), "--scans", "1"])
    second = json.loads((tmp_path / "people.json").read_text())["results"]
    assert first["settings"]["priors"] != second["settings"]["priors"]
    scores = [run["x4"]["methods"]["all"]["one, prompt"]["psnr"]["mean"] for run in (first, second)]
    assert scores[0] != scores[1]


def test_slices_of_one_person_count_as_a_cluster():
    values, people = [1.0, 1.2, 3.0, 3.2], ["ann", "ann", "bob", "bob"]
    alone, together = interval(values), interval(values, people)
    assert alone["mean"] == together["mean"] == pytest.approx(2.1)
    # Two people: the deviations of their sums are ±2, so the error is √(2 · 8) / 4 = 1.
    assert together["high"] == pytest.approx(2.1 + 12.7062, abs=1e-3)
    assert alone["high"] == pytest.approx(2.1 + 3.1824 * np.std(values, ddof=1) / 2, abs=1e-3)
    assert interval(values, list("abcd")) == pytest.approx(alone)
    assert paired(values, [1.0] * 4, people)["mean"] == pytest.approx(1.1)


def test_priors_are_named():
    paths = named_priors(["shipped", "start=/tmp/a=b", "runs/long/pipeline"])
    assert paths == {
        "shipped": None,
        "start": "/tmp/a=b",
        "runs/long/pipeline": "runs/long/pipeline",
    }
    with pytest.raises(InputError, match="'a' twice"):
        named_priors(["a=x", "a=y"])
    with pytest.raises(InputError, match="NAME=PATH"):
        named_priors(["a="])


def test_other_methods_are_compared_with_the_first(people, priors, tmp_path):
    methods = ["--methods", "default", "pnp_admm:equivariant=False", "--steps", "4"]
    study.main([*command(people, tmp_path, *priors), *methods])
    record = json.loads((tmp_path / "people.json").read_text())
    found = record["results"]["x4"]["differences"]["all"]
    for prior in ("one", "two"):
        pair = f"{prior} pnp_admm:equivariant=False, prompt less one, prompt"
        assert found[pair]["psnr"]["mean"] != 0
    assert page(record).count("pnp_admm:equivariant=False, prompt − one, prompt") == 2
