"""Low-resolution scans: the centre of k-space."""

from __future__ import annotations

import math

import pytest
import torch
from small_operators import (
    NX,
    NY,
    draw,
)

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.operators import (
    Crop,
    SuperResolution,
)

# Super-resolution


@pytest.mark.parametrize(("shape", "factor"), [((12, 20), 2), ((9, 15), 3), ((12, 10), 1)])
def test_a_low_frequency_image_survives_a_low_resolution_scan(shape, factor):
    """A plane wave inside the centre is the same wave on the larger voxels, ``factor`` times."""
    (ny, nx), (small_y, small_x) = shape, (shape[0] // factor, shape[1] // factor)

    def wave(y, x):
        """One period along y, −1 along x."""
        r_y, r_x = torch.arange(y) - y // 2, torch.arange(x) - x // 2
        return torch.exp(2j * math.pi * (r_y[:, None] / y - r_x / x))[None].to(torch.complex64)

    operator, x = SuperResolution((1, ny, nx), factor), wave(ny, nx)
    y = operator(x)
    torch.testing.assert_close(y, factor * wave(small_y, small_x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(operator.adjoint(y), x, rtol=1e-5, atol=1e-5)
    anything = draw(*operator.range_shape)
    torch.testing.assert_close(operator(operator.adjoint(anything)), anything, rtol=1e-5, atol=1e-5)


def test_super_resolution_measures_the_center_of_kspace():
    x = draw(1, NY, NX)
    y = SuperResolution((1, NY, NX), 2)(x)
    center = Crop((1, NY, NX), (NY // 2, NX // 2))
    torch.testing.assert_close(fft2c(y), center(fft2c(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "factor", "sentence"),
    [
        ((1, 12, 10), 0, "positive integer as factor"),
        ((1, 12, 10), 2.0, "positive integer as factor"),
        ((1, 12, 10), 4, "multiples of 4.*Crop"),
        ((12, 10), 2, r"\(batch, ny, nx\)"),
    ],
)
def test_factors_that_do_not_fit(shape, factor, sentence):
    with pytest.raises(InputError, match=sentence):
        SuperResolution(shape, factor)
