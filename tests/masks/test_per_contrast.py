"""Masks of several contrasts that share a budget."""

from __future__ import annotations

import pytest
import torch
from gaussian import seeded
from samplers import build

from ctxrecon.masks.learned import (
    PerContrastSampler,
)

# PerContrastSampler


def test_shares_are_the_papers_formula_where_nothing_is_clipped():
    sampler = build("per_contrast", (4, 120), learn_split=True, center_fraction=0.05)
    with torch.no_grad():
        sampler.split.copy_(torch.tensor([0.5, -0.3, 0.1]))
    expected = 3 * 0.25 * torch.softmax(sampler.split.detach().double(), dim=0)
    torch.testing.assert_close(sampler.shares().detach(), expected)


@pytest.mark.parametrize("contrasts", [1, 2, 5])
@pytest.mark.parametrize("acceleration", [1, 2, 3.7, 4, 8, 16, 32])
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, 50.0])
def test_the_mean_over_contrasts_is_the_total(contrasts, acceleration, scale):
    torch.manual_seed(0)
    sampler = PerContrastSampler(
        (4, 101), contrasts, 4, learn_split=True, center_fraction=0.02
    ).eval()
    with torch.no_grad():
        sampler.split.copy_(scale * torch.randn(contrasts, generator=seeded(7)))
    count = round(101 / acceleration)
    shares = sampler.shares(acceleration).detach()
    assert float(shares.mean()) == pytest.approx(count / 101, rel=1e-12)
    assert float(shares.min()) >= 2 / 101 - 1e-12
    assert float(shares.max()) <= 1 + 1e-12
    counts = sampler.line_counts(acceleration)
    assert sum(counts) == contrasts * count
    assert all(abs(n - 101 * float(share)) < 1 for n, share in zip(counts, shares, strict=True))
    mask = sampler(acceleration, generator=seeded(0))
    assert mask.shape == (1, contrasts, 1, 4, 101)
    assert mask[0, :, 0, 0].sum(dim=1).tolist() == counts
    assert sampler.accelerations(acceleration) == [101 / n for n in counts]
    expected = sampler.probabilities(acceleration).detach()[0, :, 0, 0].double().sum(dim=1)
    torch.testing.assert_close(expected, 101 * shares, rtol=1e-5, atol=0)


def test_the_split_is_learned():
    """A contrast that is worth more gets more lines, at the cost of the others."""
    sampler = build("per_contrast", (2, 80), learn_split=True)
    optimizer, source = torch.optim.Adam(sampler.parameters(), lr=0.05), seeded(0)
    for _ in range(40):
        optimizer.zero_grad()
        lines = sampler.relaxed(batch_size=4, generator=source)[..., 0, :].sum(dim=(-1, -2))
        (-(lines * torch.tensor([3.0, 1.0, 1.0])).mean()).backward()
        optimizer.step()
    counts = sampler.eval().line_counts()
    assert counts[0] > 30
    assert sum(counts) == 60


def test_shared_and_individual_masks():
    shared, own = build("per_contrast", shared=True), build("per_contrast")
    for method in ("forward", "relaxed"):
        masks = getattr(shared, method)(batch_size=2, generator=seeded(0))
        assert masks.shape == (2, 3, 1, 8, 64)
        assert torch.equal(masks, masks[:, :1].expand_as(masks))
        masks = getattr(own, method)(batch_size=2, generator=seeded(0))
        assert not torch.equal(masks[:, 0], masks[:, 1])
    assert shared.line_counts() == own.line_counts() == [16, 16, 16]
    assert shared.shares().tolist() == [0.25] * 3
