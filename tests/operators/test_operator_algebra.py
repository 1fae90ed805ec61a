"""Sums, products, multiples, adjoints and Gram operators compared with dense matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gaussian import complex_noise, dense, random_sense, seeded
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import (
    CartesianSense,
    Crop,
    Identity,
    Inpainting,
    LinearOperator,
    SoftSense,
    StackedOperator,
    SuperResolution,
    WeightedSense,
    valid_adjoint,
)

NY, NX = 6, 8


def sense(batch=1, seed=0):
    source = seeded(seed)
    mask = torch.rand(batch, 1, NY, NX, generator=source) < 0.5
    mask[..., NY // 2, NX // 2] = True
    maps = complex_noise((batch, 3, NY, NX), source)
    return CartesianSense(mask, maps)


def crop(batch=1):
    return Crop((batch, NY + 3, NX + 2), (NY, NX))


def inpainting(batch=1):
    return Inpainting(torch.rand(batch, 1, NY, NX, generator=seeded(3)) < 0.6)


WEIGHTS = torch.tensor([0.5, 2.0, -1.5])
A, B, S, M = sense(), sense(seed=1), crop(), inpainting()
DERIVED = {
    "adjoint": A.H,
    "gram": A.gram,
    "sum": A + B,
    "of batches": sense(3) + B,
    "composition": A @ S,
    "adjoint of a composition": (A @ S).H,
    "of both ways": A @ A.H,
    "multiple": 3 * A,
    "complex multiple": A * (1 - 2j),
    "each sample's multiple": WEIGHTS * A,
    "complex for each sample": (1j + WEIGHTS) * sense(3),
    "adjoint of a multiple": ((1j + WEIGHTS) * A).H,
    "shifted": A.gram + 0.7,
    "shifted for each sample": WEIGHTS + A.gram,
    "all of it": (1 + 2j * M + 5 * (A @ M).gram).H,
    "identity": Identity((2, NY, NX)),
    "stacked": StackedOperator(A, 0.5 * Identity((1, NY, NX))),
    "stacked batches": StackedOperator(sense(3), M),
    "stacked compositions": 2 * StackedOperator(A @ S, S),
}


@pytest.mark.parametrize("operator", DERIVED.values(), ids=DERIVED.keys())
def test_adjoints(operator):
    assert isinstance(operator, LinearOperator)
    assert valid_adjoint(operator)
    assert valid_adjoint(operator.H)
    assert operator.H.domain_shape == operator.range_shape
    assert operator.H.range_shape == operator.domain_shape


@pytest.mark.parametrize("operator", DERIVED.values(), ids=DERIVED.keys())
def test_grams_norms_and_quadratic_forms_are_those_of_the_map(operator):
    x = complex_noise(operator.domain_shape, seeded(5))
    image = operator(x)
    twice = operator.adjoint(image)
    close: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4 * float(twice.abs().max())}
    torch.testing.assert_close(operator.normal(x), twice, **close)
    torch.testing.assert_close(operator.gram(x), twice, **close)
    torch.testing.assert_close(operator.gram.H(x), twice, **close)
    energy = image.abs().square().flatten(1).sum(1)
    torch.testing.assert_close(operator.squared_norm(x), energy, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(operator.gram.quadratic(x), energy, rtol=1e-4, atol=1e-3)
    if operator.domain_shape == operator.range_shape:
        form = (x.conj() * image).flatten(1).sum(1).real
        torch.testing.assert_close(operator.quadratic(x), form, rtol=1e-4, atol=1e-3)
    else:
        with pytest.raises(InputError, match="gram"):
            operator.quadratic(x)


def test_agrees_with_matrices():
    a, b, s = dense(A), dense(B), dense(S)
    expected = {
        A.H: a.conj().T,
        A.gram: a.conj().T @ a,
        A + B: a + b,
        A @ S: a @ s,
        (A @ S).H: s.conj().T @ a.conj().T,
        2 * A: 2 * a,
        A * (1 - 2j): (1 - 2j) * a,
        ((1 - 2j) * A).H: (1 + 2j) * a.conj().T,
        torch.tensor(0.3) * A: 0.3 * a,
        A.gram + 0.7: a.conj().T @ a + 0.7 * np.eye(NY * NX),
        1 + 5 * A.gram: np.eye(NY * NX) + 5 * a.conj().T @ a,
    }
    for operator, matrix in expected.items():
        found = dense(operator)
        assert np.abs(found - matrix).max() < 1e-5 * np.abs(matrix).max(), operator


def test_identities():
    y, x = complex_noise(A.range_shape, seeded(1)), complex_noise(S.domain_shape, seeded(2))
    assert torch.equal((A @ S).H(y), (S.H @ A.H)(y))
    image = S(x)
    assert torch.equal((A + B)(image), A(image) + B(image))
    assert torch.equal((A + B).H(y), A.adjoint(y) + B.adjoint(y))
    assert A.H.H is A
    assert A.gram.H(image).equal(A.normal(image))
    assert torch.equal((2.5 * A)(image), 2.5 * A(image))
    assert torch.equal((np.float32(2.5) * A)(image), 2.5 * A(image))
    assert torch.equal((A.gram + 0.5)(image), A.normal(image) + 0.5 * image)


def test_grams_take_the_fast_ways_of_their_operators():
    class Counted(CartesianSense):
        def forward(self, x):
            raise AssertionError("not by forward")

        def adjoint(self, y):
            raise AssertionError("not by adjoint")

    operator = Counted(A.mask, A.coil_maps)
    x = complex_noise(S.domain_shape, seeded(0))
    for fast, like in [
        (operator.gram + 0.5, A.gram + 0.5),
        (operator.gram.gram, A.gram.gram),
        ((operator @ M).gram, (A @ M).gram),
        (3 * (2 * operator).gram, 3 * (2 * A).gram),
    ]:
        torch.testing.assert_close(fast(S(x)), like(S(x)))
        torch.testing.assert_close(fast.quadratic(S(x)), like.quadratic(S(x)))
    composed = (operator @ S).gram
    torch.testing.assert_close(composed(x), S.adjoint(A.normal(S(x))))
    torch.testing.assert_close(composed.quadratic(x), A.squared_norm(S(x)))


@pytest.mark.parametrize(
    "operator",
    [
        A,
        WeightedSense(torch.full((1, 1, NY, NX), 0.3)),
        SoftSense(A.mask, torch.stack([A.coil_maps, B.coil_maps], dim=1)),
        M,
        SuperResolution((1, NY, NX), 2),
        A @ S,
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_grams_are_bit_for_bit_the_normal_of_each_model(operator):
    x = complex_noise((2, *operator.domain_shape[1:]), seeded(1))
    assert torch.equal(operator.gram(x), operator.normal(x))
    assert torch.equal(operator.gram.quadratic(x), operator.squared_norm(x))


def test_a_regularized_system_is_solved_for_each_sample():
    rho = torch.tensor([0.1, 1.0, 10.0])
    y = complex_noise((3, *A.range_shape[1:]), seeded(4))
    together = conjugate_gradient(A.gram + rho, A.H(y), num_iterations=60)
    matrix = dense(A)
    for item, weight in enumerate(rho.tolist()):
        system = matrix.conj().T @ matrix + weight * np.eye(NY * NX)
        expected = np.linalg.solve(system, matrix.conj().T @ y[item].numpy().ravel())
        error = np.abs(together[item].numpy().ravel() - expected).max()
        assert error < 1e-4 * np.abs(expected).max()


def test_gradients_reach_factors_images_and_maps():
    maps = A.coil_maps.clone().requires_grad_()
    rho = torch.tensor(0.5, requires_grad=True)
    each = torch.tensor([0.5, 2.0], requires_grad=True)
    x = complex_noise((2, NY, NX), seeded(6)).requires_grad_()
    operator = CartesianSense(A.mask, maps)
    (each * (operator.gram + rho))(x).abs().square().sum().backward()
    found = [present(t.grad).clone() for t in (maps, rho, each, x)]
    for t in (maps, rho, each, x):
        t.grad = None
    image = each[:, None, None] * (operator.normal(x) + rho * x)
    image.abs().square().sum().backward()
    for ours, t in zip(found, (maps, rho, each, x), strict=True):
        torch.testing.assert_close(ours, t.grad)


def test_a_batch_of_one_is_any_batch():
    three = sense(3)
    x = complex_noise((3, NY, NX), seeded(7))
    assert (three + A).domain_shape == (A + three).domain_shape == (3, NY, NX)
    assert (three @ M).range_shape == (3, 3, NY, NX)
    assert (WEIGHTS * A).range_shape == (3, 3, NY, NX)
    assert (2 * A).domain_shape == (1, NY, NX)
    scaled = (WEIGHTS * A)(x)
    for item, weight in enumerate(WEIGHTS.tolist()):
        torch.testing.assert_close(scaled[item : item + 1], weight * A(x[item : item + 1]))
        torch.testing.assert_close((three + A)(x)[item], three(x)[item] + A(x[item : item + 1])[0])


def test_shapes_that_do_not_fit():
    other = Identity((1, NY, NX + 1))
    for make, words in [
        (lambda: M + other, "cannot add"),
        (lambda: sense(2) + sense(3), "cannot add"),
        (lambda: M + A, "cannot add"),
        (lambda: M @ other, "cannot compose"),
        (lambda: A @ A, "cannot compose"),
        (lambda: A + 1, "gram"),
        (lambda: 0.5 + S, "gram"),
        (lambda: torch.ones(3) + A, "gram"),
        (lambda: torch.ones(2) * sense(3), r"\(3,\) with one"),
        (lambda: torch.ones(3, 1) * A, "any batch"),
        (lambda: torch.ones(0) * A, "any batch"),
        (lambda: float("nan") * A, "finite number"),
        (lambda: A * complex(0, float("inf")), "finite number"),
        (lambda: torch.ones(3, device="meta") * A, "one device"),
        (lambda: (WEIGHTS * A)(torch.ones(1, NY, NX, dtype=torch.complex64)), "of shape"),
        (lambda: (WEIGHTS * A).adjoint(torch.ones(1, 3, NY, NX)), "of shape"),
        (lambda: Identity((2, NY, NX))(torch.ones(1, NY, NX)), "of shape"),
    ]:
        with pytest.raises(InputError, match=words):
            make()
    for make in (lambda: A + "1", lambda: A @ 2, lambda: A * True, lambda: A * A):
        with pytest.raises(TypeError, match="unsupported operand"):
            make()


@pytest.mark.parametrize("operator", DERIVED.values(), ids=DERIVED.keys())
def test_derived_operators_are_immutable(operator):
    for name in ("operator", "factor", "H", "anything"):
        with pytest.raises(AttributeError, match="immutable"):
            setattr(operator, name, 1)


def test_a_factor_that_is_changed_afterwards_changes_nothing():
    weights = WEIGHTS.clone()
    operator = weights * A
    weights[:] = 0
    assert torch.equal(operator.factor, WEIGHTS)


def test_devices():
    maps = torch.ones(1, 1, NY, NX, dtype=torch.complex64, device="meta")
    mask = Identity((1, NY, NX))
    assert mask.device is None
    assert (mask + 2).device is None
    assert S.H.device is None
    assert (torch.ones((), device="meta") * S).device == torch.device("meta")
    assert maps.device == torch.device("meta")
    for operator in (A.H, A.gram, A @ S, S.H @ A.H, 2 * A, A + B, A.gram + 1, 1 + A.gram):
        assert operator.device == torch.device("cpu")


def test_weighted_and_masked_operators_are_siblings():
    """Neither stands in for the other: a mask is bool, weights are not, and adjoints differ."""
    weighted = WeightedSense(torch.full((1, 1, NY, NX), 0.5))
    assert not isinstance(weighted, CartesianSense)
    assert not isinstance(random_sense((NY, NX), seeded(0)), WeightedSense)
    x = complex_noise((1, NY, NX), seeded(1))
    torch.testing.assert_close(weighted.gram(x), weighted.H(weighted(x)))


def test_a_stacked_identity_is_a_proximal_penalty():
    """``(AᴴA + λ I) x = Aᴴ y + λ x₀``."""
    y = complex_noise(A.range_shape, seeded(7))
    x0 = complex_noise(A.domain_shape, seeded(8))
    stacked = StackedOperator(A, 0.5 * Identity((1, NY, NX)))
    found = conjugate_gradient(
        stacked.gram, stacked.H(stacked.join(y, 0.5 * x0)), num_iterations=60
    )
    expected = conjugate_gradient(A.gram + 0.25, A.H(y) + 0.25 * x0, num_iterations=60)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_stacked_measurements_are_split_as_they_were_joined():
    stacked = StackedOperator(sense(3), M)
    y, z = complex_noise((3, 3, NY, NX), seeded(1)), complex_noise((3, NY, NX), seeded(2))
    first, second = stacked.split(stacked.join(y, z))
    assert torch.equal(first, y)
    assert torch.equal(second, z)
    x = complex_noise((3, NY, NX), seeded(3))
    chosen = torch.tensor([2, 0])
    assert torch.equal(stacked[chosen](x[chosen]), stacked(x)[chosen])


def test_stacked_operators_share_a_domain():
    with pytest.raises(InputError, match="domains differ"):
        StackedOperator(A, S)
    with pytest.raises(InputError, match="second measurement"):
        StackedOperator(A, M).join(torch.zeros(A.range_shape), torch.zeros(1, NX, NY))
