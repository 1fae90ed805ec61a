"""T2* maps by network and by least squares, simulated decays, the foreground."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gaussian import complex_noise, seeded
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.phantom import brain_anatomy, contrast_scan, multi_echo
from ctxrecon.tasks import (
    LONGEST_T2_STAR,
    T2StarMLP,
    fit_t2star,
    foreground_mask,
    simulate_decays,
    train_t2star_mlp,
)

TIMES = (9.2, 18.4, 27.6, 36.8, 46.0)


def echoes(t2_star: Tensor, noise_std: float = 0.0, seed: int = 0) -> Tensor:
    """Complex images ``(batch, echoes, ny, nx)`` of a map, signal 1 at TE 0, random phase."""
    times = torch.tensor(TIMES, dtype=t2_star.dtype)[:, None, None]
    decays = torch.exp(-times / t2_star[:, None])
    phase = 2 * math.pi * torch.rand(t2_star[:, None].shape, generator=seeded(seed))
    noise = complex_noise(decays.shape, seeded(seed + 1))
    return decays * torch.exp(1j * phase) + noise_std * noise


def field(low: float, high: float, size: int = 64) -> Tensor:
    """A map ``(1, size, size)`` of every T2* from low to high."""
    return torch.linspace(low, high, size * size).reshape(1, size, size)


@pytest.fixture(scope="module")
def mlp() -> T2StarMLP:
    return train_t2star_mlp(TIMES, num_steps=1000, generator=seeded(0))


@pytest.fixture(scope="module", params=["fit", "mlp"])
def mapper(request: pytest.FixtureRequest):
    if request.param == "fit":
        return lambda images: fit_t2star(images, TIMES)
    return request.getfixturevalue("mlp")


def test_the_fit_of_an_exact_decay_is_exact() -> None:
    truth = field(3.0, 299.9)
    found = fit_t2star(echoes(truth), TIMES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=0)
    exact = fit_t2star(echoes(truth.double()), TIMES)
    assert exact.dtype == torch.float64
    # The phases are of single precision.
    torch.testing.assert_close(exact, truth.double(), rtol=1e-5, atol=0)


def test_two_echoes_are_a_quotient() -> None:
    images = torch.tensor([1.0, 0.25])[None, :, None, None].expand(1, 2, 3, 3)
    found = fit_t2star(images, (10.0, 20.0))
    torch.testing.assert_close(found, torch.full((1, 3, 3), 10 / math.log(4)))


def test_the_fit_is_the_least_squares_one() -> None:
    """Against the best of a fine grid of rates, for noisy decays."""
    images = echoes(field(8, 200, 24), noise_std=0.08).abs().double()
    found = fit_t2star(images, TIMES)
    rates = torch.linspace(1 / LONGEST_T2_STAR, 0.5, 20000, dtype=torch.float64)

    def explained(rate: Tensor) -> Tensor:
        """``(Σ s d)²/Σ d²`` of rates ``(n,)``, or one for each pixel, ``(n or 1, pixels)``."""
        decays = images[0].flatten(1)
        models = torch.exp(-torch.tensor(TIMES, dtype=torch.float64)[:, None, None] * rate)
        return (decays[:, None] * models).sum(0).square() / models.square().sum(0)

    best = torch.stack([explained(part[:, None]).amax(0) for part in rates.split(500)]).amax(0)
    reached = explained(1 / found.flatten()[None])[0]
    signal = images[0].flatten(1).square().sum(0)
    assert (reached > best - 1e-6 * signal).double().mean() > 0.995


def test_noise_spreads_the_fit_as_the_bound_of_cramer_and_rao_says() -> None:
    """``var R = σ²/2 / (S_0² (B_2 − B_1²/B_0))``; magnitudes hold half of the noise's power."""
    t2_star, noise_std = 40.0, 0.01
    found = fit_t2star(echoes(torch.full((1, 80, 80), t2_star), noise_std), TIMES)
    times = np.array(TIMES)
    model = np.exp(-times / t2_star)
    b0, b1, b2 = ((model**2 * times**k).sum() for k in range(3))
    bound = t2_star**2 * noise_std / math.sqrt(2 * (b2 - b1**2 / b0))
    assert float(found.std()) == pytest.approx(bound, rel=0.05)
    assert float(found.mean()) == pytest.approx(t2_star, abs=0.2)


def test_the_noise_floor_lengthens_a_short_decay() -> None:
    """Magnitudes of noise are positive, and the fit does not model it."""
    truth = torch.full((1, 60, 60), 8.0)
    means = [float(fit_t2star(echoes(truth, noise), TIMES).mean()) for noise in (0.0, 0.03, 0.1)]
    assert means[0] == pytest.approx(8.0, abs=1e-3)
    assert means[0] < means[1] - 0.05 < means[2] - 0.5


