"""Masks of a network that knows the acceleration."""

from __future__ import annotations

import pytest
import torch
from gaussian import seeded
from samplers import build

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import (
    PatternGenerator,
)


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


def test_a_diverged_generator_says_so():
    sampler = build("pattern_generator")
    with torch.no_grad():
        sampler.embeddings.fill_(torch.nan)
    with pytest.raises(InputError, match="training has diverged"):
        sampler.relaxed(4, generator=seeded(0))


def test_the_pattern_depends_on_the_ratio():
    """Not only in size: another ratio has its own order of positions."""
    sampler = build("pattern_generator", (1, 256)).eval()
    with torch.no_grad():
        few, many = sampler.preferences(1 / 16)[0], sampler.preferences(1 / 2)[0]
    assert not torch.equal(few.argsort(), many.argsort())


def test_a_narrow_range_of_ratios_changes_the_pattern_as_much_as_a_wide_one():
    """Else some percent more or less would hardly be told apart in training."""
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
