"""Samplers that adapt to the measurement, and properties of finished masks."""

from __future__ import annotations

import json
import math
import os
from itertools import pairwise

import pytest
import torch
from gaussian import complex_noise, seeded

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks import make_mask, uniform1d, variable_density2d
from ctxrecon.masks.learned import (
    GreedyPolicy,
    PerContrastSampler,
    SequentialSampler,
    line_order,
    policy_gradient_loss,
    with_lines,
    write_line_order,
)
from ctxrecon.metrics import redundancy_ratio
from ctxrecon.operators import CartesianSense, WeightedSense

SHAPE = (12, 40)


def scanner(images):
    """``measure`` of known images, zero-filled; keeps the masks that it was asked for."""
    asked = []

    def measure(mask):
        asked.append(mask)
        operator = (CartesianSense if mask.dtype == torch.bool else WeightedSense)(mask)
        return operator.adjoint(mask * fft2c(images)[:, None])

    return measure, asked


def pictures(batch=3, shape=SHAPE):
    return complex_noise((batch, *shape), seeded(9))


def build(shape=SHAPE, acceleration=4, **options):
    torch.manual_seed(2)
    return SequentialSampler(shape, acceleration, **options)


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("shape", [(12, 40), (11, 65)])
@pytest.mark.parametrize("acceleration", [1, 2, 3.7, 4, 8, 16, 32])
def test_every_stage_has_its_exact_count(lines, shape, acceleration):
    fraction = 0.025 if lines else 0.1
    sampler = build(shape, 2, stages=3, lines=lines, center_fraction=fraction)
    draw = uniform1d if lines else variable_density2d
    budget = draw(shape, acceleration, fraction).sum()
    images = pictures(shape=shape)
    measure, asked = scanner(images)
    for method in (sampler, sampler.relaxed):
        asked.clear()
        chosen = method(measure, acceleration, seeded(0))
        counts = sampler.stage_counts(acceleration)
        # A budget that the centre exhausts is one mask for all.
        batch = 3 if len(counts) > 1 else 1
        assert chosen.mask.shape == (batch, 1, *shape)
        assert bool((chosen.mask.flatten(1).sum(dim=1) == budget).all())
        assert len(chosen.stages) == len(counts)
        for stage, count in zip(chosen.stages, counts, strict=True):
            samples = count * (shape[0] if lines else 1)
            assert stage.flatten(1).sum(dim=1).tolist() == [samples] * batch
        assert torch.equal(sum(stage.int() for stage in chosen.stages), chosen.mask.int())
        # Every stage but the last is looked at, and masks only grow.
        assert [len(mask) for mask in asked] == [1, 3, 3][: len(counts) - 1]
        for before, after in pairwise([*asked, chosen.mask]):
            assert bool((after >= before).all())


def test_counts_of_stages():
    sampler = build((4, 100), 4, stages=4, center_fraction=0.04)
    assert sampler.stage_counts() == [4, 6, 5, 5, 5]
    assert sampler.stage_counts(20) == [4, 1]
    assert sampler.stage_counts(25) == [4]


def test_masks_depend_on_the_image():
    sampler = build(acceleration=4, stages=2).eval()
    with torch.no_grad():
        for value in sampler.parameters():
            value.mul_(4)
    first, second = pictures(), torch.roll(pictures(), 3, dims=-1) * 1j
    masks = [sampler(scanner(images)[0], generator=seeded(0)).mask for images in (first, second)]
    assert not torch.equal(*masks)
    # Its intensity does not matter.
    louder = sampler(scanner(100 * first)[0], generator=seeded(0)).mask
    assert torch.equal(louder, masks[0])


def test_generators_and_batches():
    sampler, images = build().eval(), pictures()
    sources = [seeded(1), seeded(2), seeded(3)]
    batch = sampler(scanner(images)[0], generator=sources).mask
    alone = [sampler(scanner(images[i : i + 1])[0], generator=seeded(i + 1)).mask for i in range(3)]
    assert torch.equal(batch, torch.cat(alone))
    again = sampler(scanner(images)[0], generator=[seeded(1), seeded(2), seeded(3)]).mask
    assert torch.equal(batch, again)
    trained = sampler.relaxed(scanner(images)[0], generator=[seeded(1), seeded(2), seeded(3)]).mask
    assert torch.equal(trained.bool(), batch)


