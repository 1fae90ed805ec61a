"""Interpolation to more pixels of the same field of view."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian import complex_noise, seeded

from ctxrecon.errors import InputError
from ctxrecon.operators import SincInterpolation, valid_adjoint

SHAPES = [((12, 20), (6, 10)), ((9, 15), (4, 7)), ((12, 10), (12, 10))]


def wave(ny: int, nx: int) -> torch.Tensor:
    """One period along y, −1 along x, around a constant."""
    y, x = torch.arange(ny) - ny // 2, torch.arange(nx) - nx // 2
    periods = torch.exp(2j * math.pi * (y[:, None] / ny - x / nx))
    return (0.5 + periods)[None].to(torch.complex64)


@pytest.mark.parametrize(("shape", "small"), SHAPES)
def test_values_are_kept_between_the_pixels(shape, small):
    operator = SincInterpolation((1, *shape), small)
    torch.testing.assert_close(operator(wave(*small)), wave(*shape), rtol=1e-5, atol=1e-5)
    assert operator.ratio == math.prod(shape) / math.prod(small)


@pytest.mark.parametrize(("shape", "small"), SHAPES)
def test_adjoint_and_gram(shape, small):
    operator = SincInterpolation((2, *shape), small)
    assert valid_adjoint(operator)
    x = complex_noise((2, *small), seeded(0))
    torch.testing.assert_close(operator.gram(x), operator.ratio * x, rtol=1e-5, atol=1e-5)


def test_a_grid_that_is_not_smaller():
    with pytest.raises(InputError, match="cannot crop"):
        SincInterpolation((1, 12, 10), (12, 11))
