"""Displacement fields: resampling, smoothness, folds, errors."""

from __future__ import annotations

import math

import pytest
import torch

from ctxrecon.reconstructors.warp import (
    endpoint_error,
    fold_share,
    jacobian_determinant,
    smoothness,
    warp,
)


@pytest.fixture
def images(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(2, 7, 9, dtype=torch.complex64, generator=generator)


def constant(dy: float, dx: float, shape: tuple[int, int] = (7, 9)) -> torch.Tensor:
    return torch.tensor([dy, dx]).view(1, 2, 1, 1).expand(1, 2, *shape).clone()


def test_no_displacement_is_the_identity_to_the_bit(images):
    assert torch.equal(warp(images, constant(0, 0)), images)
    channels = torch.view_as_real(images).movedim(-1, 1).contiguous()
    assert torch.equal(warp(channels, constant(0, 0)), channels)


def test_whole_pixels_shift_exactly(images):
    warped = warp(images, constant(2, -3))
    assert torch.equal(warped[:, :5, 3:], images[:, 2:, :6])
    assert not warped[:, 5:].any()
    assert not warped[:, :, :3].any()


def test_half_a_pixel_takes_the_mean_of_two(images):
    warped = warp(images, constant(0, 0.5))
    torch.testing.assert_close(warped[:, :, :-1], (images[:, :, 1:] + images[:, :, :-1]) / 2)


def test_complex_images_are_resampled_part_by_part(images, generator):
    field = torch.randn(2, 2, 7, 9, generator=generator)
    parts = torch.complex(warp(images.real, field), warp(images.imag, field))
    torch.testing.assert_close(warp(images, field), parts)


def test_far_outside_there_is_nothing(images):
    for far in (1e30, -1e30, 9.0, -9.0):
        assert not warp(images, constant(far, 0)).any()


def test_gradients_are_those_of_differences(generator):
    x = torch.randn(2, 1, 5, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    field = 0.8 * torch.rand(2, 2, 5, 6, dtype=torch.float64, generator=generator) + 0.1
    field = (field + torch.randint(-2, 2, field.shape, generator=generator)).requires_grad_()
    assert torch.autograd.gradcheck(warp, (x, field))


def test_whole_pixels_have_a_gradient():
    ramp = torch.arange(6.0).expand(1, 6, 6)
    field = torch.zeros(1, 2, 6, 6, requires_grad=True)
    warp(ramp, field).sum().backward()
    assert field.grad is not None
    assert bool((field.grad[:, 1, :-1, :-1] == 1).all())


def test_the_gradient_in_the_image_is_the_adjoint(images, generator):
    field = 2 * torch.randn(2, 2, 7, 9, generator=generator)
    x = images.clone().requires_grad_()
    y = torch.randn(images.shape, dtype=torch.complex64, generator=generator)
    warped = warp(x, field)
    (back,) = torch.autograd.grad(warped, x, y)
    left, right = (
        torch.vdot(y.flatten(), warped.detach().flatten()),
        torch.vdot(back.flatten(), images.flatten()),
    )
    torch.testing.assert_close(left, right)


def test_smoothness_of_formula_9(images):
    field = torch.zeros(1, 2, 4, 5)
    flat = torch.ones(1, 4, 5)
    assert smoothness(field + 3, flat) == pytest.approx(0, abs=1e-6)
    field[0, :, 2:] = torch.tensor([3.0, 4.0])[:, None, None]  # a step of 5 between two rows
    expected = 2 * 5 * 5 / 20  # both pixels of five pairs
    assert smoothness(field, flat).item() == pytest.approx(expected, rel=1e-4)
    step = flat.clone()
    step[0, 2:] += 0.7
    assert smoothness(field, step).item() == pytest.approx(expected * math.exp(-0.7), rel=1e-4)
    both = smoothness(torch.cat([field, field]), torch.cat([step, step + 9]))
    torch.testing.assert_close(both[0], both[1])


def test_smoothness_has_a_gradient_where_nothing_changes(images):
    field = torch.zeros(2, 2, 7, 9, requires_grad=True)
    smoothness(field, images).sum().backward()
    assert field.grad is not None
    assert bool(field.grad.isfinite().all())
    assert not images.requires_grad


def test_folds_and_determinants():
    y = torch.arange(8.0)[:, None].expand(8, 8)
    stretched = torch.stack([0.5 * y, torch.zeros(8, 8)])[None]
    torch.testing.assert_close(jacobian_determinant(stretched), torch.full((1, 7, 7), 1.5))
    assert fold_share(stretched) == 0
    turned_over = torch.stack([-2.0 * y, torch.zeros(8, 8)])[None]
    assert fold_share(turned_over) == 1
    half = torch.where(y[None, None] < 4, stretched, turned_over)
    where = y[None] < 3
    assert 0 < fold_share(half) < 1
    assert fold_share(half, where) == 0


def test_a_rotation_keeps_areas():
    angle = math.radians(20)
    y, x = torch.meshgrid(torch.arange(9.0) - 4, torch.arange(9.0) - 4, indexing="ij")
    rotated = torch.stack(
        [
            math.cos(angle) * y - math.sin(angle) * x - y,
            math.sin(angle) * y + math.cos(angle) * x - x,
        ]
    )
    determinant = jacobian_determinant(rotated[None])
    torch.testing.assert_close(determinant, torch.ones_like(determinant))


def test_endpoint_error_where_it_counts():
    truth = torch.zeros(2, 2, 4, 4)
    found = truth.clone()
    found[0, :, :2] = torch.tensor([3.0, 4.0])[:, None, None]
    assert endpoint_error(found, truth).tolist() == [2.5, 0.0]
    where = torch.zeros(2, 4, 4, dtype=torch.bool)
    where[:, 0] = True
    assert endpoint_error(found, truth, where).tolist() == [5.0, 0.0]
    assert endpoint_error(found, truth, torch.zeros_like(where)).tolist() == [0.0, 0.0]
