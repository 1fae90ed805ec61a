from __future__ import annotations

import numpy as np
import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks import (
    MASKS,
    equispaced1d,
    gaussian1d,
    make_mask,
    poisson_disk2d,
    radial2d,
    random1d,
    uniform1d,
    uniform2d,
    variable_density2d,
)

LINES = ["uniform1d", "random1d", "equispaced1d", "gaussian1d"]
POINTS = ["uniform2d", "variable_density2d", "poisson_disk2d", "radial2d"]
SHAPES = [(320, 320), (64, 96), (33, 47), (96, 51), (8, 7), (1, 40)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("acceleration", [1, 2, 3.7, 4, 8])
@pytest.mark.parametrize("name", LINES)
def test_lines_are_exactly_as_many_as_stated(name, shape, acceleration):
    ny, nx = shape
    mask = make_mask(name, shape, acceleration, generator=seeded(0))
    assert mask.shape == (1, 1, ny, nx)
    assert mask.dtype == torch.bool
    assert int(mask[0, 0, 0].sum()) == round(nx / acceleration)
    assert torch.equal(mask, mask[..., :1, :].expand_as(mask)), "lines run along the readout"


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("acceleration", [1.3, 2, 4, 8, 15])
@pytest.mark.parametrize("name", POINTS)
def test_samples_are_exactly_as_many_as_stated(name, shape, acceleration):
    mask = make_mask(name, shape, acceleration, 0.04, generator=seeded(0))
    assert int(mask.sum()) == round(shape[0] * shape[1] / acceleration)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", MASKS)
def test_the_budget_does_not_depend_on_the_draw(name, seed):
    mask = make_mask(name, (32, 48), 4, 0.08, generator=seeded(seed))
    assert int(mask.sum()) == 32 * 48 // 4


def test_acceleration_one_samples_everything():
    for name in set(MASKS) - {"poisson_disk2d", "poisson2d_sigpy"}:
        assert bool(make_mask(name, (12, 15), 1, generator=seeded(0)).all()), name


@pytest.mark.parametrize(("nx", "fraction"), [(320, 0.08), (320, 0.04), (47, 0.1), (48, 0.1)])
@pytest.mark.parametrize("name", LINES)
def test_the_center_lies_around_the_zero_frequency(name, nx, fraction):
    mask = make_mask(name, (2, nx), 4, fraction, generator=seeded(3))
    count = round(nx * fraction)
    first = nx // 2 - count // 2
    assert bool(mask[..., first : first + count].all())


@pytest.mark.parametrize("name", POINTS)
def test_the_center_of_2d_masks_is_a_box(name):
    ny, nx = 61, 80
    mask = make_mask(name, (ny, nx), 6, 0.1, generator=seeded(3))
    assert bool(mask[0, 0, 30 - 3 : 30 + 3, 40 - 4 : 40 + 4].all())


@pytest.mark.parametrize("shape", [(16, 16), (17, 21)])
@pytest.mark.parametrize("name", LINES)
def test_the_center_is_where_fft2c_puts_a_constant_image(name, shape):
    kspace = fft2c(torch.ones(1, *shape, dtype=torch.complex64))
    one_line = make_mask(name, shape, shape[1], 1 / shape[1], generator=seeded(0))
    torch.testing.assert_close((kspace * one_line[:, 0]).norm(), kspace.norm())


def test_default_center_is_the_protocol_of_the_paper():
    for acceleration, lines in ((4, 26), (8, 13)):
        masks = uniform1d((1, 320), acceleration, batch_size=50, generator=seeded(0))
        always = masks.all(dim=0).sum()
        assert int(always) == lines


@pytest.mark.parametrize("name", MASKS)
def test_a_batch_equals_single_draws(name):
    shape = (24, 32)
    one_by_one, list_of_three = seeded(5), [seeded(1), seeded(2), seeded(3)]
    batch = make_mask(name, shape, 3, batch_size=3, generator=seeded(5))
    singles = [make_mask(name, shape, 3, generator=one_by_one) for _ in range(3)]
    assert torch.equal(batch, torch.cat(singles))
    batch = make_mask(name, shape, 3, batch_size=3, generator=list_of_three)
    singles = [make_mask(name, shape, 3, generator=seeded(s)) for s in (1, 2, 3)]
    assert torch.equal(batch, torch.cat(singles))


@pytest.mark.parametrize("name", MASKS)
def test_batch_items_and_seeds_differ(name):
    batch = make_mask(name, (24, 64), 4, batch_size=8, generator=seeded(0))
    assert len({mask.numpy().tobytes() for mask in batch}) > 1
    assert torch.equal(batch, make_mask(name, (24, 64), 4, batch_size=8, generator=seeded(0)))


def test_uniform_lines_are_uniform_outside_the_center():
    masks = uniform1d((1, 60), 4, 0.1, batch_size=3000, generator=seeded(0))
    density = masks[:, 0, 0].double().mean(dim=0)
    outside = torch.cat([density[:27], density[33:]])
    expected = (15 - 6) / 54
    # Five standard errors of a proportion.
    assert float((outside - expected).abs().max()) < 5 * (expected * (1 - expected) / 3000) ** 0.5
    assert torch.equal(
        uniform1d((2, 60), 4, 0.1, generator=seeded(1)),
        random1d((2, 60), 4, 0.1, generator=seeded(1)),
    )


def test_uniform_samples_are_uniform_outside_the_center():
    masks = uniform2d((12, 10), 4, 0.2, batch_size=3000, generator=seeded(0))
    density = masks[:, 0].double().mean(dim=0)
    assert bool((density[5:7, 4:6] == 1).all())
    density[5:7, 4:6] = torch.nan
    outside = density[~density.isnan()]
    expected = (30 - 4) / 116
    assert float((outside - expected).abs().max()) < 5 * (expected * (1 - expected) / 3000) ** 0.5
    assert int(uniform2d((12, 10), 4, 0.0, batch_size=200)[:, 0].all(dim=0).sum()) == 0


def test_gaussian_lines_are_denser_in_the_middle():
    masks = gaussian1d((1, 128), 4, 0.0, batch_size=1000, generator=seeded(0))
    density = masks[:, 0, 0].double().mean(dim=0)
    near, middle, far = density[56:73].mean(), density[76:90].mean(), density[100:].mean()
    assert near > 1.5 * middle > 3 * far
    assert abs(float(density[40:64].mean() - density[65:89].mean())) < 0.02


@pytest.mark.parametrize("name", ["variable_density2d", "poisson_disk2d", "radial2d"])
def test_2d_masks_are_denser_in_the_middle(name):
    mask = make_mask(name, (96, 96), 5, 0.0, generator=seeded(0))[0, 0].double()
    assert mask[36:60, 36:60].mean() > 2 * mask[:24].mean()


def test_equispaced_lines():
    mask = equispaced1d((1, 40), 4, 0.0, offset=1)
    assert mask[0, 0, 0].nonzero()[:, 0].tolist() == list(range(1, 40, 4))
    with_center = equispaced1d((1, 320), 4, 0.08, offset=0)[0, 0, 0].nonzero()[:, 0]
    gaps = with_center.diff()
    assert with_center[0] == 0
    assert set(gaps.tolist()) <= {1, 2, 3, 4, 5, 6}
    left = with_center[with_center < 147].diff()
    assert int(left.max() - left.min()) <= 1
    drawn = equispaced1d((1, 40), 4, 0.0, batch_size=40, generator=seeded(0))
    assert {int(m[0, 0].nonzero()[0]) for m in drawn} == {0, 1, 2, 3}


def test_poisson_disks_keep_their_distance():
    """The nearest neighbour of a sample is never nearer than its radius, up to one scale."""
    size = 96
    mask = poisson_disk2d((size, size), 10, 0.0, generator=seeded(0))[0, 0]
    points = mask.nonzero().double()
    distance = torch.cdist(points, points)
    distance.fill_diagonal_(torch.inf)
    radius = (points - size // 2).norm(dim=1) / (size / 2)
    assert float(radius.max()) <= 1
    growth = 1 + 2 * torch.minimum(radius[:, None], radius[None, :])
    scale = float((distance / growth).min())
    random = variable_density2d((size, size), 10, 0.0, generator=seeded(0))[0, 0].nonzero().double()
    apart = torch.cdist(random, random).fill_diagonal_(torch.inf).amin(dim=1)
    assert scale > 0.8
    assert float(distance[radius > 0.8].amin()) >= 2 > float(apart.min()) == 1


def test_spokes_pass_through_the_zero_frequency():
    mask = radial2d((65, 65), 12, generator=seeded(0))[0, 0]
    assert bool(mask[32, 32])
    ring = torch.linspace(0, 2 * torch.pi, 720)
    y = (32 + 12 * torch.sin(ring)).round().long()
    x = (32 + 12 * torch.cos(ring)).round().long()
    assert 0.1 < float(mask[y, x].double().mean()) < 0.6
    flipped = mask.flip(0, 1)
    assert float((mask & flipped).sum() / mask.sum()) > 0.9, "a spoke goes both ways"


def test_numpy_integers_make_a_shape():
    assert uniform1d((np.int64(4), np.int32(16)), 4).shape == (1, 1, 4, 16)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (((32,), 4), {}, r"mask shape .*\(32,\)"),
        (((32, 0), 4), {}, r"mask shape .*\(32, 0\)"),
        (((32, 4.5), 4), {}, r"mask shape"),
        (((32, 32), 0.5), {}, r"acceleration .* 0\.5"),
        (((32, 32), float("nan")), {}, "acceleration .* nan"),
        (((32, 32), float("inf")), {}, "acceleration .* inf"),
        (((32, 32), 5000), {}, "acceleration 5000 leaves none of"),
        ((32, 4), {}, r"\(ny, nx\), got 32"),
        (("32", 4), {}, r"\(ny, nx\), got '32'"),
        (((32, 32), "4"), {}, "acceleration .* '4'"),
        (((32, 32), None), {}, "acceleration .* None"),
        (((32, 32), True), {}, "acceleration .* True"),
        (((32, 32), 4, "8 %"), {}, "center_fraction.* '8 %'"),
        (((32, 32), 4), {"batch_size": 1.5}, r"batch size .* 1\.5"),
        (((32, 32), 4), {"generator": 5}, r"manual_seed"),
        (((32, 32), 4), {"batch_size": 2, "generator": [5, 6]}, "manual_seed"),
        (((32, 32), 4, -0.1), {}, r"center_fraction.* -0\.1"),
        (((32, 32), 4, 1.5), {}, r"center_fraction.* 1\.5"),
        (((32, 32), 4, 0.8), {}, "center .* acceleration 4"),
        (((32, 32), 4), {"batch_size": 0}, "batch size .* 0"),
        (
            ((32, 32), 4),
            {"batch_size": 3, "generator": [seeded(0)]},
            "generator .*3.* 1",
        ),
    ],
)
def test_impossible_masks_are_refused(name, arguments, options, sentence):
    with pytest.raises(InputError, match=sentence):
        MASKS[name](*arguments, **options)


