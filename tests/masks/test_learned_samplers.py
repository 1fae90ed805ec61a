"""Learned samplers: exact budgets, what is expected of training masks, gradients, files."""

from __future__ import annotations

import pytest
import torch
from gaussian import seeded
from samplers import OPTIONS, build

from ctxrecon.errors import InputError
from ctxrecon.masks import uniform1d, variable_density2d
from ctxrecon.masks.learned import (
    LOUPE,
    SAMPLERS,
    PatternGenerator,
    PerContrastSampler,
    kspace_energy,
    spectrum_mask,
)
from ctxrecon.operators import WeightedSense

SHAPES = [(8, 64), (9, 65), (40, 36), (33, 47)]
ACCELERATIONS = [2, 3.7, 4, 6, 8, 16, 32]


@pytest.fixture(params=tuple(OPTIONS))
def name(request) -> str:
    return request.param


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_budget_is_that_of_other_masks(name, shape, lines):
    sampler = build(name, shape, lines=lines).eval()
    draw = uniform1d if lines else variable_density2d
    for acceleration in ACCELERATIONS:
        other = draw(shape, acceleration, generator=seeded(0))
        for seed in range(3):
            mask = sampler(acceleration=acceleration, generator=seeded(seed))
            assert mask.dtype == torch.bool
            assert mask.shape[-3:] == (1, *shape)
            counts = mask.flatten(-2).sum(dim=-1)
            assert bool((counts == other.sum()).all()), acceleration
            if lines:
                assert torch.equal(mask, mask[..., :1, :].expand_as(mask))


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("shape", [(16, 320), (33, 47)])
def test_the_center_is_that_of_other_masks(name, shape, lines):
    draw = uniform1d if lines else variable_density2d
    for fraction in (None, 0.1, 0.0):
        arguments = () if fraction is None else (fraction,)
        always = draw(shape, 8, *arguments, batch_size=60, generator=seeded(0)).all(dim=0)
        ratios = {"ratios": (1 / 8, 1 / 2)} if name == "pattern_generator" else {}
        sampler = build(name, shape, lines=lines, center_fraction=fraction, **ratios)
        with torch.no_grad():
            sure = sampler.probabilities(8)[0] == 1
        # Chance alone keeps no line in 60 masks; single samples near the centre it may.
        assert bool((always >= sure).all() if not lines else (always == sure).all())
        masks = sampler(8, 3, seeded(0))
        assert bool((masks >= sure).all())
        size = round(shape[1] * (0.04 if fraction is None else fraction))
        if not lines:
            fraction = 0.08 if fraction is None else fraction
            size = round(shape[0] * fraction) * round(shape[1] * fraction)
        assert int(sure.flatten(-2).sum(-1).amax()) == size * (shape[0] if lines else 1)


@pytest.mark.parametrize("lines", [True, False])
def test_the_mean_probability_is_the_ratio(name, lines):
    for shape in SHAPES[1:]:
        sampler = build(name, shape, lines=lines)
        for acceleration in (2, 3.7, 8):
            with torch.no_grad():
                probabilities = sampler.probabilities(acceleration)
            budget = sampler.budget(acceleration)
            total = probabilities[0].double().flatten(-2).sum(dim=-1)
            expected = budget.count * (shape[0] if lines else 1)
            torch.testing.assert_close(total, torch.full_like(total, expected), rtol=1e-6, atol=0)
            assert bool(((probabilities >= 0) & (probabilities <= 1)).all())


def test_training_masks_are_tosses_of_the_probabilities():
    for sampler in (build("loupe"), build("per_contrast")):
        masks = sampler.relaxed(batch_size=4000, generator=seeded(0)).detach()[..., 0, :]
        assert bool(((masks == 0) | (masks == 1)).all())
        probabilities = sampler.probabilities().detach()[0, ..., 0, :]
        deviation = (probabilities * (1 - probabilities) / 4000).sqrt()
        assert bool(((masks.mean(dim=0) - probabilities).abs() <= 5 * deviation + 1e-6).all())
        # Independent: the count of a mask varies as a sum of tosses does.
        variance = (probabilities * (1 - probabilities)).sum(dim=-1)
        torch.testing.assert_close(masks.sum(dim=-1).var(dim=0), variance, rtol=0.15, atol=0)


@pytest.mark.parametrize("acceleration", [2, 8])
def test_exact_masks_follow_the_probabilities(acceleration):
    sampler = build("loupe", (1, 96)).eval()
    masks = sampler(acceleration, 4000, seeded(0))[:, 0, 0].float()
    probabilities = sampler.probabilities(acceleration).detach()[0, 0, 0]
    deviation = (probabilities * (1 - probabilities) / 4000).sqrt()
    error = (masks.mean(dim=0) - probabilities).abs()
    # Pareto sampling is not exact: 0.01 more for 12 lines and up.
    assert bool((error <= 4 * deviation + 0.01).all())
    assert float((masks.mean(dim=0) - probabilities).mean()) == pytest.approx(0, abs=1e-6)


def test_every_parameter_gets_a_gradient(name):
    sampler = build(name, **({"learn_split": True} if name == "per_contrast" else {}))
    masks = sampler.relaxed(4, batch_size=2, generator=seeded(0))
    (masks * torch.rand(masks.shape, generator=seeded(1))).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in sampler.parameters())


