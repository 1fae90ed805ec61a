from __future__ import annotations

import doctest
import math

import pytest
import torch
from torch import Tensor

from ctxrecon.baselines import wavelets
from ctxrecon.baselines.wavelets import max_level, wavedec2, waverec2

SIZES = [(32, 48), (31, 45), (46, 36), (7, 9), (5, 4), (2, 3)]
DB2 = torch.tensor([0.48296291314469, 0.836516303737469, 0.224143868041857, -0.129409522550921])


def random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128, generator=generator)


def inner(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(x.conj() * y).sum() for x, y in zip(a, b, strict=True)]).sum()


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("level", [0, 1, 3])
def test_the_transform_preserves_inner_products_and_is_undone_by_its_adjoint(
    shape, level, generator
):
    x, z = (random((2, *shape), generator) for _ in range(2))
    coefficients = wavedec2(x, level)
    assert len(coefficients) == 3 * level + 1
    torch.testing.assert_close(inner(coefficients, wavedec2(z, level)), inner([x], [z]))
    torch.testing.assert_close(waverec2(coefficients, shape), x)
    others = [random(tuple(band.shape), generator) for band in coefficients]
    torch.testing.assert_close(
        inner(coefficients, others), inner([x], [waverec2([*others], shape)])
    )


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.filterwarnings("ignore:Level value")
def test_coefficients_are_those_of_pywavelets(shape, level, generator):
    pywt = pytest.importorskip("pywt")
    x = random((2, *shape), generator)
    deepest, *details = pywt.wavedec2(x.numpy(), "db2", mode="zero", level=level)
    found = wavedec2(x, level)
    torch.testing.assert_close(found[0], torch.from_numpy(deepest))
    for number, (along_y, along_x, both) in enumerate(details):
        bands = found[3 * number + 1 : 3 * number + 4]
        # The sign of the high-pass filter is a convention.
        for band, theirs in zip(bands, (-along_y, -along_x, both), strict=True):
            torch.testing.assert_close(band, torch.from_numpy(theirs))


@pytest.mark.parametrize("shape", [(320, 320), (256, 300), (47, 90), (17, 6), (5, 4), (1, 8)])
def test_levels_are_those_of_sigpy(shape):
    pywt = pytest.importorskip("pywt")
    even = [size + size % 2 for size in shape]
    assert max_level(shape) == pywt.dwtn_max_level(even, "db2")


def test_an_impulse_shows_the_filters():
    image = torch.zeros(1, 8, 8)
    image[0, 3, 4] = 1
    approximation, along_y, along_x, both = (band[0, 1:3, 2:4] for band in wavedec2(image, 1))
    low_y, low_x = DB2[[3, 1]], DB2[[2, 0]]
    high_y, high_x = DB2[[0, 2]], -DB2[[1, 3]]
    torch.testing.assert_close(approximation, torch.outer(low_y, low_x))
    torch.testing.assert_close(along_y, torch.outer(high_y, low_x))
    torch.testing.assert_close(along_x, torch.outer(low_y, high_x))
    torch.testing.assert_close(both, torch.outer(high_y, high_x))


def test_details_vanish_on_a_plane():
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    _, *details = wavedec2((3 * y - 2 * x + 1)[None].double(), 1)
    for band in details:
        assert float(band[..., 1:-1, 1:-1].abs().max()) < 1e-5


def test_a_batch_equals_its_images(generator):
    x = random((3, 13, 18), generator)
    for batched, *single in zip(
        wavedec2(x, 2), *(wavedec2(each[None], 2) for each in x), strict=True
    ):
        torch.testing.assert_close(batched, torch.cat(single))


def test_gain_and_angles():
    assert pytest.approx(math.tan(math.radians(60))) == wavelets._FIRST
    assert pytest.approx(math.tan(math.radians(15))) == wavelets._SECOND
    gain = math.cos(math.radians(60)) * math.cos(math.radians(15))
    assert pytest.approx(gain) == wavelets._GAIN


def test_examples_run():
    tried = doctest.testmod(wavelets)
    assert tried.attempted > 3
    assert tried.failed == 0