def test_sigpys_poisson_mask_is_sigpys_but_for_the_last_samples():
    from sigpy.mri import poisson

    mask = make_mask("poisson2d_sigpy", (96, 96), 8, 0.1, generator=seeded(3))[0, 0]
    seed = int(torch.randint(2**31, (1,), generator=seeded(3)))
    expected = torch.from_numpy(poisson((96, 96), 8, (10, 10), dtype=bool, seed=seed))
    assert int((mask != expected).sum()) <= 0.02 * int(mask.sum())
    state = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    make_mask("poisson2d_sigpy", (96, 96), 8, generator=seeded(0))
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], state)  # noqa: NPY002


@pytest.mark.parametrize("offset", [-1, 4, 1.5])
def test_an_offset_beyond_the_spacing_is_refused(offset):
    with pytest.raises(InputError, match=f"offset.* 3.* {offset}"):
        equispaced1d((1, 40), 4, 0.0, offset=offset)


def test_a_poisson_budget_beyond_the_ellipse_is_refused():
    with pytest.raises(InputError, match=r"ellipse .* variable_density2d"):
        poisson_disk2d((32, 32), 1.1)


def test_an_unknown_mask_is_refused():
    with pytest.raises(InputError, match=r"'spiral2d'.* uniform1d"):
        make_mask("spiral2d", (32, 32), 4)
    with pytest.raises(InputError, match=r"unknown mask \['uniform1d'\]"):
        make_mask(["uniform1d"], (32, 32), 4)  # type: ignore[arg-type]
