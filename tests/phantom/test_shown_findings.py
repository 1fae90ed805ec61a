"""Findings that are named only where they can be seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gaussian import seeded

from ctxrecon.phantom import Anatomy, AnatomyBank, PhantomSlices, Structure, Tissue, brain_anatomy
from ctxrecon.phantom.brain_findings import BRAIN_FINDINGS
from ctxrecon.phantom.knee_findings import KNEE_FINDINGS
from ctxrecon.phantom.shown import STRUCTURES, TISSUES

LEFT, RIGHT = (slice(None), slice(0, 16)), (slice(None), slice(16, 32))


def half(tissue: Tissue, structure: Structure, *findings: str, pixels: int = 20) -> Anatomy:
    """White matter with a finding of some pixels in its left half."""
    labels = np.full((32, 32), Tissue.WHITE_MATTER, np.uint8)
    structures = np.zeros((32, 32), np.uint8)
    labels[4, : min(pixels, 10)] = labels[5, : max(pixels - 10, 0)] = tissue
    structures[labels == tissue] = structure
    return Anatomy("brain", labels, 1.0, 8, findings, structures)


@pytest.mark.parametrize(
    ("tissue", "structure", "finding"),
    [
        (Tissue.MASS, Structure.MASS, "Mass"),
        (Tissue.CSF, Structure.VENTRICLES, "Enlarged ventricles"),
        (Tissue.INFARCT, Structure.NONE, "Lacunar infarct"),
        (Tissue.MENISCUS_TEAR, Structure.MENISCUS, "Meniscus Tear"),
    ],
)
@pytest.mark.parametrize("pixels", [20, 5])
def test_a_part_has_the_findings_in_it(
    tissue: Tissue, structure: Structure, finding: str, pixels: int
) -> None:
    anatomy = half(tissue, structure, finding, pixels=pixels)
    assert anatomy.cropped(LEFT).pathologies == (finding,)
    assert anatomy.cropped(RIGHT).pathologies == ()


def test_a_few_pixels_of_a_larger_finding_are_not_named() -> None:
    anatomy = half(Tissue.MASS, Structure.MASS, "Mass")
    assert anatomy.cropped((slice(None), slice(5, 32))).pathologies == ()  # 10 of 20 pixels
    assert anatomy.cropped((slice(None), slice(4, 32))).pathologies == ("Mass",)


def test_findings_of_unknown_place_need_most_of_the_body() -> None:
    anatomy = half(Tissue.CSF, Structure.NONE, "Craniectomy", "Mass")
    assert anatomy.cropped(LEFT).pathologies == ()
    assert anatomy.cropped((slice(1, 31), slice(None))).pathologies == ("Craniectomy",)
    anatomy.labels[:, 20:] = Tissue.AIR
    assert anatomy.cropped((slice(None), slice(0, 20))).pathologies == ("Craniectomy",)


def test_old_anatomies_without_structures_keep_their_findings() -> None:
    anatomy = replace(half(Tissue.MASS, Structure.MASS, "Mass"), structures=None)
    assert anatomy.cropped(RIGHT).pathologies == ("Mass",)


def test_the_findings_of_known_place_exist() -> None:
    drawn = {*BRAIN_FINDINGS, *KNEE_FINDINGS, "Edema", "Posttreatment change"}
    assert {*STRUCTURES, *TISSUES} <= drawn


def test_prompts_of_crops_name_the_masses_that_they_show() -> None:
    drawn = [brain_anatomy(seeded(seed), size=96, finding="Mass") for seed in range(6)]
    bank = AnatomyBank.build([one for one in drawn if "Mass" in one.pathologies])
    slices = PhantomSlices(bank, field_of_view=0.4)
    named = []
    for number in range(40):
        item = slices.draw(number, 32)
        shown = int((item["anatomy"].structures == Structure.MASS).sum())
        named.append("Mass" in item["metadata"].pathologies)
        assert named[-1] == (shown >= 12)
    assert 5 < sum(named) < 40


def test_enlarged_ventricles_are_named_where_there_are_ventricles() -> None:
    named = 0
    for seed in range(60):
        one = brain_anatomy(seeded(seed), size=64, finding="Enlarged ventricles")
        assert one.structures is not None
        area = float((one.structures == Structure.VENTRICLES).sum()) * one.voxel_mm**2
        assert (one.pathologies == ("Enlarged ventricles",)) == (area >= 250)
        named += len(one.pathologies)
    assert 15 < named < 45
