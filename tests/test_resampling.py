"""Volumes on the voxels of another scan."""

from __future__ import annotations

import logging
from itertools import permutations, product

import numpy as np
import pytest

from ctxrecon.errors import InputError
from ctxrecon.resampling import resample

SHAPE = (20, 24, 18)
EDGES = np.array([2.0, 1.5, 2.5])
MIDDLE = np.array([5.0, -8.0, 12.0])
SLOPES = np.array([0.3, -0.2, 0.5])


def rotation(degrees: float, axis: int) -> np.ndarray:
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    one, two = (other for other in range(3) if other != axis)
    turned = np.eye(3)
    turned[[one, two], [one, two]] = cosine
    turned[one, two], turned[two, one] = -sine, sine
    return turned


def around(axes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine of a grid with these columns whose middle is that of all grids here."""
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = MIDDLE - axes @ ((np.array(shape) - 1) / 2)
    return affine


def places(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.einsum("ai,i...->a...", affine[:3, :3], np.indices(shape).astype(float)) + affine[
        :3, 3
    ].reshape(3, 1, 1, 1)


def linear(at: np.ndarray) -> np.ndarray:
    """What trilinear interpolation, and the mean over a voxel, give exactly."""
    return 100 + np.einsum("a,a...->...", SLOPES, at)


AFFINE = around(np.diag(EDGES), SHAPE)
VOLUME = linear(places(AFFINE, SHAPE))


@pytest.mark.parametrize(
    "axes",
    [
        *(np.eye(3)[:, list(order)] for order in permutations(range(3))),
        *(np.diag(signs) for signs in product((1.0, -1.0), repeat=3)),
        *(rotation(25, axis) for axis in range(3)),
        rotation(40, 0) @ rotation(-20, 2) @ np.diag([1, -1, 1]),
    ],
)
@pytest.mark.parametrize("edges", [(1.0, 1.2, 0.7), (2.5, 2.0, 1.9), (1.0, 1.0, 6.0)])
def test_a_linear_function_stays_where_it_is(axes, edges):
    """Under permutations, flips and rotations, finer and coarser."""
    target = around(axes * np.array(edges), (6, 7, 3))
    found = resample(VOLUME, AFFINE, target, (6, 7, 3))
    assert found.shape == (6, 7, 3)
    np.testing.assert_allclose(found, linear(places(target, (6, 7, 3))), rtol=2e-5)


def test_the_same_grid_gives_the_same_volume():
    noise = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    np.testing.assert_allclose(resample(noise, AFFINE, AFFINE, SHAPE), noise, atol=1e-5)
    assert np.array_equal(resample(noise, np.eye(4), np.eye(4), SHAPE), noise)


def test_a_coarser_grid_gets_means_and_not_single_voxels():
    noise = np.random.default_rng(1).standard_normal((16, 16, 16)).astype(np.float32)
    coarse = np.diag([2.0, 4.0, 8.0, 1.0])
    coarse[:3, 3] = [0.5, 1.5, 3.5]
    found = resample(noise, np.eye(4), coarse, (8, 4, 2))
    means = noise.reshape(8, 2, 4, 4, 2, 8).mean(axis=(1, 3, 5))
    np.testing.assert_allclose(found, means, atol=1e-5)


def test_what_lies_outside_is_0_and_is_logged(caplog):
    moved = np.eye(4)
    moved[0, 3] = -3.0
    with caplog.at_level(logging.INFO):
        found = resample(np.ones((4, 4, 4)), np.eye(4), moved, (8, 4, 4))
    assert found[:, 0, 0].tolist() == [0, 0, 0, 1, 1, 1, 1, 0]
    assert "50.0 %" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        resample(np.ones((4, 4, 4)), np.eye(4), np.eye(4), (4, 4, 4))
    assert not caplog.text


def test_a_single_slice_reaches_half_its_thickness():
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    target = np.eye(4)
    target[2, 3] = -4.0
    found = resample(np.full((3, 3, 1), 7.0), affine, target, (3, 3, 9))
    assert found[1, 1].tolist() == [0, 0, 7, 7, 7, 7, 7, 0, 0]


def test_grids_apart():
    away = np.eye(4)
    away[1, 3] = 100
    with pytest.raises(InputError, match="overlap"):
        resample(np.ones((4, 4, 4)), np.eye(4), away, (4, 4, 4))
    with pytest.raises(InputError, match="three axes"):
        resample(np.ones((4, 4)), np.eye(4), away, (4, 4, 4))


@pytest.mark.parametrize("edge", [1e-3, 1e-12])
def test_voxels_that_are_far_too_small(edge):
    """Such as edges in meters instead of millimeters; nothing of that size is built."""
    with pytest.raises(InputError, match="check the voxel sizes"):
        resample(np.ones((8, 8, 8)), np.diag([edge, edge, edge, 1]), np.eye(4), (4, 4, 1))
