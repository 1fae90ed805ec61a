"""The operator under a mask that is being learned, and the mathematics of such masks."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded
from measured import measurement
from narrow import present
from test_reconstructors import build

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.masks.learned import LOUPE, kspace_energy, rescale, spectrum_mask
from ctxrecon.masks.learned.relaxation import (
    ExactChoice,
    largest_remainder,
    straight_through,
    water_fill,
)
from ctxrecon.operators import CartesianSense, WeightedSense, valid_adjoint
from ctxrecon.reconstructors import hard_data_consistency

SINGLE = ("unet", "resnet", "unrolled", "varnet", "modl", "ista_net", "pnp")


def lines(shape, generator, batch=1):
    """A mask of whole lines, as one expanded row of weights."""
    ny, nx = shape
    row = torch.rand(batch, 1, 1, nx, generator=generator).lt(0.5).float()
    row[..., nx // 2] = 1
    return row.expand(-1, -1, ny, -1)


def points(shape, generator, batch=1):
    weights = torch.rand(batch, 1, *shape, generator=generator).lt(0.5).float()
    weights[..., shape[0] // 2, shape[1] // 2] = 1
    return weights


def maps(batch, shape, generator, coils=3):
    return complex_noise((batch, coils, *shape), generator)


@pytest.mark.parametrize("kind", [lines, points])
@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (8, 5)])
@pytest.mark.parametrize(("batch", "map_batch"), [(1, 1), (3, 1), (1, 3), (2, 0)])
def test_binary_weights_are_a_mask(kind, shape, batch, map_batch):
    source = seeded(0)
    weights = kind(shape, source, batch)
    coil_maps = maps(map_batch, shape, source) if map_batch else None
    weighted, masked = WeightedSense(weights, coil_maps), CartesianSense(weights.bool(), coil_maps)
    assert weighted.domain_shape == masked.domain_shape
    assert weighted.range_shape == masked.range_shape
    assert valid_adjoint(weighted)
    x, y = complex_noise(masked.domain_shape, source), complex_noise(masked.range_shape, source)
    for grad in (False, True):  # coil by coil, and all together
        u = x.clone().requires_grad_(grad)
        torch.testing.assert_close(weighted(u), masked(x))
        torch.testing.assert_close(weighted.adjoint(y), masked.adjoint(y))
        torch.testing.assert_close(weighted.normal(u), masked.normal(x), rtol=1e-5, atol=1e-5)
        energy = masked.squared_norm(x)
        torch.testing.assert_close(weighted.squared_norm(u), energy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [lines, points])
def test_probabilities_give_the_mean_over_masks(kind):
    """Two masks with a half each: their mean operator is that of weights in [0, 1]."""
    source, shape = seeded(1), (6, 8)
    first, second = kind(shape, source), kind(shape, source)
    coil_maps, x = maps(1, shape, source), complex_noise((1, *shape), source)
    kspace = complex_noise((1, 3, *shape), source)
    mean = WeightedSense((first + second) / 2, coil_maps)
    each = [CartesianSense(mask.bool(), coil_maps) for mask in (first, second)]
    torch.testing.assert_close(mean(x), sum(a(x) for a in each) / 2)
    torch.testing.assert_close(
        mean.normal(x), sum(a.normal(x) for a in each) / 2, rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(mean.adjoint(mean(x)), mean.normal(x), rtol=1e-5, atol=1e-5)
    expected = sum(a.adjoint(kspace) for a in each) / 2
    torch.testing.assert_close(mean.adjoint(mean.mask * kspace), expected, rtol=1e-5, atol=1e-5)
    energy = sum(a.squared_norm(x) for a in each) / 2
    torch.testing.assert_close(mean.squared_norm(x), energy)


def loss_of(weights, coil_maps, kspace, x):
    """Depends on the weights through every method."""
    operator = WeightedSense(weights, coil_maps)
    y = weights * kspace
    residual = operator.normal(x) - operator.adjoint(y)
    # Not every row alike.
    ramp = 1 + torch.arange(residual.shape[-2])[:, None] / 3
    misfit = (ramp * residual.abs().square()).sum()
    return misfit + operator.squared_norm(x).sum() + (operator(x) - y).abs().square().sum()


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("coils", [0, 3])
def test_gradients_by_the_weights_are_finite_differences(binary, coils):
    source, shape = seeded(2), (5, 6)
    weights = 0.2 + 0.6 * torch.rand(1, 1, *shape, generator=source)
    if binary:
        weights = points(shape, source)
    coil_maps = maps(1, shape, source) if coils else None
    kspace = complex_noise((2, max(coils, 1), *shape), source)
    x = complex_noise((2, *shape), source)
    weights.requires_grad_()
    loss_of(weights, coil_maps, kspace, x).backward()
    # A one-sided step, into [0, 1].
    for index in range(weights.numel()):
        step = torch.zeros(weights.numel())
        step[index] = 0.1 if weights.flatten()[index] < 0.5 else -0.1
        step = step.view_as(weights)
        values = [
            loss_of(weights.detach() + k * step, coil_maps, kspace, x).item() for k in (0, 1, 2)
        ]
        # Second order: the loss is a polynomial of degree 2 but for rounding.
        slope = (-1.5 * values[0] + 2 * values[1] - 0.5 * values[2]) / float(step.sum())
        assert slope == pytest.approx(
            float(present(weights.grad).flatten()[index]), rel=0.02, abs=0.02
        )


def test_gradients_by_expanded_lines_are_those_of_full_weights():
    source, shape = seeded(3), (6, 7)
    row = torch.rand(1, 1, 1, 7, generator=source).requires_grad_()
    coil_maps, kspace = maps(1, shape, source), complex_noise((1, 3, *shape), source)
    x = complex_noise((1, *shape), source)
    full = row.detach().expand(1, 1, *shape).clone().requires_grad_()
    loss_of(row.expand(1, 1, *shape), coil_maps, kspace, x).backward()
    loss_of(full, coil_maps, kspace, x).backward()
    torch.testing.assert_close(
        row.grad, present(full.grad).sum(dim=-2, keepdim=True), rtol=1e-4, atol=1e-4
    )
    assert present(full.grad).std(dim=-2).max() > 1e-3, "each row has a gradient of its own"


def test_positions_that_are_not_sampled_get_a_gradient():
    """The derivative of one factor W, not of W² = 2 W, which is 0 where nothing is sampled."""
    source, shape = seeded(4), (6, 8)
    weights = points(shape, source).requires_grad_()
    kspace = complex_noise((1, 1, *shape), source)
    x = complex_noise((1, *shape), source)
    operator = WeightedSense(weights)
    (operator.adjoint(weights * kspace) - x).abs().square().sum().backward()
    assert bool((weights.grad[weights == 0].abs() > 0).all())


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("kind", [lines, points])
def test_reconstructors_take_it_in_place_of_a_mask(name, kind):
    source, shape = seeded(5), (16, 20)
    weights = kind(shape, source, 2)
    coil_maps = measurement(shape=shape)[0].coil_maps
    kspace = complex_noise((2, 3, *shape), source)
    network = build(name, predict_std=True)
    masked = CartesianSense(weights.bool(), coil_maps)
    expected = network(masked, kspace * weights)
    trainable = weights[..., :1, :] if kind is lines else weights
    trainable = trainable.clone().requires_grad_()
    given = trainable.expand(2, 1, *shape)
    found = network(WeightedSense(given, coil_maps), kspace * given)
    torch.testing.assert_close(found.images, expected.images, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.expected_error, expected.expected_error, rtol=1e-4, atol=1e-4)
    found.images.abs().square().sum().backward()
    assert bool(torch.isfinite(trainable.grad).all())
    assert bool((trainable.grad != 0).all())


def test_hard_data_consistency_depends_on_the_weights():
    source, shape = seeded(6), (6, 8)
    weights = points(shape, source).requires_grad_()
    v, kspace = complex_noise((1, *shape), source), complex_noise((1, 1, *shape), source)
    operator = WeightedSense(weights)
    found = hard_data_consistency(operator, v, operator.adjoint(weights * kspace))
    (gradient,) = torch.autograd.grad(found.real.sum() + found.imag.sum(), weights)
    step = 1e-2 * (1 - 2 * weights.detach())
    moved = WeightedSense(weights.detach() + step)
    other = hard_data_consistency(moved, v, moved.adjoint(moved.mask * kspace))
    change = torch.view_as_real(other - found).detach().sum()
    # It is linear in W.
    assert float(change) == pytest.approx(float((gradient * step).sum()), rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (torch.ones(1, 1, 4, 4, dtype=torch.bool), r"float32 .* torch\.bool"),
        (torch.ones(1, 1, 4, 4, dtype=torch.float64), r"float32 .* torch\.float64"),
        ([1.0], "got list"),
        (torch.full((1, 1, 4, 4), 1.5), "between 0 and 1"),
        (torch.full((1, 1, 4, 4), -0.1), "between 0 and 1"),
        (torch.full((1, 1, 4, 4), torch.nan), "between 0 and 1"),
        (torch.ones(1, 2, 4, 4), r"\(batch or 1, 1, ny, nx\)"),
        (torch.ones(4, 4), r"\(batch or 1, 1, ny, nx\)"),
        (torch.zeros(1, 1, 4, 4), "samples nothing"),
    ],
)
def test_other_weights_are_refused(weights, sentence):
    with pytest.raises(InputError, match=sentence):
        WeightedSense(weights)


def test_maps_and_images_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="coil maps of shape"):
        WeightedSense(torch.ones(1, 1, 4, 4), torch.ones(1, 2, 4, 5, dtype=torch.complex64))
    operator = WeightedSense(torch.ones(1, 1, 4, 4))
    for method in (operator.forward, operator.normal, operator.squared_norm):
        with pytest.raises(InputError, match="an image"):
            method(torch.ones(1, 4, 5, dtype=torch.complex64))
    with pytest.raises(InputError, match="k-space"):
        operator.adjoint(torch.ones(1, 2, 4, 4, dtype=torch.complex64))


# What is learned of such masks


@pytest.mark.parametrize("size", [1, 7, 300, 20000])
@pytest.mark.parametrize("ratio", [0.02, 0.3, 0.9])
def test_the_quick_choice_is_the_smallest_keys(size, ratio):
    source = seeded(0)
    count = max(1, round(size * ratio))
    probabilities = rescale(torch.rand(size, generator=source), count / size)
    choice = ExactChoice(probabilities)
    for offset in (0, -count // 2, count // 3):  # far from what the tosses give, too
        uniform = torch.rand(size, generator=source)
        wanted = min(count + offset, size)
        keys = uniform / (1 - uniform) * ((1 - probabilities) / probabilities)
        expected = torch.zeros(size, dtype=torch.bool)
        expected[keys.argsort()[:wanted]] = True
        assert torch.equal(choice(uniform, wanted), expected)


def test_certain_and_impossible_positions():
    choice = ExactChoice(torch.tensor([0.0, 1.0, 0.5, 0.5, 1.0, 0.0]))
    for seed in range(20):
        chosen = choice(torch.rand(6, generator=seeded(seed)), 3)
        assert chosen[[1, 4]].all()
        assert not chosen[[0, 5]].any()
        assert int(chosen.sum()) == 3


@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.8])
def test_rescaling_and_its_gradient(ratio):
    probabilities = torch.rand(3, 11, dtype=torch.float64, generator=seeded(0)).requires_grad_()
    ratios = torch.tensor([[ratio], [0.1], [0.9]], dtype=torch.float64).requires_grad_()
    rescaled = rescale(probabilities, ratios)
    torch.testing.assert_close(rescaled.mean(dim=1, keepdim=True), ratios)
    assert bool(((rescaled >= 0) & (rescaled <= 1)).all())
    # LOUPE's two branches, in its own words.
    p, mean = probabilities[0], probabilities[0].mean()
    by_hand = p * ratio / mean if mean >= ratio else 1 - (1 - p) * (1 - ratio) / (1 - mean)
    torch.testing.assert_close(rescaled[0], by_hand)
    assert torch.autograd.gradcheck(rescale, (probabilities, ratios))


def test_rescaling_at_the_ends():
    for value in (0.0, 1.0):
        constant = torch.full((4,), value, requires_grad=True)
        for ratio in (0.0, 0.25, 1.0):
            rescaled = rescale(constant, ratio)
            torch.testing.assert_close(rescaled, torch.full((4,), ratio))
            (gradient,) = torch.autograd.grad(rescaled.sum(), constant)
            assert bool(torch.isfinite(gradient).all())


def test_the_gradient_is_that_of_the_sigmoid():
    p = torch.tensor([0.2, 0.5, 0.9], requires_grad=True)
    u = torch.tensor([0.3, 0.5, 0.1])
    hard = straight_through(p, u, 10.0)
    assert hard.tolist() == [0.0, 1.0, 1.0]
    (gradient,) = torch.autograd.grad(hard @ torch.tensor([1.0, 2.0, 3.0]), p)
    sigmoid = 1 / (1 + torch.exp(-10 * (p.detach() - u)))
    expected = 10 * sigmoid * (1 - sigmoid) * torch.tensor([1.0, 2.0, 3.0])
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize(
    ("shares", "mean", "expected"),
    [
        ([1.0, 1.0, 1.0], 0.25, [0.25, 0.25, 0.25]),
        ([6.0, 3.0, 1.0], 0.3, [0.54, 0.27, 0.09]),
        ([8.0, 1.0, 1.0], 0.5, [1.0, 0.25, 0.25]),  # above 1: the rest is shared
        ([1.0, 1.0, 98.0], 0.3, [0.05, 0.05, 0.8]),  # below the centre
        ([1.0, 100.0, 4.0, 4.0], 0.3, [0.05, 1.0, 0.075, 0.075]),  # both at once
        ([1.0, 2.0], 0.05, [0.05, 0.05]),  # the centre alone
        ([1.0, 2.0], 1.0, [1.0, 1.0]),  # everything
        ([1.0, 1.0], 1.0, [1.0, 1.0]),
    ],
)
def test_water_filling(shares, mean, expected):
    found = water_fill(torch.tensor(shares, dtype=torch.float64), mean, 0.05, 1.0)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_water_filling_is_a_clipped_multiple_and_differentiable():
    source = seeded(0)
    for _ in range(200):
        shares = torch.rand(6, dtype=torch.float64, generator=source) ** 4 + 1e-6
        mean = 0.06 + 0.9 * float(torch.rand(1, generator=source))
        found = water_fill(shares, mean, 0.05, 1.0)
        assert float(found.mean()) == pytest.approx(mean, rel=1e-12)
        free = (found > 0.05) & (found < 1)
        level = (found / shares)[free]
        if len(level):
            assert float(level.std(correction=0)) < 1e-9 * float(level.mean())
            torch.testing.assert_close((level[0] * shares).clamp(0.05, 1), found)
    leaf = torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: water_fill(a, 0.2, 0.05, 1.0), leaf)
    # At a bound the gradient is that of the share before it was clipped: there is a way back.
    clipped = torch.tensor([1.0, 100.0, 4.0, 5.0], dtype=torch.float64, requires_grad=True)
    weights = torch.arange(4.0, dtype=torch.float64)
    (water_fill(clipped, 0.35, 0.05, 1.0) * weights).sum().backward()
    (expected,) = torch.autograd.grad((4 * 0.35 * clipped / clipped.sum() * weights).sum(), clipped)
    torch.testing.assert_close(clipped.grad, expected)


def test_whole_numbers_with_the_right_sum():
    assert largest_remainder(torch.tensor([2.5, 1.25, 1.25]), 5) == [3, 1, 1]
    assert largest_remainder(torch.tensor([1.9, 1.8, 0.3]), 4) == [2, 2, 0]
    rounded = torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64) - 1e-13
    assert largest_remainder(rounded, 12) == [3, 4, 5]


@pytest.mark.parametrize("lines", [True, False])
def test_zero_filled_images_teach_the_mask_of_the_strongest_samples(lines):
    """The error of ``F⁻¹ M k`` is the energy left out, so the best mask is known."""
    shape, source = (6, 40) if lines else (8, 10), seeded(1)
    amplitude = torch.rand(shape if not lines else (1, 40), generator=source) ** 2
    kspace = amplitude * complex_noise((8, *shape), source)
    images = ifft2c(kspace)
    best = spectrum_mask(kspace_energy(images), 4, 0.0, lines=lines)
    torch.manual_seed(1)
    sampler = LOUPE(shape, 4, lines, 0.0)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        weights = sampler.relaxed(batch_size=8, generator=source)
        operator = WeightedSense(weights)
        error = operator.adjoint(weights * kspace[:, None]) - images
        error.abs().square().sum().backward()
        optimizer.step()
    masks = sampler.eval()(batch_size=10, generator=source)
    energy = kspace_energy(images)
    assert float((masks * energy).sum() / 10) > 0.95 * float((best * energy).sum())
