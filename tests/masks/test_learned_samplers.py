"""Learned samplers: exact budgets, what is expected of training masks, gradients, files."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussian import complex_noise, seeded

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.masks import MASKS, make_mask, uniform1d, variable_density2d
from ctxrecon.masks.learned import (
    LOUPE,
    SAMPLERS,
    FixedMasks,
    PatternGenerator,
    PerContrastSampler,
    Sampler,
    kspace_energy,
    spectrum_mask,
)
from ctxrecon.operators import WeightedSense

SHAPES = [(8, 64), (9, 65), (40, 36), (33, 47)]
ACCELERATIONS = [2, 3.7, 4, 6, 8, 16, 32]
OPTIONS: dict[str, dict[str, Any]] = {
    "loupe": {"acceleration": 4},
    "per_contrast": {"acceleration": 4, "contrasts": 3},
    "pattern_generator": {},
}


def build(name: str, shape=(8, 64), **options: Any) -> Sampler:
    torch.manual_seed(1)
    return SAMPLERS[name](shape, **{**OPTIONS[name], **options})


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


# LOUPE, PatternGenerator


def test_loupe_starts_with_uniform_probabilities():
    p = build("loupe", (64, 64), lines=False).preferences(0.25).detach().flatten()
    assert 0.01 <= float(p.min()) < 0.02
    assert 0.98 < float(p.max()) <= 0.99
    assert float(p.mean()) == pytest.approx(0.5, abs=0.02)


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


# spectrum_mask


def test_the_spectrum_mask_takes_the_strongest_samples():
    energy = torch.rand(12, 16, generator=seeded(0))
    mask = spectrum_mask(energy, 4, 0.0, lines=False)
    assert mask.shape == (1, 1, 12, 16)
    assert int(mask.sum()) == 48
    assert float(energy[mask[0, 0]].min()) > float(energy[~mask[0, 0]].max())
    lines = spectrum_mask(energy, 4, 0.0)[0, 0]
    assert int(lines[0].sum()) == 4
    strength = energy.sum(dim=0)
    assert float(strength[lines[0]].min()) > float(strength[~lines[0]].max())
    center = spectrum_mask(energy, 4, 0.125)[0, 0, 0]
    assert center[7:9].all()


@pytest.mark.parametrize("acceleration", [2, 4, 8, 15, 32])
@pytest.mark.parametrize("shape", [(64, 48), (31, 45)])
def test_the_spectrum_mask_has_the_budget_of_other_masks(shape, acceleration):
    energy = torch.ones(shape)
    for lines, other in ((True, "uniform1d"), (False, "variable_density2d")):
        mask = spectrum_mask(energy, acceleration, lines=lines)
        assert mask.sum() == make_mask(other, shape, acceleration).sum()


def test_energy_is_the_mean_over_images():
    kspace = complex_noise((3, 8, 9), seeded(0))
    energy = kspace_energy(ifft2c(kspace))
    torch.testing.assert_close(
        energy, kspace.abs().double().square().mean(dim=0), rtol=1e-5, atol=0
    )
    real = torch.rand(3, 16, 16, generator=seeded(0))
    symmetric = spectrum_mask(kspace_energy(real), 3, 0.0)
    assert symmetric.shape == (1, 1, 16, 16)


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
        refused("center_fraction between 0 and 1", LOUPE, (8, 8), 4, center_fraction=2.0),
        refused("positive slope, got 0", LOUPE, (8, 8), 2, slope=0),
        refused("contrasts as a whole number", PerContrastSampler, (8, 8), 0, 2),
        refused(
            "a shared mask has one", PerContrastSampler, (8, 8), 2, 2, shared=True, learn_split=True
        ),
        refused(r"ratios \(r_min, r_max\)", PatternGenerator, (8, 8), (0.5, 0.2)),
        refused(r"ratios \(r_min, r_max\) within", PatternGenerator, (8, 8), (0.0, 0.2)),
        refused("embedding as a whole number", PatternGenerator, (8, 8), embedding=0),
        refused("width as a whole number", PatternGenerator, (8, 8), width=1.5),
        refused("tolerance of at least 0", PatternGenerator, (8, 8), tolerance=-1.0),
        refused("acceleration of its own", PatternGenerator((8, 64))),
        refused("acceleration .* nan", LOUPE((8, 8), 2), float("nan")),
        refused("batch size", LOUPE((8, 8), 2), batch_size=0),
        refused("one generator or 3", LOUPE((8, 8), 2), 2, 3, [seeded(0)]),
        refused("one generator or 2, one", LOUPE((8, 8), 2).relaxed, 2, 2, [seeded(0)]),
        refused("energy as a real", spectrum_mask, torch.ones(1, 8, 8), 2),
        refused("energy as a real.*complex64", spectrum_mask, torch.ones(8, 8) * 1j, 2),
        refused("negative, NaN", spectrum_mask, -torch.ones(8, 8), 2),
        refused("leaves none", spectrum_mask, torch.ones(8, 8), 80),
        refused(r"images \(batch, ny, nx\)", kspace_energy, torch.ones(8, 8)),
    ],
)
def test_impossible_requests_are_refused(sentence, function, arguments, options):
    with pytest.raises(InputError, match=sentence):
        function(*arguments, **options)


class TestFixedMasks:
    """What learned samplers are held against."""

    @pytest.mark.parametrize("mask", ["uniform1d", "gaussian1d", "poisson_disk2d"])
    def test_they_are_the_masks_of_that_name(self, mask, tmp_path):
        sampler = FixedMasks((32, 40), 4.0, mask, 0.1)
        sampler.save_pretrained(tmp_path)
        again = FixedMasks.from_pretrained(tmp_path)
        expected = make_mask(mask, (32, 40), 4.0, 0.1, batch_size=2, generator=seeded(3))
        assert torch.equal(again(batch_size=2, generator=seeded(3)), expected)
        relaxed = again.relaxed(batch_size=2, generator=seeded(3))
        assert torch.equal(relaxed, expected.float())
        always = again.as_mask(again.budget().center)
        assert bool((expected >= always).all())

    @pytest.mark.parametrize("mask", list(MASKS))
    def test_the_center_is_always_taken(self, mask):
        """Coil maps are estimated from it."""
        sampler = FixedMasks((32, 40), 8.0, mask)
        center = sampler.as_mask(sampler.budget().center)
        assert bool((sampler(batch_size=3, generator=seeded(0)) >= center).all())

    def test_a_range_of_ratios(self):
        sampler = FixedMasks((32, 40), mask="uniform1d", ratios=(0.2, 0.5))
        drawn = [sampler.draw_acceleration(seeded(n)) for n in range(50)]
        assert 2 <= min(drawn) < 2.6 < 4 < max(drawn) <= 5
        assert int(sampler(4.0)[0, 0, 0].sum()) == 10
        assert FixedMasks((32, 40), 4.0).draw_acceleration() == 4.0
        with pytest.raises(InputError, match="of its own"):
            sampler()

    def test_malformed_options(self):
        with pytest.raises(InputError, match="unknown mask 'spiral'"):
            FixedMasks((8, 8), 2.0, "spiral")
        with pytest.raises(InputError, match="or a range"):
            FixedMasks((8, 8))
        with pytest.raises(InputError, match="or a range"):
            FixedMasks((8, 8), 2.0, ratios=(0.2, 0.5))
        with pytest.raises(InputError, match=r"within \(0, 1\]"):
            FixedMasks((8, 8), ratios=(0.2, 1.5))


@pytest.mark.parametrize("lines", [True, False])
def test_masks_to_train_with_are_never_empty(lines):
    """Without a centre, 1 line of 36 is expected, and often none would be tossed."""
    sampler = build("loupe", (4, 36), acceleration=32, lines=lines, center_fraction=0.0)
    masks = sampler.relaxed(batch_size=200, generator=seeded(0))
    assert bool((masks.flatten(1).sum(dim=1) > 0).all())
    WeightedSense(masks)


def test_probabilities_do_not_depend_on_autocast():
    sampler = build("pattern_generator")
    expected = sampler.probabilities(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sampler.probabilities(4), expected)


def test_impossible_ratios_are_refused_at_once():
    with pytest.raises(InputError, match="more than the"):
        PatternGenerator((16, 64), (1 / 32, 1 / 2), center_fraction=0.08)