def test_clipping() -> None:
    grows, falls = torch.tensor([1, 1.1, 1.2, 1.3, 1.4]), torch.tensor([1.0, 0, 0, 0, 0])
    images = torch.stack([grows, falls], dim=1)[None, :, :, None].requires_grad_()
    found = fit_t2star(images, TIMES)
    torch.testing.assert_close(found[0, :, 0], torch.tensor([300.0, 0.92]))
    found.sum().backward()
    assert images.grad is not None
    assert not images.grad[:, :, 0].any()
    assert torch.isfinite(images.grad).all()


def test_the_gradient_of_the_fit() -> None:
    """Against finite differences, where noise makes the residual, and so the curvature, count."""
    truth = torch.linspace(10, 120, 9, dtype=torch.float64).reshape(1, 3, 3)
    images = echoes(truth, noise_std=0.05).requires_grad_()
    assert images.dtype == torch.complex128
    assert torch.autograd.gradcheck(lambda x: fit_t2star(x, TIMES), images, eps=1e-7, atol=1e-3)


def test_the_gradient_of_the_network(mlp: T2StarMLP) -> None:
    truth = torch.linspace(10, 120, 9, dtype=torch.float64).reshape(1, 3, 3)
    images = echoes(truth, noise_std=0.02).abs().requires_grad_()
    double = T2StarMLP(TIMES).double()
    double.load_state_dict(mlp.state_dict())
    found = double(images)
    (analytic,) = torch.autograd.grad(found.sum(), images)
    step = 1e-3
    for echo in range(len(TIMES)):
        change = torch.zeros_like(images)
        change[:, echo] = step
        # The map is float32, so the step is a long one, and the network bends at few places.
        difference = (double(images + change) - double(images - change)) / (2 * step)
        close = torch.isclose(difference.double(), analytic[:, echo], rtol=0.05, atol=1.0)
        assert close.sum() >= 8


def test_no_signal_is_0_with_no_gradient(mapper) -> None:
    images = echoes(field(20, 80, 8))
    images[:, :, :3] = 0
    images[:, :, 3] *= 1e-4
    images.requires_grad_()
    found = mapper(images)
    assert not found[:, :4].any()
    assert (found[:, 4:] > 10).all()
    found.square().sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert not images.grad[:, :, :4].any()
    assert (images.grad[:, :, 4:].abs().amax(dim=1) > 0).all()


def test_an_empty_image_is_an_empty_map(mapper) -> None:
    images = torch.zeros(2, 5, 4, 4, dtype=torch.complex64, requires_grad=True)
    found = mapper(images)
    assert not found.any()
    found.sum().backward()
    assert images.grad is not None
    assert not images.grad.any()


def test_neither_scale_nor_phase_nor_batch_counts(mapper) -> None:
    images = torch.cat([echoes(field(20, 80, 8), 0.02), 7 * echoes(field(5, 300, 8), 0.02, seed=3)])
    found = mapper(images)
    torch.testing.assert_close(mapper(1e3 * images.abs()), found, rtol=1e-4, atol=1e-3)
    for number in range(2):
        alone = mapper(images[number : number + 1])
        torch.testing.assert_close(alone[0], found[number], rtol=1e-5, atol=1e-4)


def test_maps_stay_between_0_and_300(mapper) -> None:
    found = mapper(complex_noise((1, 5, 40, 40), seeded(0)))
    assert torch.isfinite(found).all()
    assert found.min() >= 0
    assert found.max() <= LONGEST_T2_STAR


def test_what_the_network_learns(mlp: T2StarMLP) -> None:
    """Root mean square error over the whole range, without noise and with that of training."""
    truth = field(5, 300)
    clean = (mlp(echoes(truth)) - truth).square().mean().sqrt()
    assert clean < 12
    tissue = field(15, 100)
    assert (mlp(echoes(tissue)) - tissue).square().mean().sqrt() < 2
    noisy = echoes(truth, 0.005)
    network, fit = (
        (found - truth).square().mean().sqrt() for found in (mlp(noisy), fit_t2star(noisy, TIMES))
    )
    # The fit is all but the best that there is at this noise.
    assert network < 1.2 * fit


def test_training_follows_from_the_generator() -> None:
    first, again, other = (
        train_t2star_mlp(TIMES, num_steps=3, batch_size=16, generator=seeded(seed))
        for seed in (1, 1, 2)
    )
    images = echoes(field(20, 80, 8))
    assert torch.equal(first(images), again(images))
    assert not torch.equal(first(images), other(images))
    assert not first.training
    assert not any(value.requires_grad for value in first.parameters())


