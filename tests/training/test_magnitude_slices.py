"""Magnitude images as training slices: people, crops, contrast, and augmentation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from ctxrecon.datasets import ShardSlices, write_shard
from ctxrecon.errors import InputError
from ctxrecon.intensity import magnitude_quantile
from ctxrecon.metadata import ScanMetadata
from ctxrecon.training.slices import MagnitudeRecipe, MagnitudeSlices


def head(size: int = 64) -> np.ndarray:
    """A bright disk off the middle with a ramp inside, 99 % quantile near 1."""
    y, x = np.mgrid[:size, :size] / size
    inside = np.hypot(y - 0.4, x - 0.6) < 0.25
    return (inside * (0.5 + x / 1.7)).astype(np.float16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine slices of one person, one of another, whose heart has no mirror image."""
    source = tmp_path / "source"
    source.touch()
    people = ["many"] * 9 + ["one"]
    metadata = [ScanMetadata(anatomy="brain", contrast="T1")] * 9
    metadata.append(ScanMetadata(anatomy="heart", contrast="T2"))
    out = tmp_path / "set"
    out.mkdir()
    write_shard(
        out / "all.safetensors",
        np.stack([head()[None]] * 10),
        metadata,
        source=source,
        subjects=people,
        weights=[1.0] * 10,
    )
    return out


def rendered(
    slices: MagnitudeSlices, numbers: range, size: int, part: float | None
) -> torch.Tensor:
    batch: MagnitudeRecipe = default_collate(
        [slices.recipe(number, size, part).recipe for number in numbers]
    )
    return batch.render((size, size))


def test_people_come_as_often_as_the_root_of_their_slices(folder: Path) -> None:
    slices = MagnitudeSlices(ShardSlices(folder), seed=1)
    drawn = Counter(slices.recipe(n, 32, 1.0).metadata.contrast for n in range(600))
    assert drawn["T2"] / 600 == pytest.approx(1 / 4, abs=0.06)


def test_images_get_phase_and_shading_and_keep_their_scale(folder: Path) -> None:
    slices = MagnitudeSlices(ShardSlices(folder), seed=2)
    images = rendered(slices, range(30), 32, 1.0)
    torch.testing.assert_close(magnitude_quantile(images, "lower"), torch.ones(30))
    inside = images[images.abs() > 0.4]
    assert inside.angle().std() > 1.0
    again = rendered(MagnitudeSlices(ShardSlices(folder), seed=2), range(30), 32, 1.0)
    assert torch.equal(images, again)
    other = rendered(MagnitudeSlices(ShardSlices(folder), seed=3), range(30), 32, 1.0)
    assert not torch.equal(images, other)


def test_without_anything_added_it_is_the_image(folder: Path) -> None:
    recipe = MagnitudeSlices(ShardSlices(folder), seed=0).recipe(0, 64, 1.0).recipe
    assert isinstance(recipe, MagnitudeRecipe)
    plain = recipe.acquisition._replace(
        **{
            name: np.zeros_like(getattr(recipe.acquisition, name))
            for name in ("shading_strength", "window", "phase_strength", "angle")
        }
    )
    one = recipe._replace(gamma=np.float32(1), acquisition=plain, scale=np.float32(1))
    batch: MagnitudeRecipe = default_collate([one])
    image = batch.render((64, 64))[0]
    expected = torch.from_numpy(one.pixels).to(image.dtype)
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5)


def test_the_floor_of_noise_around_the_body_is_taken_off(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = 0.03 * rng.standard_normal((2, 64, 64))
    noisy = np.hypot(head().astype(np.float32) + noise[0], noise[1]).astype(np.float16)
    (tmp_path / "source").touch()
    write_shard(
        tmp_path / "noisy.safetensors",
        noisy[None, None],
        [ScanMetadata(anatomy="heart")],
        source=tmp_path / "source",
    )
    recipe = MagnitudeSlices(ShardSlices(tmp_path)).recipe(0, 64, 1.0).recipe
    pixels = cast(MagnitudeRecipe, recipe).pixels
    outside = head() == 0
    assert noisy[outside].mean() > 0.03
    assert pixels[outside].mean() < noisy[outside].mean() / 10
    assert np.abs(pixels - noisy)[~outside].max() < 0.01


def test_parts_lie_around_what_is_seen(folder: Path) -> None:
    slices = MagnitudeSlices(ShardSlices(folder), seed=4)
    for part in (0.6, None):
        images = rendered(slices, range(20), 24, part).abs()
        assert (images > 0.3).float().mean((1, 2)).min() > 0.1


def test_random_contrast_leaves_the_anatomy_alone(folder: Path) -> None:
    slices = MagnitudeSlices(ShardSlices(folder), seed=5, random_contrast=0.3)
    drawn = [slices.recipe(number, 32, 1.0) for number in range(300)]
    alone = [one for one in drawn if one.metadata.contrast is None]
    assert len(alone) / 300 == pytest.approx(0.3, abs=0.08)
    assert {one.metadata.to_prompt() for one in alone} <= {"brain", "heart"}
    spreads = []
    for random in (False, True):
        some = [one for one in drawn if (one.metadata.contrast is None) == random]
        gammas = [float(cast(MagnitudeRecipe, one.recipe).gamma) for one in some]
        spreads.append(np.log(gammas).std())
    assert spreads == pytest.approx([0.15, 0.5], rel=0.25)


def test_images_smaller_than_the_resolution_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="--resolution 96"):
        MagnitudeSlices(ShardSlices(folder)).recipe(0, 96, 1.0)
