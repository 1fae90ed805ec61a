"""DDS of volumes: total variation across slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gaussian import (
    Untouched,
    complex_noise,
    dense,
    random_prior,
    random_sense,
    seeded,
)

from ctxrecon.fourier import complex_to_channels
from ctxrecon.operators import CartesianSense, valid_adjoint
from ctxrecon.solvers import DDS
from ctxrecon.solvers.dds3d import DDS3D, _EachSlice, _SliceDifference

NY, NX = 6, 4
TIMESTEPS = [990, 700, 450, 200, 60, 5]


@pytest.fixture
def prior(generator):
    return random_prior((NY, NX), generator)


@pytest.fixture
def multicoil(generator):
    return random_sense((NY, NX), generator)


class Constant(Untouched):
    """A denoiser that always predicts the same images."""

    def __init__(self, images):
        super().__init__()
        self.images = complex_to_channels(images)

    def __call__(self, x_t, t):
        return self.images.expand_as(x_t), torch.zeros_like(x_t)


@pytest.fixture
def volume(generator):
    """Four slices, each with a mask of its own; a smooth stack with a jump, and its k-space."""
    masks = torch.rand(4, 1, NY, NX, generator=generator) < 0.6
    operator = CartesianSense(masks)
    images = complex_noise((1, NY, NX), generator) + 0.3 * complex_noise((4, NY, NX), generator)
    images[2:] += 2.0
    return operator, images, operator(images + 0.1 * complex_noise((4, NY, NX), generator))


def test_without_total_variation_a_volume_is_its_slices(prior, multicoil, generator):
    y = multicoil(complex_noise((3, NY, NX), generator))
    got, expected = (
        solver(prior, multicoil, y, timesteps=TIMESTEPS, generator=[seeded(s) for s in range(3)])
        for solver in (DDS3D(tv_weight=0.0), DDS())
    )
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_volume_step_is_the_minimizer(volume):
    """Against projected gradient on the dual problem, with dense matrices."""
    operator, x0_hat, y = volume
    xi, tv = 2.0, 0.3
    solver = DDS3D(data_weight=xi, tv_weight=tv, cg_iterations=15, admm_iterations=150)
    got = solver(Constant(x0_hat), operator, y, timesteps=[10])

    size = NY * NX
    hessian = np.eye(4 * size, dtype=complex)
    for k in range(4):
        a = dense(CartesianSense(operator.mask[k : k + 1]))
        block = slice(k * size, (k + 1) * size)
        hessian[block, block] += xi * a.conj().T @ a
    target = (x0_hat + xi * operator.adjoint(y)).numpy().ravel().astype(complex)
    difference = np.kron(np.diff(np.eye(4), axis=0), np.eye(size))
    inverse = np.linalg.inv(hessian)
    dual = np.zeros(3 * size, dtype=complex)
    for _ in range(3000):
        x = inverse @ (target - difference.T @ dual)
        dual = dual + 0.25 * difference @ x
        dual /= np.maximum(np.abs(dual) / tv, 1)
    expected = torch.from_numpy(x.reshape(4, NY, NX).astype(np.complex64))
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)
    # The weight is neither idle nor overwhelming here.
    jumps = (got[1:] - got[:-1]).abs()
    assert 0.05 < float((jumps < 1e-3).float().mean()) < 0.95


def test_duals_go_on_from_one_diffusion_step_to_the_next(volume):
    operator, x0_hat, y = volume
    once = DDS3D(eta=0.0, tv_weight=0.3, cg_iterations=15)
    walked = once(
        Constant(x0_hat), operator, y, timesteps=list(range(24, -1, -1)), generator=seeded(0)
    )
    at_once = DDS3D(eta=0.0, tv_weight=0.3, cg_iterations=15, admm_iterations=25)
    expected = at_once(Constant(x0_hat), operator, y, timesteps=[10], generator=seeded(0))
    torch.testing.assert_close(walked, expected, atol=1e-4, rtol=0)


def test_large_weight_makes_the_slices_of_each_volume_equal(generator):
    operator = CartesianSense(torch.rand(1, 1, NY, NX, generator=generator) < 0.6)
    x0_hat = complex_noise((4, NY, NX), generator)
    y = operator(complex_noise((4, NY, NX), generator))
    solver = DDS3D(tv_weight=100.0, num_slices=2, cg_iterations=10, admm_iterations=60)
    first, second, third, fourth = solver(Constant(x0_hat), operator, y, timesteps=[10])
    torch.testing.assert_close(first, second, atol=1e-3, rtol=0)
    torch.testing.assert_close(third, fourth, atol=1e-3, rtol=0)
    assert float((second - third).abs().max()) > 0.1


def test_volumes_batched_or_one_by_one(prior, volume):
    operator, _, y = volume
    solver = DDS3D(tv_weight=0.2, num_slices=2)
    together = solver(
        prior, operator, y, timesteps=TIMESTEPS, generator=[seeded(s) for s in range(4)]
    )
    for first in (0, 2):
        alone = DDS3D(tv_weight=0.2)(
            prior,
            CartesianSense(operator.mask[first : first + 2]),
            y[first : first + 2],
            timesteps=TIMESTEPS,
            generator=[seeded(first), seeded(first + 1)],
        )
        torch.testing.assert_close(alone, together[first : first + 2], atol=1e-5, rtol=1e-5)
    whole = DDS3D(tv_weight=0.2)(
        prior, operator, y, timesteps=TIMESTEPS, generator=[seeded(s) for s in range(4)]
    )
    assert float((whole - together).abs().max()) > 1e-3


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_operators_on_volumes(multicoil, slices, generator):
    shape = (3, slices, NY, NX)
    data, difference = _EachSlice(multicoil, shape[:2]), _SliceDifference(shape)
    assert data.domain_shape == shape
    assert difference.range_shape == (3, slices - 1, NY, NX)
    for operator in (data, difference, 1 + 5 * data.gram + 2 * difference.gram):
        assert valid_adjoint(operator)
    x = complex_noise(shape, generator)
    assert torch.equal(data(x)[2], multicoil(x[2]))
    torch.testing.assert_close(data.gram(x), data.H(data(x)))
    torch.testing.assert_close(data.squared_norm(x), data(x).abs().square().flatten(1).sum(1))
    torch.testing.assert_close(difference(x), x.diff(dim=1))