@pytest.mark.parametrize("lines", [True, False])
def test_every_parameter_gets_a_gradient(lines):
    sampler, images = build(lines=lines, center_fraction=0.1), pictures()
    chosen = sampler.relaxed(scanner(images)[0], generator=seeded(0))
    operator = WeightedSense(chosen.mask)
    error = operator.adjoint(chosen.mask * fft2c(images)[:, None]) - images
    error.abs().square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in sampler.parameters())


def test_a_later_stage_reaches_an_earlier_one_through_the_image():
    sampler, images = build(stages=2), pictures(1)
    _, first, last = sampler.relaxed(scanner(images)[0], generator=seeded(0)).stages
    worth = torch.rand(last.shape, generator=seeded(1))
    (bias,) = torch.autograd.grad((last * worth).sum(), sampler.score.shown[-1].bias)
    # The last stage cannot take these lines again: only what they measured counts.
    assert bool((bias[first[0, 0, 0] == 1] != 0).all())


def test_training_finds_the_lines_of_each_image():
    """Two kinds of images, distinguishable by the center, with energy in different lines."""
    torch.manual_seed(0)
    sampler = SequentialSampler((4, 24), 6, stages=1, center_fraction=2 / 24, width=8)
    kspace = torch.zeros(2, 4, 24, dtype=torch.complex64)
    kspace[0, :, [3, 5]], kspace[1, :, [18, 20]] = 1.0, 1.0
    kspace[0, :, 11:13], kspace[1, :, 11:13] = 4.0, torch.tensor([4.0, -4.0]).to(kspace)
    kspace = kspace.repeat(4, 1, 1)
    measure, _ = scanner(ifft2c(kspace))
    optimizer, source = torch.optim.Adam(sampler.parameters(), lr=0.02), seeded(0)
    for _ in range(120):
        optimizer.zero_grad()
        mask = sampler.relaxed(measure, generator=source).mask
        ((1 - mask) * kspace[:, None].abs()).sum().backward()
        optimizer.step()
    masks = sampler.eval()(measure, generator=source).mask[:, 0, 0]
    # Of the 16 lines that a mask for all images could not have.
    assert int(masks[::2, [3, 5]].sum() + masks[1::2, [18, 20]].sum()) >= 14


@pytest.mark.parametrize("kind", [SequentialSampler, GreedyPolicy])
def test_save_and_load(kind, tmp_path):
    torch.manual_seed(0)
    sampler = kind(SHAPE, 4).eval()
    sampler.save_pretrained(tmp_path)
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".json", ".safetensors"]
    again = kind.from_pretrained(tmp_path)
    source = {} if kind is GreedyPolicy else {"generator": seeded(0)}
    first = sampler(scanner(pictures())[0], **source).mask
    source = {} if kind is GreedyPolicy else {"generator": seeded(0)}
    assert torch.equal(first, again(scanner(pictures())[0], **source).mask)


# GreedyPolicy


def policy(**options):
    torch.manual_seed(4)
    return GreedyPolicy(SHAPE, 4, center_fraction=0.05, **options)


def center_lines(batch=3):
    mask = torch.zeros(batch, 1, *SHAPE, dtype=torch.bool)
    mask[..., 19:21] = True
    return mask


@pytest.mark.parametrize("acceleration", [2, 4, 8, 13.3])
def test_a_policy_takes_one_line_at_a_time(acceleration):
    network, images = policy().eval(), pictures()
    measure, asked = scanner(images)
    chosen = network(measure, acceleration)
    budget = round(40 / acceleration)
    assert chosen.mask[:, 0, 0].sum(dim=1).tolist() == [budget] * 3
    assert len(asked) == budget - 2
    order = line_order([stage[:1] for stage in chosen.stages])
    assert [len(stage) for stage in order] == [2] + [1] * (budget - 2)
    assert torch.equal(network(measure, acceleration).mask, chosen.mask)
    # The likeliest line, each time.
    best = network.log_probabilities(measure(asked[0]), asked[0]).argmax(dim=1)
    assert torch.equal(chosen.stages[1][:, 0, 0].int().argmax(dim=1), best)


