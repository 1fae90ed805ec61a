from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import CartesianSense, Crop, LinearOperator, adjoint_error, valid_adjoint

SHAPES = [(8, 8), (7, 9), (8, 5), (9, 6)]


def draw(*shape, generator):
    return torch.randn(*shape, dtype=torch.complex64, generator=generator)


def draw_mask(batch, shape, generator, *, lines=False):
    ny, nx = shape
    mask = torch.rand(batch, 1, 1 if lines else ny, nx, generator=generator) < 0.4
    mask[..., nx // 2] = True
    return mask.expand(batch, 1, ny, nx).clone()


def smooth_maps(coils, shape):
    """Low-order phases and amplitudes: fewer than ``coils`` independent ones in each row."""
    y, x = (torch.linspace(-1, 1, n) for n in shape)
    powers = [(1 + 0.1 * c) * torch.exp(1j * c + (0.3 + 0.1j * c) * x) for c in range(coils)]
    return (torch.stack(powers)[:, None] * torch.exp(0.2j * y)[:, None])[None].to(torch.complex64)


def cases():
    for shape in SHAPES:
        for lines in (False, True):
            for mask_batch, map_batch in ((1, 1), (3, 1), (1, 3), (3, 3), (3, 0)):
                yield pytest.param(
                    shape, lines, mask_batch, map_batch,
                    id=f"{shape[0]}x{shape[1]}-{'1d' if lines else '2d'}-{mask_batch}-{map_batch}",
                )  # fmt: skip


@pytest.fixture
def operator(request, generator):
    shape, lines, mask_batch, map_batch = request.param
    maps = draw(map_batch, 4, *shape, generator=generator) if map_batch else None
    return CartesianSense(draw_mask(mask_batch, shape, generator, lines=lines), maps)


def pytest_generate_tests(metafunc):
    if "operator" in metafunc.fixturenames:
        values = [pytest.param(case.values, id=case.id) for case in cases()]
        metafunc.parametrize("operator", values, indirect=True)


def test_adjoint_and_normal(operator, generator):
    assert valid_adjoint(operator, generator=generator)
    assert adjoint_error(operator) < 1e-5
    x = draw(*operator.domain_shape, generator=generator)
    expected = operator.adjoint(operator.forward(x))
    torch.testing.assert_close(operator.normal(x), expected, rtol=1e-5, atol=1e-5)
    assert operator(x).shape == operator.range_shape
    energy = operator(x).abs().square().sum((1, 2, 3))
    torch.testing.assert_close(operator.squared_norm(x), energy, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(operator.squared_norm(x.clone().requires_grad_()), energy)


def test_forward_is_the_textbook_formula(operator, generator):
    x = draw(*operator.domain_shape, generator=generator)
    maps = 1 if operator.coil_maps is None else operator.coil_maps
    torch.testing.assert_close(operator(x), operator.mask * fft2c(maps * x[:, None]))


def test_batched_is_one_by_one(operator, generator):
    x = draw(*operator.domain_shape, generator=generator)
    for item in range(operator.batch_size):
        maps = operator.coil_maps
        alone = CartesianSense(
            operator.mask[item % len(operator.mask)][None],
            None if maps is None else maps[item % len(maps)][None],
        )
        one = slice(item, item + 1)
        torch.testing.assert_close(operator(x)[one], alone(x[one]))
        torch.testing.assert_close(
            operator.normal(x)[one], alone.normal(x[one]), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lines", [False, True])
def test_normal_is_differentiable_with_its_adjoint_as_gradient(shape, lines, generator):
    operator = CartesianSense(
        draw_mask(1, shape, generator, lines=lines), draw(1, 3, *shape, generator=generator)
    )
    x = draw(2, *shape, generator=generator).requires_grad_()
    weight = draw(2, *shape, generator=generator)
    result = operator.normal(x)
    (gradient,) = torch.autograd.grad((result * weight.conj()).sum().real, x)
    with torch.no_grad():
        torch.testing.assert_close(operator.normal(x), result, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, operator.normal(weight), rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_coil_maps(generator):
    maps = draw(1, 3, 6, 6, generator=generator).requires_grad_()
    operator = CartesianSense(draw_mask(1, (6, 6), generator, lines=True), maps)
    operator.normal(draw(1, 6, 6, generator=generator)).abs().sum().backward()
    assert maps.grad is not None
    assert maps.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("lines", [False, True])
def test_normal_shifts_nothing(shape, lines, generator, monkeypatch):
    operator = CartesianSense(
        draw_mask(1, shape, generator, lines=lines), draw(1, 3, *shape, generator=generator)
    )
    x = draw(1, *shape, generator=generator)
    axes = []
    plain = torch.fft.fftn

    def refuse(*arguments, **settings):
        raise AssertionError("a shifted copy")

    def record(value, dim):
        axes.append(dim)
        return plain(value, dim=dim)

    for name in ("fftshift", "ifftshift"):
        monkeypatch.setattr(torch.fft, name, refuse)
    monkeypatch.setattr(torch, "roll", refuse)
    monkeypatch.setattr(torch.fft, "fftn", record)
    operator.normal(x)
    assert set(axes) == {(-1,) if lines else (-2, -1)}


def test_normal_needs_fewer_coils_where_rows_allow_it(generator, monkeypatch):
    shape = (7, 32)
    operator = CartesianSense(draw_mask(1, shape, generator, lines=True), smooth_maps(12, shape))
    x = draw(1, *shape, generator=generator)
    expected = operator.adjoint(operator(x))
    transformed = []
    plain = torch.fft.fftn

    def counted(v, dim):
        transformed.append(len(v))
        return plain(v, dim=dim)

    monkeypatch.setattr(torch.fft, "fftn", counted)
    error = (operator.normal(x) - expected).abs().amax() / expected.abs().amax()
    assert error < 2e-6
    assert sum(transformed) <= 2 * 9


def test_single_coil_full_mask_is_the_identity(generator):
    operator = CartesianSense(torch.ones(1, 1, 7, 8, dtype=torch.bool))
    x = draw(2, 7, 8, generator=generator)
    torch.testing.assert_close(operator.normal(x), x)
    torch.testing.assert_close(operator.adjoint(operator(x)), x)
    torch.testing.assert_close(operator(x), fft2c(x)[:, None])


def test_every_second_line_folds_the_image():
    mask = torch.zeros(1, 1, 4, 8, dtype=torch.bool)
    mask[..., ::2] = True
    point = torch.zeros(1, 4, 8, dtype=torch.complex64)
    point[0, 1, 2] = 1
    folded = torch.zeros_like(point)
    folded[0, 1, [2, 6]] = 0.5
    torch.testing.assert_close(CartesianSense(mask).normal(point), folded)


def test_unsampled_positions_are_never_read(generator):
    operator = CartesianSense(
        draw_mask(1, (6, 6), generator), draw(1, 2, 6, 6, generator=generator)
    )
    y = operator(draw(1, 6, 6, generator=generator))
    spoiled = y.masked_fill(~operator.mask, float("nan"))
    assert torch.equal(operator.adjoint(spoiled), operator.adjoint(y))


def test_cg_inverts_a_well_sampled_scan(generator):
    shape = (12, 10)
    operator = CartesianSense(
        draw_mask(2, shape, generator, lines=True), draw(1, 6, *shape, generator=generator)
    )
    x = draw(2, *shape, generator=generator) * torch.tensor([1.0, 1e-6])[:, None, None]
    found = conjugate_gradient(operator.normal, operator.adjoint(operator(x)), num_iterations=100)
    error = (found - x).abs().amax((1, 2)) / x.abs().amax((1, 2))
    assert error.max() < 1e-3


def test_batch_of_one_applies_to_any_batch(generator):
    operator = CartesianSense(
        draw_mask(1, (6, 5), generator), draw(1, 2, 6, 5, generator=generator)
    )
    x = draw(4, 6, 5, generator=generator)
    assert operator(x).shape == (4, 2, 6, 5)
    assert operator.adjoint(operator(x)).shape == operator.normal(x).shape == x.shape


@pytest.mark.parametrize("full", [(9, 8), (8, 9)])
@pytest.mark.parametrize("small", [(4, 5), (5, 4), (8, 8)])
def test_crop(full, small, generator):
    crop = Crop((2, *full), small)
    assert valid_adjoint(crop, generator=generator)
    image = torch.zeros(2, *full)
    image[:, full[0] // 2, full[1] // 2] = 1
    assert crop(image)[:, small[0] // 2, small[1] // 2].tolist() == [1.0, 1.0]
    assert torch.equal(crop.adjoint(crop(image)), image)
    assert crop.squared_norm(image).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("lines", [False, True])
def test_composition(lines, generator):
    inner = Crop((1, 10, 9), (7, 6))
    outer = CartesianSense(
        draw_mask(3, (7, 6), generator, lines=lines), draw(1, 2, 7, 6, generator=generator)
    )
    both = outer @ inner
    assert (both.domain_shape, both.range_shape) == ((3, 10, 9), (3, 2, 7, 6))
    assert both.device == outer.device
    assert valid_adjoint(both, generator=generator)
    x = draw(3, 10, 9, generator=generator)
    torch.testing.assert_close(both(x), outer(inner(x)))
    torch.testing.assert_close(both.normal(x), both.adjoint(both(x)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(both.squared_norm(x), both(x).abs().square().sum((1, 2, 3)))


def test_composition_refuses_what_does_not_fit(generator):
    operator = CartesianSense(draw_mask(3, (7, 6), generator))
    with pytest.raises(InputError, match=r"cannot compose .*\(1, 7, 7\)"):
        operator @ Crop((1, 9, 9), (7, 7))
    with pytest.raises(InputError, match=r"expects \(3, 7, 6\), the second returns \(2, 7, 6\)"):
        operator @ Crop((2, 9, 9), (7, 6))
    with pytest.raises(TypeError):
        operator @ 3  # type: ignore[operator]


def test_operators_cannot_be_changed(generator):
    mask, maps = draw_mask(1, (6, 6), generator), draw(1, 2, 6, 6, generator=generator)
    operator = CartesianSense(mask, maps)
    x = draw(1, 6, 6, generator=generator)
    before = operator.normal(x)
    with pytest.raises(AttributeError, match="CartesianSense is immutable"):
        operator.mask = mask
    with pytest.raises(AttributeError, match="Crop is immutable"):
        Crop((1, 4, 4), (2, 2)).shape = (3, 3)
    mask.fill_(True)
    maps.zero_()
    assert torch.equal(operator.normal(x), before)
    torch.testing.assert_close(operator.adjoint(operator(x)), before, rtol=1e-5, atol=1e-5)
    assert torch.equal(copy.deepcopy(operator).normal(x), before)


class Wrong(LinearOperator):
    """CartesianSense with one published mistake in its adjoint."""

    right: LinearOperator
    wrong_adjoint: Callable[[LinearOperator, torch.Tensor], torch.Tensor]

    def __init__(self, right, adjoint):
        object.__setattr__(self, "right", right)
        object.__setattr__(self, "wrong_adjoint", adjoint)

    @property
    def domain_shape(self):
        return self.right.domain_shape

    @property
    def range_shape(self):
        return self.right.range_shape

    def forward(self, x):
        return self.right.forward(x)

    def adjoint(self, y):
        return self.wrong_adjoint(self.right, y)


@pytest.mark.parametrize(
    "adjoint",
    [
        lambda a, y: (a.coil_maps * ifft2c(a.mask * y)).sum(1),
        lambda a, y: a.adjoint(y).abs().to(torch.complex64),
        lambda a, y: 2 * a.adjoint(y),
        lambda a, y: (a.coil_maps.conj() * torch.fft.ifft2(a.mask * y, norm="ortho")).sum(1),
        lambda a, y: a.coil_maps.conj() * ifft2c(a.mask * y),
    ],
    ids=["maps not conjugated", "magnitude", "scaled", "not centred", "coils not combined"],
)
def test_valid_adjoint_finds_wrong_ones(adjoint, generator):
    right = CartesianSense(draw_mask(2, (8, 8), generator), draw(1, 3, 8, 8, generator=generator))
    assert valid_adjoint(right)
    assert not valid_adjoint(Wrong(right, adjoint))


MASK = torch.ones(2, 1, 6, 5, dtype=torch.bool)
MAPS = torch.ones(2, 3, 6, 5, dtype=torch.complex64)


def with_value(tensor, value):
    changed = tensor.clone()
    changed[0, 0, 0, 0] = value
    return changed


@pytest.mark.parametrize(
    ("mask", "maps", "sentence"),
    [
        (MASK.float(), MAPS, r"bool mask.*float32"),
        (MASK * 0.5, MAPS, "0 and 1"),
        (with_value(MASK.float(), float("nan")), MAPS, "0 and 1"),
        (MASK.numpy(), MAPS, "mask .*ndarray"),
        (MASK[:, 0], MAPS, r"mask .*\(2, 6, 5\)"),
        (MASK.expand(2, 3, 6, 5), MAPS, r"mask .*\(2, 3, 6, 5\)"),
        (MASK & torch.tensor([True, False])[:, None, None, None], MAPS, r"nothing in .*\[1\]"),
        (MASK[:, :, :0], MAPS, "the mask samples nothing"),
        (MASK, MAPS.numpy(), "coil maps .*ndarray"),
        (MASK, MAPS.real, "coil maps.*float32"),
        (MASK, MAPS.to(torch.complex128), "coil maps.*complex128"),
        (MASK, MAPS[0], r"coil maps .*\(3, 6, 5\)"),
        (MASK, MAPS.mT, r"coils, 6, 5\) to fit the mask, got \(2, 3, 5, 6\)"),
        (MASK, MAPS[:, :0], r"got \(2, 0, 6, 5\)"),
        (MASK, MAPS.repeat(2, 1, 1, 1), "batch 4 .* 2"),
        (MASK, with_value(MAPS, float("nan")), "coil maps .*NaN"),
        (MASK, with_value(MAPS, float("inf")), "coil maps .*NaN"),
        (MASK, MAPS.to("meta"), "meta .* cpu"),
    ],
)
def test_refuses_at_the_door(mask, maps, sentence):
    with pytest.raises(InputError, match=sentence):
        CartesianSense(mask, maps)


@pytest.mark.parametrize("method", ["forward", "normal"])
@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (MAPS[:, 0, :, :4], r"expected an image of shape \(2, 6, 5\), got \(2, 6, 4\)"),
        (MAPS[:1, 0], r"expected an image of shape \(2, 6, 5\), got \(1, 6, 5\)"),
        (MAPS[:, :1], r"image .*\(2, 1, 6, 5\)"),
        (MAPS[:, 0].real, "complex64.*float32"),
    ],
)
def test_refuses_a_wrong_image(method, x, sentence):
    with pytest.raises(InputError, match=sentence):
        getattr(CartesianSense(MASK, MAPS), method)(x)


def test_refuses_wrong_kspace():
    with pytest.raises(InputError, match=r"k-space .*3, 6, 5\)"):
        CartesianSense(MASK[:1], MAPS[:1]).adjoint(MAPS[:, :2])


def test_crop_refuses():
    with pytest.raises(InputError, match=r"\(4, 4\) .*\(5, 4\)"):
        Crop((1, 4, 4), (5, 4))
    with pytest.raises(InputError, match="of positive sizes"):
        Crop((1, 4, 4), (0, 4))
    with pytest.raises(InputError, match="image of shape"):
        Crop((1, 4, 4), (2, 2))(torch.zeros(1, 5, 4))
    with pytest.raises(InputError, match="cropped image"):
        Crop((1, 4, 4), (2, 2)).adjoint(torch.zeros(1, 4, 4))
