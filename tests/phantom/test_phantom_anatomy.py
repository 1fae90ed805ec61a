"""Procedural brain and knee anatomies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.brain import brain_anatomy
from ctxrecon.phantom.brain_findings import BRAIN_FINDINGS
from ctxrecon.phantom.knee import knee_anatomy
from ctxrecon.phantom.knee_findings import KNEE_FINDINGS
from ctxrecon.phantom.tissues import Tissue

Draw = Callable[..., Anatomy]
both = pytest.mark.parametrize("draw", [brain_anatomy, knee_anatomy])

SHOWN_AS = {
    "Nonspecific white matter lesion": {Tissue.WHITE_MATTER_LESION},
    "Global label: Small vessel chronic white matter ischemic change": {Tissue.WHITE_MATTER_LESION},
    "Nonspecific lesion": {Tissue.WHITE_MATTER_LESION},
    "Edema": {Tissue.WHITE_MATTER_LESION},
    "Mass": {Tissue.MASS},
    "Extra-axial mass": {Tissue.MASS},
    "Posttreatment change": {Tissue.WHITE_MATTER_LESION},
    "Lacunar infarct": {Tissue.INFARCT},
    "Encephalomalacia": {Tissue.INFARCT},
    "Meniscus Tear": {Tissue.MENISCUS_TEAR},
    "Cartilage - Partial Thickness loss/defect": {Tissue.CARTILAGE_DEFECT},
    "Cartilage - Full Thickness loss/defect": {Tissue.CARTILAGE_DEFECT},
    "Bone-Fracture/Contusion/dislocation": {Tissue.BONE_EDEMA},
    "Bone- Subchondral edema": {Tissue.BONE_EDEMA},
    "Joint Effusion": {Tissue.SYNOVIAL_FLUID},
    "Periarticular cysts": {Tissue.SYNOVIAL_FLUID},
    "Bone - Lesion": {Tissue.MASS},
    "Soft Tissue Lesion": {Tissue.MASS},
}


def drawn(draw: Draw, seed: int, **options: float) -> Anatomy:
    return draw(torch.Generator().manual_seed(seed), **options)


@both
def test_same_seed_same_anatomy_and_other_seed_another(draw: Draw) -> None:
    first, again, other = drawn(draw, 3), drawn(draw, 3), drawn(draw, 4)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.slice, first.pathologies) == (again.slice, again.pathologies)
    assert (first.labels != other.labels).mean() > 0.05


@both
@pytest.mark.parametrize("size", [32, 128, 200])
def test_size_and_field_of_view(draw: Draw, size: int) -> None:
    anatomy = drawn(draw, 1, size=size, fov_mm=200.0)
    assert anatomy.structures is not None
    assert anatomy.labels.shape == anatomy.structures.shape == (size, size)
    assert anatomy.labels.dtype == np.uint8
    assert anatomy.voxel_mm == pytest.approx(200.0 / size)


@pytest.mark.parametrize(
    ("draw", "num_slices", "tissues"),
    [
        (
            brain_anatomy,
            16,
            {Tissue.WHITE_MATTER, Tissue.GRAY_MATTER, Tissue.CSF, Tissue.CORTICAL_BONE, Tissue.FAT},
        ),
        (knee_anatomy, 36, {Tissue.FAT, Tissue.MUSCLE, Tissue.LIGAMENT}),
    ],
)
def test_every_level_shows_its_main_tissues(
    draw: Draw, num_slices: int, tissues: set[Tissue]
) -> None:
    seen = set()
    for seed in range(num_slices * 6):
        anatomy = drawn(draw, seed, size=96)
        seen.add(anatomy.slice)
        counts = np.bincount(anatomy.labels.ravel(), minlength=len(Tissue))
        assert len(counts) == len(Tissue)
        for tissue in tissues:
            assert counts[tissue] > 10, (seed, anatomy.slice, tissue.name)
        assert counts[Tissue.AIR] < 0.92 * anatomy.labels.size
    assert len(seen) > 0.9 * num_slices
    assert seen <= set(range(num_slices))


def test_level_decides_what_a_brain_slice_shows() -> None:
    slices = [drawn(brain_anatomy, seed, size=96) for seed in range(120)]
    eyes = [(a.labels == Tissue.VITREOUS).sum() for a in slices]
    deep = [(a.labels == Tissue.DEEP_GRAY_MATTER).sum() for a in slices]
    assert all(n > 20 for a, n in zip(slices, eyes, strict=True) if a.slice in (2, 3))
    assert not any(n for a, n in zip(slices, eyes, strict=True) if present(a.slice) > 6)
    assert all(n > 50 for a, n in zip(slices, deep, strict=True) if a.slice in (8,))


def test_middle_of_the_knee_shows_the_joint() -> None:
    slices = [drawn(knee_anatomy, seed, size=128) for seed in range(80)]
    middle = [a for a in slices if 15 <= present(a.slice) <= 24]
    assert len(middle) > 10
    for anatomy in middle:
        for tissue in (Tissue.MARROW, Tissue.CARTILAGE, Tissue.MENISCUS, Tissue.LIGAMENT):
            assert (anatomy.labels == tissue).sum() > 10


@pytest.mark.parametrize(
    ("draw", "findings"), [(brain_anatomy, BRAIN_FINDINGS), (knee_anatomy, KNEE_FINDINGS)]
)
def test_named_pathologies_are_drawn(draw: Draw, findings: dict[str, float]) -> None:
    slices = [drawn(draw, seed, size=128) for seed in range(300)]
    sick = [a for a in slices if a.pathologies]
    assert 0.2 < len(sick) / len(slices) < 0.45
    extra = {"Edema", "Craniotomy", "Posttreatment change"}
    for anatomy in sick:
        assert len(set(anatomy.pathologies)) == len(anatomy.pathologies)
        assert set(anatomy.pathologies) <= set(findings) | extra
        present = set(np.unique(anatomy.labels).tolist())
        for name in anatomy.pathologies:
            assert SHOWN_AS.get(name, set()) <= present, name
    named = {name for anatomy in sick for name in anatomy.pathologies}
    assert len(named) >= 7


@both
def test_bad_input_is_refused(draw: Draw) -> None:
    with pytest.raises(InputError, match=r"32 pixels.* 16"):
        drawn(draw, 0, size=16)
    with pytest.raises(InputError, match=r"fov_mm .* 0\.0"):
        drawn(draw, 0, fov_mm=0.0)
    with pytest.raises(InputError, match=r"fov_mm .* nan"):
        drawn(draw, 0, fov_mm=float("nan"))


def test_a_bank_is_split_by_people(tmp_path):
    generator = torch.Generator().manual_seed(0)
    draws = [knee_anatomy(generator, size=32) for _ in range(9)]
    bank = AnatomyBank.build(draws, [0, 0, 0, 1, 2, 2, 3, 3, 4])
    bank.save(tmp_path / "bank.npz")
    first, second = AnatomyBank.load(tmp_path / "bank.npz").split(0.6, seed=1)
    assert len(first) + len(second) == 9
    assert len(set(present(first.subjects))) == 3
    assert not set(present(first.subjects)) & set(present(second.subjects))
    for part in (first, second):
        for number, subject in enumerate(present(part.subjects)):
            assert any(
                np.array_equal(part[number].labels, bank[int(place)].labels)
                for place in np.flatnonzero(bank.subjects == subject)
            )
    with pytest.raises(InputError, match=r"5 people .* 0\.01"):
        bank.split(0.01)
    with pytest.raises(InputError, match="does not store its subjects"):
        replace(bank, subjects=None).split(0.5)