def test_training_moves_lines_to_where_they_are_wanted():
    """Descent on a known worth of each line finds the best lines."""
    sampler = build("loupe", (4, 64), center_fraction=0.0625)
    worth = torch.zeros(64)
    worth[torch.randperm(64, generator=seeded(3))[:16]] = 1.0
    worth[30:34] = 1.0
    optimizer, source = torch.optim.Adam(sampler.parameters(), lr=0.05), seeded(0)
    for _ in range(150):
        optimizer.zero_grad()
        masks = sampler.relaxed(batch_size=4, generator=source)
        (-(masks[:, 0, 0] * worth).sum(dim=1).mean()).backward()
        optimizer.step()
    masks = sampler.eval()(batch_size=10, generator=source)[:, 0, 0].float()
    assert float((masks * worth).sum(dim=1).mean()) > 15.5  # of 16


def test_the_same_generator_gives_the_same_masks(name):
    sampler = build(name).eval()
    for method in (sampler, sampler.relaxed):
        batch = method(4, 3, seeded(5))
        assert torch.equal(batch, method(4, 3, seeded(5)))
        one_by_one = seeded(5)
        singles = [method(4, 1, one_by_one) for _ in range(3)]
        assert torch.equal(batch, torch.cat(singles))
        listed = method(4, 3, [seeded(1), seeded(2), seeded(3)])
        assert torch.equal(listed[1:2], method(4, 1, seeded(2)))
        assert not torch.equal(batch[0], batch[1])


def test_save_and_load(name, tmp_path):
    sampler = build(name, lines=False).eval()
    sampler.save_pretrained(tmp_path)
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]
    again = SAMPLERS[name].from_pretrained(tmp_path)
    assert again.shape == (8, 64)
    assert not again.lines
    assert torch.equal(sampler(8, 2, seeded(0)), again(8, 2, seeded(0)))
    assert torch.equal(sampler.probabilities(8), again.probabilities(8))


# LOUPE, PatternGenerator


def test_loupe_starts_with_uniform_probabilities():
    p = build("loupe", (64, 64), lines=False).preferences(0.25).detach().flatten()
    assert 0.01 <= float(p.min()) < 0.02
    assert 0.98 < float(p.max()) <= 0.99
    assert float(p.mean()) == pytest.approx(0.5, abs=0.02)


def refused(sentence, function, *arguments, **options):
    return pytest.param(sentence, function, arguments, options, id=sentence[:40])


@pytest.mark.parametrize(
    ("sentence", "function", "arguments", "options"),
    [
        refused("two positive integers", LOUPE, (8,), 4),
        refused(r"acceleration .* 0\.5", LOUPE, (8, 8), 0.5),
        refused("leaves none of 8 lines", LOUPE, (8, 8), 80),
        refused("4 lines", LOUPE, (8, 8), 4, center_fraction=0.5),
        refused("16 samples", LOUPE, (8, 8), 8, False, 0.5),
        refused("center_fraction` between 0 and 1", LOUPE, (8, 8), 4, center_fraction=2.0),
        refused("positive `slope`, got 0", LOUPE, (8, 8), 2, slope=0),
        refused("contrasts as a whole number", PerContrastSampler, (8, 8), 0, 2),
        refused("a shared mask", PerContrastSampler, (8, 8), 2, 2, shared=True, learn_split=True),
        refused(r"ratios` \(r_min, r_max\)", PatternGenerator, (8, 8), (0.5, 0.2)),
        refused(r"ratios` \(r_min, r_max\) within", PatternGenerator, (8, 8), (0.0, 0.2)),
        refused("embedding as a whole number", PatternGenerator, (8, 8), embedding=0),
        refused("width as a whole number", PatternGenerator, (8, 8), width=1.5),
        refused("tolerance` of at least 0", PatternGenerator, (8, 8), tolerance=-1.0),
        refused("no default acceleration", PatternGenerator((8, 64))),
        refused("acceleration .* nan", LOUPE((8, 8), 2), float("nan")),
        refused("batch size", LOUPE((8, 8), 2), batch_size=0),
        refused("one generator or 3", LOUPE((8, 8), 2), 2, 3, [seeded(0)]),
        refused("one generator or 2, one", LOUPE((8, 8), 2).relaxed, 2, 2, [seeded(0)]),
        refused("energy` as a real", spectrum_mask, torch.ones(1, 8, 8), 2),
        refused("energy` as a real.*complex64", spectrum_mask, torch.ones(8, 8) * 1j, 2),
        refused("negative, NaN", spectrum_mask, -torch.ones(8, 8), 2),
        refused("leaves none", spectrum_mask, torch.ones(8, 8), 80),
        refused(r"images \(batch, ny, nx\)", kspace_energy, torch.ones(8, 8)),
    ],
)
def test_impossible_requests_are_refused(sentence, function, arguments, options):
    with pytest.raises(InputError, match=sentence):
        function(*arguments, **options)


@pytest.mark.parametrize("lines", [True, False])
def test_masks_to_train_with_are_never_empty(lines):
    """Without a centre, 1 line of 36 is expected, and often none would be tossed."""
    sampler = build("loupe", (4, 36), acceleration=32, lines=lines, center_fraction=0.0)
    masks = sampler.relaxed(batch_size=200, generator=seeded(0))
    assert bool((masks.flatten(1).sum(dim=1) > 0).all())
    WeightedSense(masks)


def test_remembered_probabilities_follow_the_weights(name):
    sampler, other = build(name).eval(), build(name).eval()
    before = sampler(4, 20, seeded(0))
    with torch.no_grad():
        for value in other.parameters():
            value.add_(torch.randn(value.shape, generator=seeded(2)))
    sampler.load_state_dict(other.state_dict())
    after = sampler(4, 20, seeded(0))
    assert not torch.equal(before, after)
    assert torch.equal(after, other(4, 20, seeded(0)))
    with torch.no_grad():
        next(sampler.parameters()).mul_(-1)
    assert not torch.equal(after, sampler(4, 20, seeded(0)))
