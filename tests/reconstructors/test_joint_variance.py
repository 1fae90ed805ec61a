"""Networks that predict mean and variance of each pixel, and their likelihood."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded
from measured import measurement
from narrow import present
from networks import small_network

from ctxrecon.errors import InputError
from ctxrecon.fourier import complex_to_channels
from ctxrecon.reconstructors import (
    MULTI_CONTRAST,
    RECONSTRUCTORS,
    UNetReconstructor,
    reconstruct_contrasts,
)
from ctxrecon.training.reconstructor import paired_loss

SERVING = [name for name, kind in RECONSTRUCTORS.items() if kind.serves_joint]


def build(name: str, **options):
    small = {"unet": {"depth": 2}, "varnet": {"depth": 2, "cascades": 2}, "ista_net": {"phases": 2}}
    return small_network(name, width=6, **small.get(name, {}), **options).eval()


def test_the_networks_of_the_paper_are_among_them():
    assert {"unet", "ista_net", "unrolled"} <= set(SERVING)


@pytest.mark.parametrize("name", SERVING)
def test_variance_is_of_each_part(name, tmp_path):
    network = build(name, predict_std="joint")
    assert network.error_head is None
    assert network.predicts_error
    operator, y, _ = measurement()
    with torch.no_grad():
        output = network(operator, y)
        parts = present(output.part_std)
        assert parts.shape == (2, 2, *output.images.shape[1:])
        assert bool((parts > 0).all())
        assert not torch.allclose(parts[:, 0], parts[:, 1])
        torch.testing.assert_close(present(output.expected_error).square(), parts.square().sum(1))
        louder = network(operator, 30 * y)
        torch.testing.assert_close(present(louder.part_std), 30 * parts, rtol=1e-3, atol=1e-4)
        network.save_pretrained(tmp_path)
        again = RECONSTRUCTORS[name].from_pretrained(tmp_path)(operator, y)
        assert torch.equal(again.images, output.images)
        assert torch.equal(present(again.part_std), parts)
        both = reconstruct_contrasts(network, [operator, operator], torch.stack([y, y], dim=1))
        torch.testing.assert_close(present(both.part_std)[:, 1], parts)


@pytest.mark.parametrize("name", SERVING)
def test_every_parameter_is_trained_by_the_likelihood(name):
    network = build(name, predict_std="joint").train()
    operator, y, x = measurement()
    output = network(operator, y)
    inside = torch.ones(output.images.shape, dtype=torch.bool)
    loss = paired_loss("gaussian", output.images, output.part_std, x, inside)
    if output.penalty is not None:
        loss = loss + output.penalty
    loss.sum().backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


def test_a_network_starts_from_a_tenth_of_the_signal():
    torch.manual_seed(0)
    operator, y, _ = measurement()
    scale = torch.quantile(operator.adjoint(y).abs().flatten(1), 0.99, dim=1)[:, None, None]
    with torch.no_grad():
        error = present(
            UNetReconstructor(width=4, depth=1, predict_std="joint")(operator, y).expected_error
        )
    torch.testing.assert_close(error / scale, torch.full_like(error, 0.1), rtol=0.05, atol=0)


def test_the_variance_of_the_highest_likelihood_is_the_mean_squared_error():
    """InfoMRI, after equation (42), of each part by itself."""
    error = complex_noise((500, 2, 3), seeded(0))
    error.imag *= 0.1
    best = complex_to_channels(error).square().mean(dim=0, keepdim=True).sqrt()
    inside = torch.ones(500, 2, 3, dtype=torch.bool)
    target = torch.zeros_like(error)

    def loss(std):
        return paired_loss("gaussian", error, std.expand(500, -1, -1, -1), target, inside).mean()

    std = best.clone().requires_grad_()
    loss(std).backward()
    torch.testing.assert_close(std.grad, torch.zeros_like(best), rtol=0, atol=1e-5)
    for factor in (0.9, 1.1):
        assert loss(factor * best) > loss(best) + 1e-3
    # Descent from elsewhere comes to it, with one pixel as with many.
    logarithm = torch.zeros_like(best).requires_grad_()
    optimizer = torch.optim.Adam([logarithm], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(logarithm.exp()).backward()
        optimizer.step()
    torch.testing.assert_close(logarithm.exp(), best, rtol=1e-2, atol=0)


def test_equal_parts_have_the_likelihood_of_a_complex_number():
    """But for the constant ``log 2``: half of the variance is that of each part."""
    x, target = complex_noise((3, 4, 5), seeded(0)), complex_noise((3, 4, 5), seeded(1))
    std = torch.rand(3, 4, 5, generator=seeded(2)) + 0.1
    inside = torch.rand(3, 4, 5, generator=seeded(3)) > 0.3
    whole = paired_loss("gaussian", x, std, target, inside)
    parts = (std / 2**0.5)[:, None].expand(-1, 2, -1, -1)
    apart = paired_loss("gaussian", x, parts, target, inside)
    torch.testing.assert_close(apart, whole - torch.tensor(2.0).log())


def test_the_squared_error():
    x, target = complex_noise((3, 4, 5), seeded(0)), complex_noise((3, 4, 5), seeded(1))
    found = paired_loss("mse", x, None, target, torch.ones(3, 4, 5, dtype=torch.bool))
    torch.testing.assert_close(found, (x - target).abs().square().mean(dim=(1, 2)) / 2)


@pytest.mark.parametrize("name", sorted({*RECONSTRUCTORS, *MULTI_CONTRAST} - set(SERVING)))
def test_other_networks_say_that_they_give_none(name):
    with pytest.raises(InputError, match="gives no variance"):
        small_network(name, predict_std="joint")


def test_an_unknown_prediction_is_refused():
    with pytest.raises(InputError, match="'both'"):
        build("unet", predict_std="both")
