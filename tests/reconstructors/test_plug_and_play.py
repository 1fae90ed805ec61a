"""Plug-and-play reconstruction, and the denoiser in it."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded
from measured import measurement
from networks import small_network

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.operators import CartesianSense
from ctxrecon.reconstructors import PlugAndPlay
from ctxrecon.training.reconstructor import Labels, Objective


def test_the_loss_of_a_reconstruction_leaves_the_denoiser_alone():
    network = small_network("pnp", width=4, depth=1, iterations=3)
    operator, y, x = measurement()
    network(operator, y).images.abs().sum().backward()
    assert all(value.grad is None for value in network.denoiser.parameters())
    assert bool(network.log_levels.grad.any())
    assert bool(network.log_dampings.grad.any())
    network.log_levels.grad = network.log_dampings.grad = None
    network.prior_loss(x, [seeded(0), seeded(1)]).sum().backward()
    assert all(bool(value.grad.any()) for value in network.denoiser.parameters())
    assert network.log_levels.grad is None


def test_without_a_denoiser_it_solves_the_damped_system():
    """D is the identity to start with: one step is a damped least-squares solution."""
    network = PlugAndPlay(width=4, depth=1, iterations=1, cg_iterations=50)
    kspace = complex_noise((1, 1, 16, 16), seeded(0))
    mask = torch.rand(1, 1, 16, 16, generator=seeded(1)) > 0.5
    operator = CartesianSense(mask)
    with torch.no_grad():
        image = network(operator, kspace * mask).images
    damping = float(network.log_dampings.detach().exp())
    expected = kspace * mask * (1 + damping) / (1 + damping)
    torch.testing.assert_close(fft2c(image)[:, None], expected, rtol=1e-4, atol=1e-4)
    assert damping == pytest.approx(0.23 * (0.01 / 0.2) ** 2, rel=1e-4)


def test_noise_of_each_image_follows_from_its_generator():
    """The identity has the loss of white noise, 1; images and their order change nothing."""
    network = PlugAndPlay(width=4, depth=1)
    x = complex_noise((2, 64, 64), seeded(0))
    with torch.no_grad():
        both = network.prior_loss(x, [seeded(3), seeded(4)])
        second = network.prior_loss(5 * x[1:], [seeded(4)])
    torch.testing.assert_close(both, torch.ones(2), rtol=0.05, atol=0)
    torch.testing.assert_close(both[1:], second, rtol=1e-4, atol=0)


def test_it_learns_to_take_noise_off():
    torch.manual_seed(0)
    network = PlugAndPlay(width=4, depth=1)
    x = torch.ones(4, 16, 16, dtype=torch.complex64)
    optimizer = torch.optim.Adam(network.denoiser.parameters(), lr=1e-2)

    def held_out():
        with torch.no_grad():
            images = x[:1].expand(40, -1, -1)
            return float(network.prior_loss(images, [seeded(n) for n in range(40)]).mean())

    before, source = held_out(), seeded(1)
    for _ in range(80):
        optimizer.zero_grad()
        network.prior_loss(x, [source] * 4).mean().backward()
        optimizer.step()
    assert held_out() < 0.9 * before


def test_training_without_a_sampler_refuses_it():
    with pytest.raises(InputError, match=r"train_sampler\.py"):
        Objective().check(Labels(), PlugAndPlay(width=4, depth=1))