def test_training_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    train_t2star_mlp(TIMES, num_steps=1, batch_size=4, generator=seeded(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_saving_and_loading(mlp: T2StarMLP, tmp_path: Path) -> None:
    mlp.save_pretrained(tmp_path)
    again = T2StarMLP.from_pretrained(tmp_path)
    images = echoes(field(20, 80, 8))
    assert torch.equal(again(images), mlp(images))
    assert tuple(again.config.echo_times) == TIMES


def test_simulated_decays() -> None:
    decays, t2_star = simulate_decays(20000, TIMES, generator=seeded(0))
    assert decays.shape == (20000, 5)
    torch.testing.assert_close(decays, torch.exp(-torch.tensor(TIMES) / t2_star[:, None]))
    assert t2_star.min() > 0
    assert t2_star.max() <= 300
    assert float(t2_star.mean()) == pytest.approx(150, abs=2)
    assert float(t2_star.std()) == pytest.approx(300 / math.sqrt(12), rel=0.02)
    noisy, same = simulate_decays(20000, TIMES, noise_std=0.02, generator=seeded(0))
    assert torch.equal(same, t2_star)
    # Of the complex noise, a magnitude well above it sees one part.
    bright = t2_star > 50
    error = (noisy - decays)[bright]
    assert float(error.std()) == pytest.approx(0.02 / math.sqrt(2), rel=0.02)


@pytest.mark.parametrize("snr", [20.0, 100.0])
def test_the_foreground_of_a_brain(snr: float) -> None:
    dice = []
    for seed in range(3):
        anatomy = brain_anatomy(seeded(seed), size=192)
        protocols = multi_echo(seeded(seed))
        scan = contrast_scan(anatomy, protocols, num_coils=1, snr=snr, generator=seeded(seed))
        noise = complex_noise(scan.images.shape, seeded(seed + 1)) / snr
        found, true = foreground_mask(scan.images + noise), scan.t2_star > 0
        assert found.shape == true.shape
        assert found.dtype == torch.bool
        dice.append(2 * float((found & true).sum() / (found.sum() + true.sum())))
    assert min(dice) > 0.95


def test_the_foreground_is_the_largest_object_without_its_holes() -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    large, small = (y - 30).hypot(x - 30), (y - 30).hypot(x - 70)
    image = ((large < 20) & (large > 8)).float() + (small < 6).float()
    found = foreground_mask(image.expand(1, 3, 64, 80))[0]
    assert found[large < 18].all()
    assert not found[large > 22].any()


def test_slices_have_foregrounds_of_their_own() -> None:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    discs = torch.stack([(y - 24).hypot(x - 24) < radius for radius in (8, 16)]).float()
    images = (discs * torch.tensor([1.0, 1e-3])[:, None, None])[:, None].expand(2, 2, 48, 48)
    both = foreground_mask(images)
    assert torch.equal(both[1:], foreground_mask(1e5 * images[1:]))
    assert both[0].sum() < both[1].sum()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(5, 8, 8), r"\(batch, 5, ny, nx\)"),
        (torch.zeros(1, 4, 8, 8), r"got shape \(1, 4, 8, 8\)"),
        (torch.zeros(0, 5, 8, 8), "per echo"),
        (torch.zeros(1, 5, 8, 8, dtype=torch.int32), "int32"),
    ],
)
def test_images_that_are_no_echoes(images: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fit_t2star(images, TIMES)
    with pytest.raises(InputError, match=words):
        T2StarMLP(TIMES)(images)


@pytest.mark.parametrize("times", [(), (5.0,), (0.0, 5.0), (5.0, 5.0), (5.0, math.inf)])
def test_times_that_are_no_echo_times(times: tuple[float, ...]) -> None:
    for call in (
        lambda: fit_t2star(torch.ones(1, len(times), 4, 4), times),
        lambda: T2StarMLP(times),
        lambda: train_t2star_mlp(times),
        lambda: simulate_decays(3, times),
    ):
        with pytest.raises(InputError, match="increasing positive echo times"):
            call()


def test_other_input_that_makes_no_sense() -> None:
    with pytest.raises(InputError, match="count` ≥ 1"):
        simulate_decays(0, TIMES)
    with pytest.raises(InputError, match="noise_std"):
        simulate_decays(1, TIMES, noise_std=-0.1)
    with pytest.raises(InputError, match="num_steps"):
        train_t2star_mlp(TIMES, num_steps=0)
    with pytest.raises(InputError, match="width"):
        T2StarMLP(TIMES, width=0)
    images = torch.zeros(2, 5, 32, 32)
    images[0, :, 8:24, 8:24] = 1
    with pytest.raises(InputError, match="slice 1 shows no object"):
        foreground_mask(images)
    with pytest.raises(InputError, match=r"\(batch, echoes, ny, nx\)"):
        foreground_mask(torch.zeros(1, 32, 32))


@pytest.mark.parametrize("way", ["network", "fit"])
def test_what_is_not_a_number_is_not_hidden(mlp, way):
    """A network that has diverged would else look like an empty map."""
    images = echoes(field(20, 80, 8))
    images[:, :, 2, 3] = torch.nan
    found = mlp(images) if way == "network" else fit_t2star(images, TIMES)
    assert not torch.isfinite(found).all()


def test_uneven_echoes_are_fitted():
    times = (1.0, 100.0, 101.0)
    truth = field(20, 80, 8)
    decays = torch.exp(-torch.tensor(times)[None, :, None, None] / truth[:, None])
    torch.testing.assert_close(fit_t2star(decays, times), truth, rtol=1e-3, atol=1e-2)
    spike = torch.zeros(1, 3, 4, 4)
    spike[:, 0] = 1.0
    assert torch.isfinite(fit_t2star(spike, times)).all()
