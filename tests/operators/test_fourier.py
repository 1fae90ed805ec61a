from __future__ import annotations

import numpy as np
import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels, fft2c, ifft2c

SHAPES = [(8, 8), (7, 9), (8, 5), (1, 6)]


@pytest.mark.parametrize("shape", SHAPES)
def test_matches_the_sum_that_defines_it(shape, generator):
    ny, nx = shape
    image = torch.randn(ny, nx, dtype=torch.complex128, generator=generator)
    y, x = np.arange(ny) - ny // 2, np.arange(nx) - nx // 2
    along_y = np.exp(-2j * np.pi * np.outer(y, y) / ny) / np.sqrt(ny)
    along_x = np.exp(-2j * np.pi * np.outer(x, x) / nx) / np.sqrt(nx)
    np.testing.assert_allclose(fft2c(image).numpy(), along_y @ image.numpy() @ along_x, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_unitary(shape, generator):
    image = torch.randn(2, 3, *shape, dtype=torch.complex64, generator=generator)
    torch.testing.assert_close(ifft2c(fft2c(image)), image)
    torch.testing.assert_close(fft2c(ifft2c(image)), image)
    torch.testing.assert_close(fft2c(image).norm(), image.norm())


@pytest.mark.parametrize("shape", SHAPES)
def test_constant_image_is_the_center_sample(shape):
    kspace = fft2c(torch.ones(shape, dtype=torch.complex64))
    expected = torch.zeros(shape, dtype=torch.complex64)
    expected[shape[0] // 2, shape[1] // 2] = (shape[0] * shape[1]) ** 0.5
    torch.testing.assert_close(kspace, expected)


def test_channels_are_real_then_imaginary_and_back(generator):
    image = torch.randn(2, 4, 5, dtype=torch.complex64, generator=generator)
    channels = complex_to_channels(image)
    assert channels.shape == (2, 2, 4, 5)
    assert torch.equal(channels[:, 0], image.real)
    assert torch.equal(channels[:, 1], image.imag)
    assert torch.equal(channels_to_complex(channels), image)


def test_refuses_what_is_not_complex_or_not_two_channels():
    with pytest.raises(InputError, match="expected a complex image"):
        complex_to_channels(torch.zeros(1, 4, 4))
    with pytest.raises(InputError, match="expected 2 channels"):
        channels_to_complex(torch.zeros(1, 3, 4, 4))