def test_lines_are_drawn_in_proportion_to_the_policy():
    network, mask, images = policy(), center_lines(), pictures()
    with torch.no_grad():
        network.score.shown[-1].bias.copy_(torch.randn(40, generator=seeded(5)))
    log_probabilities = network.log_probabilities(images, mask)
    probabilities = log_probabilities.exp()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))
    assert not probabilities[:, 19:21].any()
    lines, taken = network.step(images, mask, samples=5000, generator=seeded(0))
    assert torch.equal(taken, log_probabilities.gather(1, lines))
    again, _ = network.step(images, mask, samples=5000, generator=seeded(0))
    assert torch.equal(lines, again)
    found = torch.stack([row.bincount(minlength=40) for row in lines]) / 5000
    deviation = (probabilities * (1 - probabilities) / 5000).sqrt()
    assert bool(((found - probabilities).abs() <= 5 * deviation + 1e-6).all())


def test_lines_are_added_to_a_mask():
    mask = center_lines(2)
    more = with_lines(mask, torch.tensor([[3, 19], [0, 39]]))
    assert more.shape == (2, 2, 1, *SHAPE)
    assert more[0, 0, 0, 5].nonzero()[:, 0].tolist() == [3, 19, 20]
    assert more[0, 1, 0, 5].nonzero()[:, 0].tolist() == [19, 20]
    assert more[1, 1, 0, 0].nonzero()[:, 0].tolist() == [19, 20, 39]


def test_the_policy_gradient_is_that_of_the_expected_reward():
    """By all pairs of draws with their probabilities, for a policy of four lines."""
    scores = torch.tensor([0.3, -0.2, 0.8, 0.0], dtype=torch.float64, requires_grad=True)
    worth = torch.tensor([1.0, 3.0, -2.0, 0.5], dtype=torch.float64)
    (expected,) = torch.autograd.grad(-(scores.softmax(0) * worth).sum(), scores)
    found = torch.zeros(4, dtype=torch.float64)
    for first in range(4):
        for second in range(4):
            log_probabilities = scores.log_softmax(0)
            drawn = torch.tensor([first, second])
            loss = policy_gradient_loss(log_probabilities[drawn][None], worth[drawn][None])
            (gradient,) = torch.autograd.grad(loss, scores)
            weight = math.exp(log_probabilities.detach()[drawn].sum())
            found += weight * gradient
    torch.testing.assert_close(found, expected)


