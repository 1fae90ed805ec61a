"""Masks of a network that knows the acceleration."""

from __future__ import annotations

import pytest
import torch
from gaussian import seeded
from samplers import build

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import (
    FixedMasks,
    PatternGenerator,
)

PUBLISHED = {"embedding": 1, "width": 16, "center_fraction": 0.0, "exact": False}


def test_the_network_is_asked_once_for_many_masks():
    sampler = PatternGenerator((320, 320), lines=False).eval()
    asked = []
    sampler.network.register_forward_hook(lambda *_: asked.append(1))
    source = seeded(0)
    masks = [sampler(8, generator=source) for _ in range(5)]
    assert len(asked) == 1
    assert not torch.equal(masks[0], masks[1])
    sampler(4, generator=source)
    assert len(asked) == 2


@pytest.mark.parametrize("tolerance", [0.02, 0.0])
def test_tosses_are_repeated_until_the_ratio_is_right(tolerance):
    sampler = build("pattern_generator", (4, 96), tolerance=tolerance)
    masks = sampler.relaxed(6, batch_size=60, generator=seeded(0)).detach()
    error = (masks[:, 0, 0].mean(dim=1) - 16 / 96).abs()
    assert float(error.max()) <= tolerance + 1e-6
    if tolerance:
        assert float(error.max()) > 0.005, "the ratio is not exact but within the tolerance"


@pytest.mark.parametrize("kind", ["pattern_generator", "loupe"])
def test_a_diverged_sampler_says_so(kind):
    sampler = build(kind)
    with torch.no_grad():
        for value in sampler.parameters():
            value.fill_(torch.nan)
    with pytest.raises(InputError, match="training has diverged"):
        sampler.relaxed(4, generator=seeded(0))


def test_the_pattern_depends_on_the_ratio():
    """Not only in size: another ratio has its own order of positions."""
    sampler = build("pattern_generator", (1, 256)).eval()
    with torch.no_grad():
        few, many = sampler.preferences(1 / 16)[0], sampler.preferences(1 / 2)[0]
    assert not torch.equal(few.argsort(), many.argsort())


def test_a_narrow_range_of_ratios_changes_the_pattern_as_much_as_a_wide_one():
    """Otherwise training could hardly distinguish ratios that differ by a few percent."""
    ends = []
    for low, high in ((0.1, 0.9), (0.1, 0.12)):
        torch.manual_seed(0)
        sampler = build("pattern_generator", (1, 256), ratios=(low, high))
        ends.append(torch.stack([sampler.preferences(ratio) for ratio in (low, high)]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-4, atol=1e-5)
    assert float((ends[0][0] - ends[0][1]).abs().max()) > 0.05


def test_accelerations_are_drawn_by_ratio():
    sampler = build("pattern_generator", ratios=(0.1, 0.4))
    source = seeded(0)
    drawn = 1 / torch.tensor([sampler.draw_acceleration(source) for _ in range(2000)])
    assert 0.1 <= float(drawn.min()) < 0.102
    assert 0.398 < float(drawn.max()) <= 0.4
    assert float(drawn.mean()) == pytest.approx(0.25, abs=0.01)


def test_probabilities_do_not_depend_on_autocast():
    sampler = build("pattern_generator")
    expected = sampler.probabilities(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sampler.probabilities(4), expected)


def test_impossible_ratios_are_refused_at_once():
    with pytest.raises(InputError, match="more than the"):
        PatternGenerator((16, 64), (1 / 32, 1 / 2), center_fraction=0.08)


def test_the_published_generator_is_small_and_keeps_no_center():
    sampler = PatternGenerator((128, 128), (0.05, 0.3), lines=False, **PUBLISHED)
    count = sum(value.numel() for value in sampler.parameters())
    assert count == pytest.approx(16_400, abs=50)
    assert not bool(sampler.budget(8).center.any())
    probabilities = sampler.probabilities(8)
    assert float(probabilities.max()) < 1
    assert float(probabilities.mean()) == pytest.approx(1 / 8, rel=1e-4)


@pytest.mark.parametrize("lines", [True, False])
def test_rejection_sampling_is_within_the_tolerance(lines, tmp_path):
    made = PatternGenerator((24, 96), (0.1, 0.5), lines=lines, tolerance=0.02, **PUBLISHED)
    made.save_pretrained(tmp_path)
    sampler = PatternGenerator.from_pretrained(tmp_path)
    masks = sampler(6, 60, seeded(0))
    assert masks.dtype == torch.bool
    shares = masks.flatten(1).double().mean(dim=1)
    assert float((shares - 1 / 6).abs().max()) <= 0.02 + 1e-6
    assert len(set(shares.tolist())) > 1, "the number is not exact"
    assert torch.equal(masks, sampler.relaxed(6, 60, seeded(0)).bool())
    exact = PatternGenerator((24, 96), (0.1, 0.5), lines=lines)
    assert len(set(exact(6, 60, seeded(0)).flatten(1).sum(dim=1).tolist())) == 1


@pytest.mark.parametrize("kind", ["generator", "fixed"])
def test_each_mask_may_have_an_acceleration_of_its_own(kind):
    sampler = build("pattern_generator", ratios=(0.1, 0.5))
    if kind == "fixed":
        sampler = FixedMasks((8, 64), ratios=(0.1, 0.5))
    each = [2.0, 4.0, 9.0]
    masks = sampler.relaxed(each, 3, [seeded(n) for n in range(3)])
    for n, acceleration in enumerate(each):
        assert torch.equal(masks[n : n + 1], sampler.relaxed(acceleration, 1, seeded(n)))
        assert float(masks[n].detach().mean()) == pytest.approx(1 / acceleration, abs=0.02)
    with pytest.raises(InputError, match="3, one per mask, got 2"):
        sampler.relaxed([2.0, 4.0], 3)


@pytest.mark.parametrize("kind", ["generator", "fixed"])
def test_an_acceleration_outside_the_range_of_training_warns(kind, caplog):
    sampler = build("pattern_generator", ratios=(0.125, 0.5))
    if kind == "fixed":
        sampler = FixedMasks((8, 64), ratios=(0.125, 0.5))
    for acceleration in (8, 2, 3.3):
        sampler(acceleration)
    assert "range" not in caplog.text
    sampler(12)
    assert "acceleration 12 lies outside the range used in training, 2 to 8" in caplog.text
