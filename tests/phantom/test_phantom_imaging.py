"""Pixels of phantom images, made in batches: the same as one by one, and as drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from ctxrecon.errors import InputError
from ctxrecon.intensity import magnitude_quantile
from ctxrecon.phantom import (
    AnatomyBank,
    PhantomContrasts,
    PhantomPairs,
    PhantomSlices,
    brain_anatomy,
    knee_anatomy,
    multi_echo,
)
from ctxrecon.phantom.dataset import crop_around
from ctxrecon.phantom.imaging import TissueRecipe, smooth_fields


@pytest.fixture(scope="module")
def bank() -> AnatomyBank:
    generator = torch.Generator().manual_seed(4)
    return AnatomyBank.build(
        [knee_anatomy(generator, size=96), brain_anatomy(generator, size=96)] * 2
    )


def rendered(data: PhantomSlices, numbers: range, size: int, part: float | None) -> torch.Tensor:
    recipes = [data.recipe(number, size, part).recipe for number in numbers]
    batch: TissueRecipe = default_collate(recipes)
    return batch.render((size, size))


def test_a_batch_is_the_images_of_the_training_set(bank: AnatomyBank) -> None:
    data = PhantomSlices(bank, resolution=48, seed=2, noise=0.0)
    together = rendered(data, range(6), 48, 1.0)
    for number, image in enumerate(together):
        expected = torch.complex(*data[number]["image"])
        torch.testing.assert_close(image, expected, rtol=1e-4, atol=2e-6)


def test_noise_is_drawn_as_before(bank: AnatomyBank) -> None:
    levels = [PhantomSlices(bank, noise=0.1, seed=1).recipe(n, 32, 1.0).noise for n in range(200)]
    assert max(levels) <= 0.1 / np.sqrt(2)
    assert np.mean(levels) == pytest.approx(0.05 / np.sqrt(2), rel=0.15)


def test_a_crop_has_the_scale_of_its_slice(bank: AnatomyBank) -> None:
    data = PhantomSlices(bank, seed=3, noise=0.0)
    whole, crops = rendered(data, range(40), 96, 1.0), rendered(data, range(40), 32, None)
    assert crops.shape == (40, 32, 32)
    # Brightness where there is tissue agrees, though crops see 48 of 96 pixels.
    bright = [magnitude_quantile(images, "lower") for images in (whole, crops)]
    torch.testing.assert_close(bright[0], torch.ones(40))
    assert 0.6 < float(bright[1].median()) < 1.1
    assert bright[1].std() > 0.1


def test_random_contrast_leaves_the_anatomy_alone_in_the_prompt(bank: AnatomyBank) -> None:
    data = PhantomSlices(bank, seed=5, random_contrast=0.5, noise=0.0)
    plain = PhantomSlices(bank, seed=5, noise=0.0)
    changed = 0
    for number in range(60):
        one, same = data.recipe(number, 32, 1.0), plain.recipe(number, 32, 1.0)
        assert isinstance(one.recipe, TissueRecipe)
        assert isinstance(same.recipe, TissueRecipe)
        if one.metadata == same.metadata:
            np.testing.assert_array_equal(one.recipe.signal, same.recipe.signal)
            continue
        changed += 1
        assert one.metadata.to_prompt() == one.metadata.anatomy
        ratio = np.abs(one.recipe.signal[1:]) / np.abs(same.recipe.signal[1:])
        assert np.log(ratio).std() > 0.3
        relative = [
            one.recipe.texture * same.recipe.signal,
            same.recipe.texture * one.recipe.signal,
        ]
        np.testing.assert_allclose(relative[0], relative[1], rtol=1e-4)
    assert 15 < changed < 45


def test_smooth_fields_are_cosines_of_largest_size_one() -> None:
    weights = torch.zeros(1, 3, 3)
    weights[0, 1, 2] = -0.2
    field = smooth_fields(weights, (40, 60))[0]
    y = torch.cos(torch.pi * (torch.arange(40) + 0.5) / 40)
    x = torch.cos(2 * torch.pi * (torch.arange(60) + 0.5) / 60)
    expected = -torch.outer(y, x)
    torch.testing.assert_close(field, expected / expected.abs().max(), rtol=1e-4, atol=1e-5)


def test_a_square_around_a_pixel_stays_inside() -> None:
    seen = np.zeros((20, 30), bool)
    seen[19, 0] = True
    rng = np.random.default_rng(0)
    assert crop_around(seen, 8, rng) == (slice(12, 20), slice(0, 8))
    assert crop_around(np.zeros((20, 30), bool), 8, rng) == (slice(6, 14), slice(11, 19))


def test_anatomies_with_fewer_pixels_than_the_images_are_refused(bank: AnatomyBank) -> None:
    for refused in (
        lambda: PhantomSlices(bank, resolution=128),
        lambda: PhantomPairs(bank, resolution=128),
        lambda: PhantomContrasts(bank, multi_echo, resolution=128),
        lambda: PhantomSlices(bank).recipe(0, 97, 1.0),
        lambda: PhantomSlices(bank).recipe(0, 128, None),
        lambda: PhantomSlices(bank).draw(0, 128),
    ):
        with pytest.raises(InputError, match="96 × 96 pixels, got"):
            refused()
    assert PhantomSlices(bank)[0]["image"].shape == (2, 96, 96)
    assert PhantomSlices(bank, resolution=96)[0]["image"].shape == (2, 96, 96)