def test_a_policy_learns_which_lines_gain():
    network, images, source = policy(width=4), pictures(2), seeded(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(40):
        mask = center_lines(2)
        for _ in range(2):
            optimizer.zero_grad()
            lines, log_probabilities = network.step(images, mask, 8, source)
            rewards = ((lines == 7) | (lines == 33)).float()
            policy_gradient_loss(log_probabilities, rewards).backward()
            optimizer.step()
            mask = with_lines(mask, lines[:, :1])[:, 0]
    chosen = network.eval()(lambda _: images, 10).mask[:, 0, 0]
    assert bool((chosen[:, 7] & chosen[:, 33]).all())


# redundancy_ratio, line_order


@pytest.mark.parametrize("shape", [(8, 8), (7, 9), (8, 5)])
def test_redundancy_is_the_share_of_reflected_samples(shape):
    ny, nx = shape
    mask = make_mask("variable_density2d", shape, 2, 0.0, batch_size=4, generator=seeded(0))
    expected = []
    for item in mask[:, 0]:
        sampled = {(int(y) - ny // 2, int(x) - nx // 2) for y, x in item.nonzero()}
        # −n/2 is the same frequency as n/2.
        wrapped = {(y % ny, x % nx) for y, x in sampled}
        expected.append(sum((-y % ny, -x % nx) in wrapped for y, x in sampled) / len(sampled))
    torch.testing.assert_close(redundancy_ratio(mask), torch.tensor(expected))
    contrasts = redundancy_ratio(mask.view(2, 2, 1, ny, nx))
    torch.testing.assert_close(contrasts, torch.tensor(expected).view(2, 2))


def test_redundancy_of_known_masks():
    assert redundancy_ratio(torch.ones(1, 1, 6, 7, dtype=torch.bool)).tolist() == [1.0]
    half = torch.zeros(1, 1, 9, 9, dtype=torch.bool)
    half[..., 5:] = True  # one side of k-space
    assert redundancy_ratio(half).tolist() == [0.0]
    half[..., 4] = True  # and the line through the zero frequency, its own reflection
    assert redundancy_ratio(half).tolist() == pytest.approx([1 / 5])


def test_redundancy_is_what_phase_symmetry_gives():
    """For a real image a reflected sample is the complex conjugate, on odd and even grids."""
    for shape in ((8, 8), (7, 9)):
        ny, nx = shape
        kspace = torch.fft.fftshift(torch.fft.fft2(torch.rand(shape, generator=seeded(0))))
        for y, x in ((0, 0), (1, 3), (ny // 2, nx // 2), (ny - 1, 2)):
            mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
            mask[0, 0, y, x] = True
            twin = (kspace - kspace[y, x].conj()).abs() < 1e-4
            both = mask | twin
            assert redundancy_ratio(both).tolist() == [1.0]


def test_lines_are_ordered_from_the_center():
    mask = torch.zeros(1, 1, 3, 8, dtype=torch.bool)
    mask[..., [0, 2, 3, 4, 5, 7]] = True
    assert line_order(mask) == [[0, -1, 1, -2, 3, -4]]
    odd = torch.ones(1, 1, 2, 5, dtype=torch.bool)
    assert line_order(odd) == [[0, -1, 1, -2, 2]]
    stages = [torch.zeros_like(mask), torch.zeros_like(mask)]
    stages[0][..., [4, 3]] = True
    stages[1][..., [7, 5]] = True
    assert line_order(stages) == [[0, -1], [1, 3]]


def test_a_line_order_gives_its_mask_back(tmp_path):
    sampler = PerContrastSampler((8, 65), 3, 4, learn_split=True).eval()
    mask = sampler(4, generator=seeded(0))
    path = tmp_path / "lines.json"
    write_line_order(path, mask)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lines.json"]
    written = json.loads(path.read_text())
    assert written["matrix"] == [8, 65]
    again = torch.zeros_like(mask)
    for contrast, stages in enumerate(written["contrasts"]):
        again[0, contrast, 0, :, [32 + k for stage in stages for k in stage]] = True
    assert torch.equal(again, mask)
    write_line_order(path, mask[:, 1])  # over the old one
    assert json.loads(path.read_text())["contrasts"] == [line_order(mask[:, 1])]


def test_a_line_order_is_whole_or_not_written(tmp_path, monkeypatch):
    path = tmp_path / "lines.json"
    path.write_text("before")
    mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(InputError, match=r"cannot write .*nowhere"):
        write_line_order(tmp_path / "nowhere" / "lines.json", mask)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_line_order(path, mask)
    assert path.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


BOOL = torch.ones(1, 1, 4, 4, dtype=torch.bool)
SINGLES = torch.eye(4, dtype=torch.bool)[None, None]


@pytest.mark.parametrize(
    ("sentence", "call"),
    [
        ("stages as a whole number", lambda: build(stages=0)),
        ("width as a whole number", lambda: build(width=0)),
        ("positive slope", lambda: build(slope=-1.0)),
        ("leaves none of 40 lines", lambda: build(acceleration=100)),
        ("first image", lambda: build(center_fraction=0.0)(pictures)),
        ("got torch.float32", lambda: build()(lambda mask: torch.ones(1, *SHAPE))),
        (
            r"complex images \(batch, 12, 40\)",
            lambda: build()(lambda mask: torch.ones(1, 40, 12) * 1j),
        ),
        ("one generator or 3", lambda: build()(scanner(pictures())[0], 4, [seeded(0)])),
        (
            "lines left to take",
            lambda: policy().log_probabilities(pictures(), ~torch.zeros_like(center_lines())),
        ),
        (
            "two samples or more",
            lambda: policy_gradient_loss(torch.zeros(2, 1), torch.zeros(2, 1)),
        ),
        (
            r"got \(2, 3\) and \(2, 4\)",
            lambda: policy_gradient_loss(torch.zeros(2, 3), torch.zeros(2, 4)),
        ),
        ("expected a bool mask", lambda: redundancy_ratio(torch.ones(1, 1, 4, 4))),
        ("expected a bool mask .*4, 4", lambda: redundancy_ratio(BOOL[0])),
        ("samples nothing", lambda: redundancy_ratio(~BOOL)),
        ("one bool mask", lambda: line_order(BOOL.float())),
        (r"one bool mask .*\(2, 1, 4, 4\)", lambda: line_order(torch.cat([BOOL, BOOL]))),
        ("whole lines along ny", lambda: line_order(SINGLES)),
        (r"lines \[-2, -1, 0, 1\] are in two", lambda: line_order([BOOL, BOOL])),
    ],
)
def test_impossible_requests_are_refused(sentence, call):
    with pytest.raises(InputError, match=sentence):
        call()
