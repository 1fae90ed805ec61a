"""Structures of anatomies, carried by everything that changes one, and raters who mark them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from gaussian import seeded
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metrics import class_masks, generalized_energy_distance, iou
from ctxrecon.phantom import (
    SEGMENTATIONS,
    Anatomy,
    AnatomyBank,
    PhantomSlices,
    Raters,
    Structure,
    Subject,
    Tissue,
    anatomy_from_labels,
    brain_anatomy,
    knee_anatomy,
)
from ctxrecon.phantom.build import build_bank


def mass(seed: int = 0, size: int = 128) -> Anatomy:
    return brain_anatomy(seeded(seed), size=size, finding="Mass")


def knee(seed: int = 1, size: int = 128) -> Anatomy:
    """One through the middle of the joint."""
    source = seeded(seed)
    while True:
        drawn = knee_anatomy(source, size=size)
        if 15 <= present(drawn.slice) <= 24:
            return drawn


def disk(radius: float, rim: float = 0.0, size: int = 128) -> Anatomy:
    """A mass with a rim of edema in white matter."""
    y, x = np.mgrid[:size, :size] - size // 2
    distance = np.hypot(x, y)
    labels = np.where(distance < 50, Tissue.WHITE_MATTER, Tissue.AIR).astype(np.uint8)
    labels[distance < radius + rim] = Tissue.WHITE_MATTER_LESION
    labels[distance < radius] = Tissue.CSF
    structures = np.zeros_like(labels)
    structures[distance < radius + rim] = Structure.EDEMA
    structures[distance < radius] = Structure.MASS
    return Anatomy("brain", labels, 1.0, 8, (), structures)


class TestStructures:
    def test_a_mass_holds_its_necrosis(self):
        seen = 0
        for seed in range(8):
            drawn = mass(seed)
            marked = present(drawn.structures) == Structure.MASS
            assert bool(marked[drawn.labels == Tissue.MASS].all())
            assert set(np.unique(drawn.labels[marked])) <= {Tissue.MASS, Tissue.CSF}
            edema = present(drawn.structures) == Structure.EDEMA
            assert set(np.unique(drawn.labels[edema])) <= {Tissue.WHITE_MATTER_LESION}
            seen += int((marked & (drawn.labels == Tissue.CSF)).sum())
        assert seen > 20

    def test_ventricles_are_part_of_the_fluid(self):
        source = seeded(0)
        drawn = [brain_anatomy(source, size=128) for _ in range(40)]
        for one in drawn:
            marked = present(one.structures) == Structure.VENTRICLES
            assert set(np.unique(one.labels[marked])) <= {Tissue.CSF}
            if marked.any():  # near the middle, where sulci are not
                assert np.abs(np.argwhere(marked) - 64).max() < 50
        assert sum(bool((present(a.structures) == Structure.VENTRICLES).any()) for a in drawn) > 10
        middle = [a for a in drawn if a.slice in (7, 8, 9)]
        assert all((present(a.structures) == Structure.VENTRICLES).sum() > 20 for a in middle)

    def test_knees(self):
        drawn = knee()
        marked = present(drawn.structures)
        wanted = np.isin(drawn.labels, (Tissue.MENISCUS, Tissue.MENISCUS_TEAR))
        np.testing.assert_array_equal(marked == Structure.MENISCUS, wanted)
        np.testing.assert_array_equal(
            marked == Structure.CARTILAGE, drawn.labels == Tissue.CARTILAGE
        )
        assert wanted.any()

    def test_label_volumes(self):
        volume = np.full((40, 60, 60), 2, np.int16)
        volume[:, 20:40, 20:40] = 4
        drawn = anatomy_from_labels(volume, 0.5, np.random.default_rng(0), size=64, voxel_mm=1.0)
        marked = present(drawn.structures) == Structure.VENTRICLES
        np.testing.assert_array_equal(marked, drawn.labels == Tissue.CSF)
        assert marked.sum() > 300

    def test_an_unknown_finding(self):
        with pytest.raises(InputError, match="Flu"):
            brain_anatomy(seeded(0), finding="Flu")


class TestBank:
    def test_round_trip_and_parts(self, tmp_path):
        drawn = [mass(), knee(), mass(3)]
        AnatomyBank.build(drawn, [0, 1, 2]).save(tmp_path / "bank.npz")
        bank = AnatomyBank.load(tmp_path / "bank.npz")
        for number, one in enumerate(drawn):
            np.testing.assert_array_equal(present(bank[number].structures), one.structures)
        masses = bank.showing([Structure.MASS])
        assert masses.names == ("brain", "brain")
        np.testing.assert_array_equal(present(masses[1].structures), drawn[2].structures)
        first, second = bank.split(0.34)
        assert len(present(first.structures)) + len(present(second.structures)) == 3
        assert bank.of_anatomy("knee").showing([Structure.MENISCUS]).names == ("knee",)

    def test_a_bank_of_before_loads(self, tmp_path):
        old = replace(AnatomyBank.build([mass(), mass(3)]), structures=None)
        old.save(tmp_path / "old.npz")
        bank = AnatomyBank.load(tmp_path / "old.npz")
        np.testing.assert_array_equal(bank[1].labels, old[1].labels)
        assert bank[0].structures is None
        assert bank[0].mirrored().structures is None
        assert bank.split(0.5)[0].structures is None
        with pytest.raises(InputError, match="make the bank again"):
            bank.showing([Structure.MASS])
        with pytest.raises(InputError, match="make the bank again"):
            Raters(SEGMENTATIONS["mass"]).segment(bank[0], (64, 64), slice_seed=0)

    def test_nothing_shows_it(self):
        with pytest.raises(InputError, match="shows mass"):
            AnatomyBank.build([knee()]).showing([Structure.MASS])

    def test_a_bank_of_one_finding(self):
        bank = build_bank(brains=4, size=64, finding="Mass", progress=False)
        assert sum("Mass" in found for found in bank.pathologies) >= 3
        with pytest.raises(InputError, match="Flu"):
            build_bank(brains=1, size=64, finding="Flu", progress=False)

    @pytest.mark.parametrize("part", [1.0, 0.5])
    def test_flips_and_zooms_carry_the_segmentation(self, part):
        bank = AnatomyBank.build([knee()])
        slices = PhantomSlices(bank, resolution=32, field_of_view=part)
        corners = set()
        for number in range(8):
            shown = slices.draw(number, 32)["anatomy"]
            wanted = np.isin(shown.labels, (Tissue.MENISCUS, Tissue.MENISCUS_TEAR))
            np.testing.assert_array_equal(shown.structures == Structure.MENISCUS, wanted)
            corners.add(shown.structures.tobytes())
        assert len(corners) == (2 if part == 1 else 8)


class TestRaters:
    EXACT = Raters(SEGMENTATIONS["mass"], bias_std=0, field_std=0)

    def test_without_spread_they_find_the_truth(self):
        for drawn in (mass(), disk(20.0)):
            found = self.EXACT.segment(drawn, drawn.labels.shape, slice_seed=0)
            assert found.shape == (6, 128, 128)
            for one in found:
                np.testing.assert_array_equal(one == 1, drawn.structures == Structure.MASS)

    def test_they_lie_where_the_image_shows_it(self):
        drawn = disk(20.0)
        subject = Subject.draw(drawn, 3.0, np.random.default_rng(0), bias=0.0)
        t2 = ScanMetadata(contrast="T2", sequence="TurboSpinEcho", tr=5000, te=110, flip_angle=150)
        for n in (64, 48):  # fine pixels are a half and three eighths of these
            image = np.abs(subject.image(t2, (n, n), np.random.default_rng(1), phase=0.0))
            bright = torch.from_numpy(image > 0.65 * np.quantile(image, 0.99))
            found = torch.from_numpy(self.EXACT.segment(drawn, (n, n), slice_seed=0)[0] == 1)
            here = float(iou(found, bright))
            assert here > 0.93
            for shift in ((0, 1), (1, 0), (-1, 0), (0, -1)):
                assert float(iou(found.roll(shift, (0, 1)), bright)) < here - 0.04

    def test_a_bias_is_the_raters_and_a_field_the_slices(self):
        raters = Raters(SEGMENTATIONS["mass"], field_std=0.0, seed=3)
        areas = raters.segment(disk(20.0), (128, 128), slice_seed=0).sum(axis=(1, 2))
        again = raters.segment(disk(20.0), (128, 128), slice_seed=9).sum(axis=(1, 2))
        np.testing.assert_array_equal(areas, again)
        for rater, area in enumerate(areas):
            assert np.sqrt(area / np.pi) == pytest.approx(20 - raters.bias(rater), abs=0.35)
        biases = [raters.bias(rater) for rater in range(2000)]
        assert np.std(biases) == pytest.approx(0.7, rel=0.05)

        raters = Raters(SEGMENTATIONS["mass"], bias_std=0.0)
        fields = np.stack([raters._field((96, 96), np.random.default_rng(n)) for n in range(60)])
        assert fields.std() == pytest.approx(1.0, rel=0.06)
        step = np.diff(fields, axis=1).std()
        assert step < 0.2  # smooth: hardly another in the next pixel
        one, other = (raters.segment(disk(20.0), (64, 64), slice_seed=n) for n in (0, 1))
        assert not np.array_equal(one, other)

    def test_rater_j_does_not_depend_on_the_others(self):
        raters = Raters(SEGMENTATIONS["mass_or_edema"])
        some = raters.segment(disk(12.0, 6.0), (64, 64), slice_seed=5, raters=[7, 2])
        many = raters.segment(disk(12.0, 6.0), (64, 64), slice_seed=5, raters=range(8))
        np.testing.assert_array_equal(some, many[[7, 2]])

    def test_half_of_them_take_the_edema(self):
        raters = Raters(SEGMENTATIONS["mass_or_edema"], bias_std=0, field_std=0)
        # |B∖A| = |A|, as in the example that the bounds are known of.
        drawn = disk(20.0, 20 * (2**0.5 - 1))
        found = class_masks(
            torch.from_numpy(raters.segment(drawn, (128, 128), slice_seed=0, raters=range(20))), 2
        )
        core, whole = found[0], found[1]
        assert float(iou(core, whole)) == pytest.approx(0.5, abs=0.01)
        assert bool((core <= whole).all())
        assert all(torch.equal(one, (core, whole)[j % 2]) for j, one in enumerate(found))

        def distance(samples: torch.Tensor) -> float:
            return float(generalized_energy_distance(samples, found))

        half = distance(core[None])
        assert half == pytest.approx(0.25, abs=0.03)
        assert distance(whole[None]) == pytest.approx(0.25, abs=0.03)
        assert distance(torch.stack([core, whole] * 8)) == pytest.approx(0, abs=0.05)
        pixels = torch.rand((64, *core.shape), generator=seeded(0)) < 0.5
        independent = core | (whole & pixels)
        assert distance(independent) == pytest.approx(0.048, abs=0.03)

    def test_several_classes(self):
        drawn = knee()
        exact = Raters(SEGMENTATIONS["cartilage_and_meniscus"], bias_std=0, field_std=0)
        found = exact.segment(drawn, (128, 128), slice_seed=0, raters=[0])[0]
        np.testing.assert_array_equal(found == 1, drawn.structures == Structure.CARTILAGE)
        np.testing.assert_array_equal(found == 2, drawn.structures == Structure.MENISCUS)
        assert exact.segmentation.num_classes == 3

    def test_what_is_not_there_is_not_marked(self):
        source = seeded(4)
        drawn = brain_anatomy(source, size=64, finding="Enlarged ventricles")
        assert not Raters(SEGMENTATIONS["mass"]).segment(drawn, (32, 32), slice_seed=0).any()

    def test_refusals(self):
        with pytest.raises(InputError, match="brain"):
            self.EXACT.segment(knee(), (64, 64), slice_seed=0)
        with pytest.raises(InputError, match="bias_std"):
            Raters(SEGMENTATIONS["mass"], bias_std=-1)
