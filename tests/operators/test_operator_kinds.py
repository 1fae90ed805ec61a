from __future__ import annotations

import pytest
import torch
from gaussian import GaussianDenoiser
from small_operators import (
    NX,
    NY,
    OPERATORS,
    draw,
    draw_maps,
    draw_mask,
    radial_weights,
)

from ctxrecon.errors import InputError
from ctxrecon.masks.trajectories import radial_trajectory
from ctxrecon.operators import (
    Inpainting,
    NonCartesianSense,
    adjoint_error,
    valid_adjoint,
)
from ctxrecon.solvers import DDS

TIMESTEPS = [990, 700, 450, 200, 60, 5]


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]()


def test_adjoint_normal_and_norm(operator):
    """For NUFFTs of a relative error of 1e-6, each; Toeplitz and two NUFFTs agree to 2e-6."""
    assert valid_adjoint(operator)
    assert adjoint_error(operator) < 2e-6
    x = draw(*operator.domain_shape)
    y = operator(x)
    assert y.shape == operator.range_shape
    assert y.dtype == torch.complex64
    expected = operator.adjoint(y)
    assert float((operator.normal(x) - expected).norm() / expected.norm()) < 2e-6
    energy = y.abs().square().flatten(1).sum(dim=1)
    torch.testing.assert_close(operator.squared_norm(x), energy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["inpainting", "super-resolution", "radial-weighted", "spiral", "multi-echo", "radial-crop"],
)
def test_batched_is_one_by_one(name):
    operator = OPERATORS[name]()
    x = draw(3, *operator.domain_shape[1:])
    y, normal, norm = operator(x), operator.normal(x), operator.squared_norm(x)
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(operator(x[one]), y[one], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(operator.normal(x[one]), normal[one], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(operator.squared_norm(x[one]), norm[one])


def test_nothing_can_be_changed(operator):
    with pytest.raises(AttributeError, match="immutable"):
        operator.mask = None


def test_changing_the_input_afterwards_changes_nothing():
    mask, trajectory, maps = draw_mask(), radial_trajectory(14, 20), draw_maps()
    weights = radial_weights(trajectory)
    operators = [Inpainting(mask), NonCartesianSense(trajectory, maps, weights)]
    x = draw(1, NY, NX)
    before = [operator(x) for operator in operators]
    mask.logical_not_()
    for tensor in (trajectory, maps, weights):
        tensor.zero_()
    for operator, y in zip(operators, before, strict=True):
        torch.testing.assert_close(operator(x), y)


def test_wrong_shapes_and_types_are_refused(operator):
    for shape, call in (
        (operator.domain_shape, operator.forward),
        (operator.domain_shape, operator.normal),
        (operator.domain_shape, operator.squared_norm),
        (operator.range_shape, operator.adjoint),
    ):
        with pytest.raises(InputError, match="shape"):
            call(draw(*shape[:-1], shape[-1] + 1))
        with pytest.raises(InputError, match="complex64"):
            call(torch.zeros(shape))


# Solvers


@pytest.mark.parametrize(
    "name", ["inpainting", "super-resolution", "radial", "radial-weighted", "spiral", "folded"]
)
def test_dds_runs_unchanged_and_fits_the_data(name, generator):
    operator = OPERATORS[name]()
    prior = GaussianDenoiser(draw(NY, NX), 0.2 + torch.rand(NY, NX, generator=generator))
    batch = max(2, operator.domain_shape[0])
    mean = draw(NY, NX).expand(batch, NY, NX)
    y = operator(mean + 0.8 * draw(batch, NY, NX, seed=5))

    def seeded(item):
        return torch.Generator().manual_seed(item)

    image = DDS(data_weight=20.0)(
        prior, operator, y, timesteps=TIMESTEPS, generator=[seeded(i) for i in range(batch)]
    )
    before = (operator(mean) - y).flatten(1).norm(dim=1)
    after = (operator(image) - y).flatten(1).norm(dim=1)
    assert bool((after < 0.02 * before).all())
    if operator.domain_shape[0] == 1:
        alone = DDS(data_weight=20.0)(
            prior, operator, y[1:2], timesteps=TIMESTEPS, generator=seeded(1)
        )
        torch.testing.assert_close(alone[0], image[1], rtol=1e-4, atol=1e-4)
