"""Metrics of segmentations and probabilities: examples by hand, and installed libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian import seeded

from ctxrecon.errors import InputError
from ctxrecon.metrics import (
    auroc,
    bootstrap_interval,
    brier_score,
    class_masks,
    dice,
    expected_calibration_error,
    generalized_energy_distance,
    iou,
    macro_auroc,
    majority,
    segmentation_metrics,
)

A = torch.tensor([[True, True, False, False]])
B = torch.tensor([[True, True, True, True]])
NONE = torch.zeros(1, 4, dtype=torch.bool)


class TestOverlap:
    def test_hand_examples(self):
        assert float(dice(A, B)) == pytest.approx(2 * 2 / 6)
        assert float(iou(A, B)) == pytest.approx(2 / 4)
        assert float(dice(A, A)) == float(iou(B, B)) == 1

    def test_empty_masks(self):
        assert float(dice(NONE, NONE)) == float(iou(NONE, NONE)) == 1
        assert float(dice(A, NONE)) == float(iou(NONE, A)) == 0

    def test_shapes_are_broadcast(self):
        several = torch.stack([A, B, NONE])
        torch.testing.assert_close(iou(several, B[None]), torch.tensor([0.5, 1, 0]).double())

    def test_labels_as_masks(self):
        labels = torch.tensor([[0, 1, 2, 2]])
        found = class_masks(labels, 4)
        assert found.shape == (3, 1, 4)
        assert found.sum(dim=(-2, -1)).tolist() == [1, 2, 0]

    def test_refusals(self):
        with pytest.raises(InputError, match="bool"):
            dice(A.float(), B)
        with pytest.raises(InputError, match="one shape"):
            iou(A, B[:, :3])
        with pytest.raises(InputError, match="0 to 1"):
            class_masks(torch.tensor([[0, 2]]), 2)
        with pytest.raises(InputError, match="whole-number"):
            class_masks(torch.tensor([[0.0, 1.0]]), 2)


def draws(number: int, share: float, source: torch.Generator) -> torch.Tensor:
    """B with this probability, else A: ``(number, 1, 1, 4)``."""
    wide = torch.rand(number, generator=source) < share
    return torch.where(wide[:, None, None], B, A)[:, None]


class TestEnergyDistance:
    def test_two_points(self):
        """P(B) = p against P(B) = q is ``2 d(A, B) (p − q)²``."""
        exact = torch.stack([B, A, A, A])[:, None], torch.stack([B, B, B, A])[:, None]
        across = 2 * 0.5 * (1 / 4 * 1 / 4 + 3 / 4 * 3 / 4)
        within = 2 * 3 / (4 * 3) * 0.5
        expected = across - within - within
        assert float(generalized_energy_distance(*exact)) == pytest.approx(expected)
        source = seeded(0)
        found = [
            generalized_energy_distance(draws(16, 0.25, source), draws(16, 0.75, source))
            for _ in range(300)
        ]
        assert float(torch.stack(found).mean()) == pytest.approx(2 * 0.5 * 0.25, abs=0.02)

    def test_equal_distributions_are_at_distance_0_on_average(self):
        source = seeded(1)
        found = torch.stack(
            [
                generalized_energy_distance(draws(4, 0.5, source), draws(6, 0.5, source))
                for _ in range(2000)
            ]
        )
        # With the diagonal it would be 0.25 · (1/4 + 1/6) ≈ 0.104.
        assert abs(float(found.mean())) < 4 * float(found.std()) / 2000**0.5 < 0.02

    def test_no_deterministic_prediction_is_below_half_of_the_distance(self):
        """The raters' halves A ⊂ B."""
        raters = torch.stack([A, B])[:, None].repeat(500, 1, 1, 1)
        for prediction in (A, B):
            found = generalized_energy_distance(prediction[None, None], raters)
            assert float(found) == pytest.approx(0.5 * 0.5, abs=1e-3)
            bound = segmentation_metrics(prediction[None, None], raters)["reference_diversity"]
            assert float(found) == pytest.approx(float(bound), abs=2e-3)
        # Another mask in between is nearer to neither than half of their distance.
        middle = torch.tensor([[True, True, True, False]])
        assert float(generalized_energy_distance(middle[None, None], raters)) > 0.25

    @pytest.mark.parametrize("count", [2, 4, 10])
    def test_the_bound_of_a_few_raters(self, count):
        """For R raters of two opinions at the distance d it is ``d − R d / (2 (R − 1))``."""
        raters = torch.stack([A, B])[:, None].repeat(count // 2, 1, 1, 1)
        for prediction in (A, B):
            found = segmentation_metrics(prediction[None, None], raters)
            diversity = count / (2 * (count - 1)) * 0.5
            assert float(found["reference_diversity"]) == pytest.approx(diversity)
            assert float(found["ged"]) == pytest.approx(0.5 - diversity)

    def test_classes_and_batches(self):
        two = torch.stack([A, NONE])[None]  # one draw, two classes
        other = torch.stack([B, NONE])[None]
        batch = torch.stack([two, two]), torch.stack([other, two])
        found = generalized_energy_distance(*batch)
        torch.testing.assert_close(found, torch.tensor([2 * 0.5 / 2, 0]).double())

    def test_majority_and_metrics(self):
        samples, raters = torch.stack([A, A, B])[:, None], torch.stack([B, B, A])[:, None]
        assert torch.equal(majority(samples)[0], A)
        assert torch.equal(majority(torch.stack([A, B])[:, None])[0], A)  # no more than half
        found = segmentation_metrics(samples, raters)
        assert float(found["dice_majority"]) == pytest.approx(2 / 3)
        assert float(found["dice"]) == pytest.approx((4 * 1 + 5 * 2 / 3) / 9)
        assert float(found["diversity"]) == pytest.approx(2 / 3 * 0.5)
        assert float(found["ged"]) == pytest.approx(2 * 0.5 * 5 / 9 - 2 / 3 * 0.5 * 2)

    def test_refusals(self):
        with pytest.raises(InputError, match="raters"):
            generalized_energy_distance(A[None], B[None, None])
        with pytest.raises(InputError, match="bool"):
            generalized_energy_distance(A[None, None].float(), B[None, None])


class TestCalibration:
    def test_hand_example(self):
        p = torch.tensor([0.05, 0.05, 0.95, 1.0])
        z = torch.tensor([0, 1, 1, 1])
        # Bins [0, 0.1) and [0.9, 1]: |0.05 − 0.5| and |0.975 − 1|, two values each.
        assert expected_calibration_error(p, z) == pytest.approx(0.5 * 0.45 + 0.5 * 0.025)
        assert expected_calibration_error(p, z, bins=1) == pytest.approx(abs(p.mean() - 0.75))
        assert brier_score(p, z) == pytest.approx((0.05**2 + 0.95**2 + 0.05**2) / 4)

    def test_what_is_calibrated(self):
        source = seeded(0)
        p = torch.rand(200_000, generator=source)
        z = torch.rand(200_000, generator=source) < p
        assert expected_calibration_error(p, z) < 0.01
        assert brier_score(p, z) == pytest.approx(1 / 6, abs=0.01)
        assert expected_calibration_error(1 - p, z) > 0.3

    def test_every_rater_counts(self):
        p = torch.full((1, 2, 2), 0.5)
        raters = torch.stack([torch.ones(2, 2), torch.zeros(2, 2)])
        assert expected_calibration_error(p, raters) == 0
        assert brier_score(p, raters) == 0.25

    def test_refusals(self):
        with pytest.raises(InputError, match="0 to 1"):
            brier_score(torch.tensor([1.2]), torch.tensor([1]))
        with pytest.raises(InputError, match="one shape"):
            brier_score(torch.rand(3), torch.ones(2))
        with pytest.raises(InputError, match="bins"):
            expected_calibration_error(torch.rand(3), torch.ones(3), bins=0)

    def test_as_scikit_learn(self):
        metrics = pytest.importorskip("sklearn.metrics")
        p = torch.rand(500, generator=seeded(2))
        z = torch.rand(500, generator=seeded(3)) < 0.4
        assert brier_score(p, z) == pytest.approx(metrics.brier_score_loss(z, p))


class TestScores:
    def test_hand_examples(self):
        assert auroc([1, 2, 3, 4], [0, 0, 1, 1]) == 1
        assert auroc([4, 3, 2, 1], [0, 0, 1, 1]) == 0
        assert auroc([1, 1, 1, 1], [0, 1, 0, 1]) == 0.5
        assert auroc([1, 2, 2, 3], [0, 0, 1, 1]) == pytest.approx((4 - 0.5) / 4)
        assert np.isnan(auroc([1, 2], [1, 1]))

    def test_findings(self):
        scores = np.array([[1, 0, 5], [2, 1, 6], [3, 0, 7]])
        truth = np.array([[0, 1, 1], [0, 0, 1], [1, 0, 1]])
        assert macro_auroc(scores, truth) == pytest.approx((1 + 0.25) / 2)
        assert np.isnan(macro_auroc(scores[:, 2:], truth[:, 2:]))

    def test_as_scikit_learn(self):
        metrics = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(0)
        truth = rng.random(300) < 0.3
        scores = np.round(rng.standard_normal(300) + truth, 1)  # with ties
        assert auroc(scores, truth) == pytest.approx(metrics.roc_auc_score(truth, scores))

    def test_the_interval_is_of_people(self):
        rng = np.random.default_rng(0)
        means = rng.standard_normal(40)
        people = np.repeat(np.arange(40), 25)
        values = np.repeat(means, 25)

        def width(owners):
            low, high = bootstrap_interval(lambda rows: float(values[rows].mean()), owners)
            return high - low

        expected = 2 * 1.96 * means.std() / 40**0.5
        assert width(people) == pytest.approx(expected, rel=0.15)
        assert width(np.arange(1000)) == pytest.approx(expected / 5, rel=0.15)

    def test_undefined_resamples_are_left_out(self):
        scores, truth = np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1])
        interval = bootstrap_interval(lambda rows: auroc(scores[rows], truth[rows]), [0, 1, 2])
        assert interval == (1.0, 1.0)
        assert all(np.isnan(bootstrap_interval(lambda rows: float("nan"), ["a", "b"])))

    def test_refusals(self):
        with pytest.raises(InputError, match="0 and 1"):
            auroc([1, 2], [0, 2])
        with pytest.raises(InputError, match="finite"):
            auroc([1, float("nan")], [0, 1])
        with pytest.raises(InputError, match="one shape"):
            macro_auroc(np.ones((2, 2)), np.ones(2))
        with pytest.raises(InputError, match="level"):
            bootstrap_interval(lambda rows: 0.0, [0], level=1.5)
