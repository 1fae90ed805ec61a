"""Age and sex of phantom people: their effects have the literature's size, also in the images."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import (
    Anatomy,
    AnatomyBank,
    Person,
    PhantomSlices,
    Subject,
    Tissue,
    brain_anatomy,
    describe,
    draw_person,
    knee_anatomy,
    phantom_scan,
    tissue_parameters,
)
from ctxrecon.phantom.brain import plan_finding
from ctxrecon.phantom.build import build_bank
from ctxrecon.phantom.knee import plan_findings
from ctxrecon.phantom.person import aged_beta, frequency, relative_age

AGES = (30.0, 45.0, 60.0, 75.0)
T2 = ScanMetadata(contrast="T2", sequence="TurboSpinEcho", tr=5000, te=110, flip_angle=180)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@lru_cache(maxsize=1)
def ventricle_seeds() -> tuple[int, ...]:
    """Seeds of slices at the level of the lateral ventricles; age does not change the level."""
    found = [
        seed for seed in range(120) if brain_anatomy(seeded(seed), size=32).slice in (8, 9, 10)
    ]
    return tuple(found[:16])


def brains(age: float, size: int = 96) -> list[Anatomy]:
    people = [Person(age, "FM"[seed % 2]) for seed in ventricle_seeds()]
    return [
        brain_anatomy(seeded(seed), size=size, person=one)
        for seed, one in zip(ventricle_seeds(), people, strict=True)
    ]


def image(anatomy: Anatomy, protocol: ScanMetadata, size: int = 64) -> np.ndarray:
    """A noiseless image without shading, spread of tissues or texture."""
    subject = Subject(
        anatomy,
        tissue_parameters(3.0, person=anatomy.person),
        (0, 0),
        (np.zeros((3, 3)), 0.0),
        None,
    )
    return np.abs(subject.image(protocol, (size, size), np.random.default_rng(0), phase=0.0))


def middle(shape: tuple[int, int], voxel_mm: float) -> np.ndarray:
    """An ellipse around the ventricles, 30 × 45 mm."""
    y, x = np.mgrid[: shape[0], : shape[1]] - (np.array(shape) / 2)[:, None, None]
    return np.hypot(voxel_mm * x / 30, voxel_mm * y / 45) < 1


def test_ventricles_in_t2_images_double_from_30_to_75_years() -> None:
    areas = []
    for age in AGES:
        bright = []
        for anatomy in brains(age):
            one = image(anatomy, T2)
            voxel = anatomy.voxel_mm * len(anatomy.labels) / len(one)
            bright.append(float((one > 0.5 * one.max())[middle(one.shape, voxel)].sum()))
        areas.append(np.mean(bright))
    assert np.all(np.diff(areas) > 0), areas
    # the ellipse holds septum, fissure and insular cisterns too, which change less
    assert 1.6 < areas[-1] / areas[0] < 2.6, areas


def test_cortex_thins_and_cerebrospinal_fluid_grows() -> None:
    counts = {
        tissue: [np.mean([(one.labels == tissue).sum() for one in brains(age)]) for age in AGES]
        for tissue in (Tissue.GRAY_MATTER, Tissue.CSF)
    }
    gray = np.polyfit(AGES, counts[Tissue.GRAY_MATTER], 1)[0] / counts[Tissue.GRAY_MATTER][0]
    assert -0.007 < gray < -0.0025  # Storsve et al.: −0.51 % of volume in a year
    assert np.all(np.diff(counts[Tissue.CSF]) > 0)


def test_ventricles_follow_age_through_the_population() -> None:
    rng = np.random.default_rng(1)
    people = [draw_person(rng, "brain") for _ in range(4000)]
    ages = np.array([one.age for one in people])
    assert (ages.mean(), ages.std()) == (pytest.approx(52.5, abs=1), pytest.approx(15.2, abs=1))
    assert ages.min() >= 18
    atrophy = np.array([aged_beta(rng, (1.5, 2.5), one, "brain", 0.5) for one in people])
    usual = rng.beta(1.5, 2.5, 20_000)
    for share in (0.1, 0.5, 0.9):  # its distribution is that without persons
        assert np.quantile(atrophy, share) == pytest.approx(np.quantile(usual, share), abs=0.025)
    assert np.corrcoef(ages, atrophy)[0, 1] == pytest.approx(0.5, abs=0.05)


def test_white_matter_has_its_shortest_times_at_40_years() -> None:
    ages = np.arange(20.0, 90.0, 5.0)
    tissues = [tissue_parameters(3.0, person=Person(age, "F")) for age in ages]
    times = np.array([one.t1[Tissue.WHITE_MATTER] for one in tissues])
    assert ages[times.argmin()] == 40
    assert times[ages == 75] / times[ages == 40] == pytest.approx(1.08)
    assert times.mean() == pytest.approx(tissue_parameters(3.0).t1[Tissue.WHITE_MATTER], rel=0.02)


def test_t1_of_white_matter_is_read_off_the_images() -> None:
    """Two spin echoes of short and long TR give T1, as in a map of it."""
    short, long = (
        ScanMetadata(contrast="T1", sequence="SpinEcho", tr=tr, te=10) for tr in (500, 9000)
    )
    found = []
    for age in (40.0, 80.0):
        anatomy = brains(age)[0]
        inside = binary_erosion(anatomy.labels == Tissue.WHITE_MATTER, iterations=2)
        size = len(anatomy.labels)
        ratio = image(anatomy, short, size)[inside] / image(anatomy, long, size)[inside]
        candidates = np.arange(600.0, 1200.0)
        curve = np.divide(
            *(
                1 - 2 * np.exp(-(tr - 5) / candidates) + np.exp(-tr / candidates)
                for tr in (500, 9000)
            )
        )
        found.append(candidates[np.abs(curve - np.median(ratio)).argmin()])
    true = [tissue_parameters(3.0, person=Person(age, "F")).t1[1] for age in (40.0, 80.0)]
    assert found == pytest.approx(true, rel=0.03)
    assert found[1] > 1.06 * found[0]


@pytest.mark.parametrize("field_strength", [1.5, 3.0])
def test_iron_shortens_t2_of_the_deep_gray_matter(field_strength: float) -> None:
    young, middle_aged, old = (
        tissue_parameters(field_strength, person=Person(age, "M")) for age in (20.0, 52.0, 85.0)
    )
    place = Tissue.DEEP_GRAY_MATTER
    assert middle_aged.t2[place] == pytest.approx(tissue_parameters(field_strength).t2[place])
    for name in ("t2", "t2_star"):
        times = [getattr(one, name)[place] for one in (young, middle_aged, old)]
        assert times[0] > times[1] > times[2]
    # Hallgren & Sourander: 4.7 mg more in 100 g from 20 to 52 years; 1.06 s⁻¹ for each at 3 T
    faster = 1e3 / middle_aged.t2_star[place] - 1e3 / young.t2_star[place]
    assert faster == pytest.approx(4.7 * 1.06 * field_strength / 3, rel=0.02)


def test_heads_differ_by_sex() -> None:
    sizes = {
        sex: np.mean(
            [
                (brain_anatomy(seeded(seed), size=64, person=Person(50, sex)).labels > 0).sum()
                for seed in range(40)
            ]
        )
        for sex in "FM"
    }
    # 10 % of volume is 6.6 % of area
    assert sizes["M"] / sizes["F"] == pytest.approx(1.066, abs=0.015)


def test_knees_differ_by_age_and_sex() -> None:
    def mean(age: float, sex: str, *tissues: Tissue) -> float:
        return float(np.mean([np.isin(one.labels, tissues).sum() for one in knees[age, sex]]))

    seeds = [seed for seed in range(60) if (knee_anatomy(seeded(seed), size=32).slice or 0) >= 10]
    knees = {
        (age, sex): [
            knee_anatomy(seeded(seed), size=128, person=Person(age, sex)) for seed in seeds[:16]
        ]
        for age in (30.0, 70.0)
        for sex in "FM"
    }
    cartilage = Tissue.CARTILAGE, Tissue.CARTILAGE_DEFECT
    for age in (30.0, 70.0):
        assert mean(age, "M", *cartilage) > 1.15 * mean(age, "F", *cartilage)
        assert mean(age, "M", Tissue.MUSCLE) > 1.1 * mean(age, "F", Tissue.MUSCLE)
        fat = [mean(age, sex, Tissue.FAT) / mean(age, sex, Tissue.MUSCLE) for sex in "MF"]
        assert fat[1] > 1.2 * fat[0]
    for sex in "FM":
        lost = 1 - mean(70.0, sex, *cartilage) / mean(30.0, sex, *cartilage)
        assert 0.04 < lost < 0.18  # 12 % of thickness, less where the surfaces touch


def test_findings_become_more_frequent_with_age() -> None:
    def share(age: float, plan: Callable[[Person], Any], word: str) -> float:
        planned = [plan(Person(age, "M")) for _ in range(1000)]
        return float(np.mean([word in str(one) for one in planned]))

    rng = np.random.default_rng(0)

    def brain(person: Person) -> str | None:
        return plan_finding(rng, 0.6, person)

    def knee(person: Person) -> list[str]:
        return plan_findings(rng, person)

    assert share(80, brain, "white matter") > 3 * share(25, brain, "white matter")
    assert share(80, brain, "Mass") == pytest.approx(share(25, brain, "Mass"), abs=0.04)
    assert share(75, knee, "Meniscus Tear") > 2.5 * share(25, knee, "Meniscus Tear")
    for name in ("brain", "knee"):
        people = [draw_person(rng, name) for _ in range(3000)]
        assert np.mean([frequency(one, name, 0.6) for one in people]) == pytest.approx(1, abs=0.05)
        assert np.mean([relative_age(one, name) for one in people]) == pytest.approx(0, abs=0.05)


def test_marrow_gains_fat_with_age_and_in_women_after_55() -> None:
    fat = {
        (age, sex): tissue_parameters(1.5, person=Person(age, sex)).fat_fraction[Tissue.MARROW]
        for age in (25.0, 70.0)
        for sex in "FM"
    }
    assert fat[25.0, "F"] < fat[25.0, "M"] < fat[70.0, "M"] < fat[70.0, "F"] < 0.95


def test_prompts_tell_age_and_sex_of_persons_alone(tmp_path: Path) -> None:
    anatomy = knee_anatomy(seeded(1), size=32, person=Person(48, "F"))
    assert "Age: 48, Sex: F" in describe(anatomy, ScanMetadata(contrast="PD")).to_prompt()
    assert "Age" not in phantom_scan("knee", generator=seeded(1)).metadata[0].to_prompt()

    bank = build_bank(knees=2, brains=2, size=32, seed=1, progress=False)
    path = tmp_path / "bank.npz"
    bank.save(path)
    loaded = AnatomyBank.load(path)
    assert loaded.persons == bank.persons
    assert all(person is not None for person in loaded.persons)
    assert loaded.of_anatomy("brain").persons == bank.persons[2:]
    item = PhantomSlices(loaded, resolution=32)[0]["metadata"]
    assert Person(item.age, item.sex) in loaded.persons
    without = build_bank(knees=1, size=32, seed=1, demographics=False, progress=False)
    assert without[0].person is None


def test_banks_of_before_have_no_persons(tmp_path: Path) -> None:
    path = tmp_path / "bank.npz"
    AnatomyBank.build([knee_anatomy(seeded(1), size=32)]).save(path)
    with np.load(path) as file:
        arrays = dict(file)
    notes = json.load(io.BytesIO(arrays["notes"].tobytes()))
    del notes["persons"]
    arrays["notes"] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    np.savez(path, **arrays)
    assert AnatomyBank.load(path)[0].person is None
    notes["persons"] = [[300, "F"]]
    arrays["notes"] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="damaged"):
        AnatomyBank.load(path)
    del notes["persons"]
    notes["names"] = notes["names"] * 2
    arrays["notes"] = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="2 names, but 1 entries of labels"):
        AnatomyBank.load(path)


@pytest.mark.parametrize(
    ("age", "sex", "word"), [(12, "F", "age"), (200, "M", "age"), (50, "O", "sex")]
)
def test_who_is_no_person_of_the_phantom_is_refused(age: float, sex: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Person(age, sex)
